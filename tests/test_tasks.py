"""MTEB's tasks by name, on the Hub's data or on local files, and the bad files."""

from pathlib import Path

import mteb
import pytest
from tiny import write_pairs

from distilface.settings import InputError
from distilface.tasks import find_tasks


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data" / "STS12.jsonl")
    return tmp_path / "data"


def test_find_tasks_by_task_and_benchmark():
    names = [task.metadata.name for task in find_tasks(["STS17", "MTEB(eng, v2)", "STS12"])]
    assert names[0] == "STS17"
    assert len(names) == len(set(names)) > 30
    assert "STS16" not in names


def test_local_data_leaves_mtebs_benchmarks_as_they_are(data):
    """Silent otherwise: a benchmark's task objects are shared, so they would hold our data ever after."""
    benchmark = mteb.get_benchmark("MTEB(eng, v1)")
    shared = next(task for task in benchmark.tasks if task.metadata.name == "STS12")
    find_tasks(["STS12"], data)
    assert not shared.data_loaded
    assert shared.metadata.dataset["path"] == "mteb/sts12-sts"


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["STS12s"], "unknown task 'STS12s': did you mean 'STS12'"),
        (["MTEB(eng, v3)"], r"did you mean 'MTEB\(eng, v[12]\)'"),
        (["CIFAR10"], "not of text alone"),
        (["STS13"], r"holds no STS13.jsonl or STS13.jsonl.gz"),
        (["STS17"], "from the Hub only"),
        (["Banking77Classification"], "from the Hub only"),
    ],
)
def test_tasks_that_cannot_be(data, tasks, message):
    with pytest.raises(InputError, match=message):
        find_tasks(tasks, data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\nnot json\n', "line 2: no JSON"),
        ('{"sentence1": "a", "score": 1}\n', "line 1: no column 'sentence2'"),
        ('{"sentence1": "a", "sentence2": "b", "score": "high"}\n', "line 1: the score 'high' is no number"),
        ('{"sentence1": "a", "sentence2": "b", "score": NaN}\n', "line 1: the score nan is no number"),
        ('{"sentence1": "a", "sentence2": 3, "score": 1}\n', "line 1: sentence1 and sentence2 must be text"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\n' * 3, "nothing to rank"),
    ],
)
def test_bad_data(data, content, message):
    (data / "STS12.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        find_tasks(["STS12"], data)


def test_no_data_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_tasks(["STS12"], tmp_path / "nothing")
