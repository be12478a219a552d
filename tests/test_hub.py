"""The Hub on loopback serves the unmodified libraries, and a Hub out of reach fails as a real one does."""

import json
import urllib.request
from pathlib import Path

import huggingface_hub.constants
import pytest
from hub import Hub, run_python
from huggingface_hub import HfApi
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
from tiny import tiny_backbone, tiny_model

STS = ["STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R"]
PAIRS = [("A cat sat.", "The cat sat.", 4.5), ("A dog ran.", "It rained.", 0.5), ("Yes.", "Yes.", 5.0)]

LOAD_MODELS = """
import sys, torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

backbone, model = sys.argv[1:]
hub_id = "distilbert/distilbert-base-uncased"
here, there = (AutoModel.from_pretrained(x).state_dict() for x in (backbone, hub_id))
assert here.keys() == there.keys() and all(torch.equal(here[k], there[k]) for k in here)
words = "a cat sat"
assert AutoTokenizer.from_pretrained(hub_id)(words) == AutoTokenizer.from_pretrained(backbone)(words)
assert (SentenceTransformer("org/tiny").encode(words) == SentenceTransformer(model).encode(words)).all()
"""

LOAD_TEXT = """
import datasets
from huggingface_hub import hf_hub_download

id, file = "princeton-nlp/datasets-for-simcse", "wiki1m_for_simcse.txt"
rows = datasets.load_dataset("text", data_files=f"hf://datasets/{id}/{file}", split="train")["text"]
print(list(rows))
print(open(hf_hub_download(id, file, repo_type="dataset")).read().splitlines())
"""

LOAD_TASKS = """
import json, sys, mteb

for task in mteb.get_tasks(sys.argv[1:]):
    task.load_data()
    print(task.metadata.name, json.dumps([list(row.values()) for row in task.dataset["test"]]))
"""

