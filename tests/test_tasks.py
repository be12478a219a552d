"""MTEB's tasks by name, on the Hub's data or on local files in one or many languages, and the bad files."""

from pathlib import Path
from types import SimpleNamespace

import mteb
import pytest
from tiny import PAIRS, tiny_model, write_pairs

from distilface.evaluation.scores import evaluate
from distilface.evaluation.tasks import CROSSLINGUAL, data_sources, find_tasks
from distilface.settings import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data" / "STS12.jsonl")
    return tmp_path / "data"


def test_find_tasks_by_task_and_benchmark():
    names = [task.metadata.name for task in find_tasks(["STS17", "MTEB(eng, v2)", "STS12"])]
    assert names[0] == "STS17"
    assert len(names) == len(set(names)) > 30
    assert "STS16" not in names


def test_local_data_leave_mtebs_own_tasks_as_they_are(data, subsets, monkeypatch):
    """Silent otherwise: a benchmark's task objects are shared, so they would hold our data ever after."""
    benchmark = mteb.get_benchmark("MTEB(eng, v1)")
    shared = next(task for task in benchmark.tasks if task.metadata.name == "STS12")
    monkeypatch.setattr(mteb, "get_benchmark", lambda name: SimpleNamespace(tasks=[shared]))
    (local,) = find_tasks(["MTEB(eng, v1)"], data)
    assert local.data_loaded
    assert not shared.data_loaded
    assert shared.metadata.dataset["path"] == "mteb/sts12-sts"
    find_tasks(["STS17", CROSSLINGUAL], subsets)
    task = mteb.get_task("STS17")
    assert len(task.hf_subsets) == len(task.metadata.eval_langs) == 11
    assert "ja" not in mteb.get_task("STSBenchmarkMultilingualSTS").metadata.eval_langs


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["STS12s"], "unknown task 'STS12s': did you mean 'STS12'"),
        (["MTEB(eng, v3)"], r"did you mean 'MTEB\(eng, v[12]\)'"),
        (["CIFAR10"], "not of text alone"),
        (["STS13"], r"holds no STS13.jsonl or STS13.jsonl.gz"),
        (["STS17"], r"holds no subset of STS17, as ko-ko.jsonl\[.gz\]; name what it holds"),
        (["Banking77Classification"], "from the Hub only"),
    ],
)
def test_tasks_that_cannot_be(data, tasks, message):
    with pytest.raises(InputError, match=message):
        find_tasks(tasks, data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "0 scored pairs; a correlation needs at least 2"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\nnot json\n', "line 2: not JSON"),
        ('{"sentence1": "a", "score": 1}\n', "line 1: no column 'sentence2'"),
        ('{"sentence1": "a", "sentence2": "b", "score": "high"}\n', "line 1: the score 'high' is not a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": NaN}\n', "line 1: the score nan is not a number"),
        ('{"sentence1": "a", "sentence2": 3, "score": 1}\n', "line 1, column 'sentence2': 3 is not text"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}\n' * 3, "nothing to rank"),
    ],
)
def test_bad_data(data, content, message):
    (data / "STS12.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        find_tasks(["STS12"], data)


@pytest.fixture
def subsets(tmp_path: Path) -> Path:
    for i, name in enumerate(("en-ar", "es-es", "de-de", "en-de", "en-ja", "extra")):
        write_pairs(tmp_path / "xx" / f"{name}.jsonl{'.gz' if i % 2 else ''}", PAIRS[i:])
    return tmp_path / "xx"


@pytest.mark.parametrize(
    ("task", "found", "missing"),
    [
        ("STS17", {"en-ar": 0, "en-de": 3, "es-es": 1}, "ko-ko ar-ar en-en en-tr es-en fr-en it-en nl-en"),
        ("STSBenchmarkMultilingualSTS", {"de": 2, "es": 1}, "en fr it nl pl pt ru zh"),
        (CROSSLINGUAL, {"en-de": 3, "en-ja": 4}, "en-es en-fr en-it en-nl en-pl en-pt en-ru en-zh"),
    ],
)
def test_each_language_is_scored_and_their_mean(task, found, missing, subsets, tmp_path):
    """A subset without data is named, not taken for a zero; the cache gives the same again."""
    model = tiny_model(tmp_path / "model")
    scores = evaluate(model, [task], subsets, tmp_path / "cache")
    assert list(scores) == [task, *(f"{task} ({name})" for name in scores_order(task, found))]
    for name, first in found.items():
        write_pairs(tmp_path / "one" / "STS12.jsonl", PAIRS[first:])
        assert scores[f"{task} ({name})"] == evaluate(model, ["STS12"], tmp_path / "one")["STS12"]
    assert scores[task] == pytest.approx(sum(scores[f"{task} ({name})"] for name in found) / len(found), abs=1e-3)
    assert data_sources(find_tasks([task], subsets))[task]["missing"].split() == missing.split()
    assert evaluate(model, [task], subsets, tmp_path / "cache") == scores


def scores_order(task: str, scores: dict[str, int]) -> list[str]:
    return [name for name in find_tasks([task])[0].hf_subsets if name in scores] if task != CROSSLINGUAL else [*scores]


def test_changed_data_of_one_language_are_scored_anew(subsets, tmp_path):
    model = tiny_model(tmp_path / "model")
    before = evaluate(model, ["STS17"], subsets, tmp_path / "cache")
    write_pairs(subsets / "en-ar.jsonl", PAIRS[2:])
    after = evaluate(model, ["STS17"], subsets, tmp_path / "cache")
    assert after["STS17 (en-ar)"] != before["STS17 (en-ar)"]
    assert after["STS17 (es-es)"] == before["STS17 (es-es)"]


def test_a_task_that_is_not_on_the_hub():
    with pytest.raises(InputError, match=f"task {CROSSLINGUAL} is read from local files only; give --data-dir"):
        find_tasks([CROSSLINGUAL])
    with pytest.raises(InputError, match=f"did you mean '{CROSSLINGUAL}'"):
        find_tasks(["STSBenchmarkCrosslingual"])