# The libraries wait 1, 2, 4, 8 and 8 seconds between their attempts; what they raise at the end is the same.
OUT_OF_REACH = """
import json, time
import datasets, mteb, huggingface_hub, sentence_transformers, transformers

time.sleep = lambda seconds: None
calls = {
    "hf_hub_download": lambda: huggingface_hub.hf_hub_download("org/tiny", "config.json"),
    "model_info": lambda: huggingface_hub.model_info("org/tiny"),
    "AutoModel": lambda: transformers.AutoModel.from_pretrained("org/tiny"),
    "SentenceTransformer": lambda: sentence_transformers.SentenceTransformer("org/tiny"),
    "load_dataset": lambda: datasets.load_dataset("org/texts"),
    "hf:// file": lambda: datasets.load_dataset("text", data_files="hf://datasets/org/texts/a.txt"),
    "mteb": lambda: mteb.get_tasks(["STSBenchmark"])[0].load_data(),
}
seen = {}
for name, call in calls.items():
    try:
        call()
    except Exception as error:
        seen[name] = type(error).__name__
print(json.dumps(seen))
"""


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """Let this process ask the Hub on loopback, though the user's own environment may say offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


def write_sts(folder: Path, form: str) -> Path:
    """Write an STS data set as the Hub holds them: split files at the root, or parquet and a card."""
    rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS]
    folder.mkdir(parents=True)
    if form == "jsonl":
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "test-00000-of-00001.parquet")
    files = "data_files:\n  - split: test\n    path: data/test-*\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  {files}---\n")
    return folder


def test_models_load_by_their_id(hub: Hub, tmp_path: Path):
    tiny_backbone(tmp_path / "backbone")
    tiny_model(tmp_path / "parts").save(str(tmp_path / "model"))
    hub.add_model("distilbert/distilbert-base-uncased", tmp_path / "backbone")
    hub.add_model("org/tiny", tmp_path / "model")
    run_python(LOAD_MODELS, hub.env(tmp_path / "cache"), str(tmp_path / "backbone"), str(tmp_path / "model"))
    fetched = {path.split("/", 2)[2] for method, path in hub.requests if method == "GET"}
    commit = hub.repos["models", "org/tiny"].sha
    assert f"tiny/resolve/{commit}/1_Pooling/config.json" in fetched


def test_a_text_file_loads_both_ways(hub: Hub, tmp_path: Path):
    lines = ["A cat sat.", "", "The dog ran — quickly."]
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "wiki1m_for_simcse.txt").write_text("\n".join(lines), encoding="utf-8")
    hub.add_dataset("princeton-nlp/datasets-for-simcse", tmp_path / "texts")
    printed = run_python(LOAD_TEXT, hub.env(tmp_path / "cache")).splitlines()
    assert printed == [str(lines)] * 2


def test_mteb_loads_the_seven_tasks_at_their_pinned_revisions(hub: Hub, tmp_path: Path):
    import mteb

    for task in mteb.get_tasks(STS):
        asked = task.metadata.dataset
        form = "parquet" if task.metadata.name == "STSBenchmark" else "jsonl"
        hub.add_dataset(asked["path"], write_sts(tmp_path / asked["path"], form), sha=asked["revision"])
    printed = run_python(LOAD_TASKS, hub.env(tmp_path / "cache"), *STS).splitlines()
    assert sorted(printed) == sorted(f"{name} {json.dumps([list(p) for p in PAIRS])}" for name in STS)


def test_out_of_reach_each_library_raises_its_own_class(hub: Hub, tmp_path: Path):
    """What is caught as "no Hub in reach" is of four classes; one of them is not even an OSError."""
    seen = json.loads(run_python(OUT_OF_REACH, hub.dead_env(tmp_path / "cache")))
    assert seen == {
        "hf_hub_download": "LocalEntryNotFoundError",
        "model_info": "ConnectError",  # the HTTP client's own: httpx2's, and httpx's before huggingface-hub 2
        "AutoModel": "OSError",
        "SentenceTransformer": "OSError",
        "load_dataset": "ConnectionError",
        "hf:// file": "ConnectError",
        "mteb": "ConnectionError",
    }
    assert hub.requests == []


def test_what_is_not_there_is_named(hub: Hub, tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    commit = hub.add_model("org/tiny", tmp_path / "model").sha
    api = HfApi(endpoint=hub.url, token=False)
    assert api.model_info("org/tiny", revision=commit).sha == commit
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info("org/tiny")
    with pytest.raises(RevisionNotFoundError):
        api.model_info("org/tiny", revision="v2")
    with pytest.raises(RemoteEntryNotFoundError):
        api.hf_hub_download("org/tiny", "README.md", cache_dir=tmp_path / "cache")


def test_a_listing_holds_files_and_folders(hub: Hub, tmp_path: Path):
    for name in ("a/b/deep.txt", "a/top.txt", "ab.txt"):
        (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / name).write_text(name)
    hub.add_dataset("org/files", tmp_path / "files")
    api = HfApi(endpoint=hub.url, token=False)

    def listed(under: str | None, recursive: bool) -> list[str]:
        tree = api.list_repo_tree("org/files", under, recursive=recursive, repo_type="dataset")
        return [entry.path for entry in tree]

    assert listed(None, False) == ["a", "ab.txt"]
    assert listed("a", False) == ["a/b", "a/top.txt"]
    assert listed(None, True) == ["a", "a/b", "a/b/deep.txt", "a/top.txt", "ab.txt"]
    found = api.get_paths_info("org/files", ["ab.txt", "a", "nothing"], repo_type="dataset")
    assert [entry.path for entry in found] == ["ab.txt", "a"]


@pytest.mark.parametrize(
    ("asked", "status", "got"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=7-", 206, b"789"),
        ("bytes=8-99", 206, b"89"),
        (None, 200, b"0123456789"),
    ],
)
def test_a_part_of_a_file_can_be_asked_for(hub: Hub, tmp_path: Path, asked, status, got):
    (tmp_path / "digits.txt").write_text("0123456789")
    repo = hub.add_model("org/digits", tmp_path)
    request = urllib.request.Request(f"{hub.url}/org/digits/resolve/main/digits.txt")
    if asked:
        request.add_header("Range", asked)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer:
        assert (answer.status, answer.read()) == (status, got)
        assert answer.headers["X-Repo-Commit"] == repo.sha
        assert answer.headers["ETag"].strip('"') == repo.etag("digits.txt")
