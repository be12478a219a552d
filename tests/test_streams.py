"""Text over the network: data sets of the Hub, read while they are fetched, and folders of .parquet in a store."""

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub, run_python
from refusals import refusal
from tiny import sentences, tiny_backbone, write_content

from distilface.data.texts import read_texts
from distilface.hub_ids import HubText
from distilface.run import Run, with_sources

pytestmark = pytest.mark.usefixtures("own_cache")
ROWS = [f"{text} {number}" for number, text in enumerate(sentences(3000))]

READ = """
import json, sys, time
from distilface.data.texts import read_texts
from distilface.settings import InputError

for sources, column in json.loads(sys.argv[1]):
    began = time.perf_counter()
    try:
        found = read_texts(sources, column=column)["text"][:]
    except InputError as error:
        found = str(error)
    print(json.dumps([found, time.perf_counter() - began]))
"""
TRAIN = """
import sys
import distilface
distilface.train("simcse", data=[sys.argv[1]], backbone=sys.argv[2], output_dir=sys.argv[3], dev="sample",
                 pooling="mean", steps=1, batch_size=4)
"""


def asked(hub: Hub, cache: Path, *questions: tuple[list[str], str], env=None) -> list[tuple[list[str] | str, float]]:
    """Read each of the sources, with the column of its text, in one process."""
    shown = run_python(READ, env or hub.env(cache), json.dumps(questions))
    return [tuple(json.loads(line)) for line in shown.splitlines()]


def files_fetched(hub: Hub) -> list[str]:
    """Return the paths of the files of text that were asked for since the last call."""
    paths = [path for method, path in hub.requests if method == "GET" and path.endswith((".parquet", ".jsonl"))]
    hub.requests.clear()
    return paths


@pytest.fixture
def sets(hub: Hub, tmp_path: Path) -> Hub:
    """Serve a set of two .parquet files, and one of JSON lines with two configurations."""
    for number, start in enumerate((0, 1500)):
        file = tmp_path / "parquet" / "data" / f"train-0000{number}-of-00002.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": range(1500), "text": ROWS[start : start + 1500]}), file, row_group_size=500)
    configs = [{"config_name": name, "data_files": [{"split": "train", "path": f"{name}.jsonl"}]} for name in "ab"]
    configs[0]["data_files"].append({"split": "test", "path": "a-test.jsonl"})
    write_content(tmp_path / "lines" / "README.md", f"---\nconfigs: {json.dumps(configs)}\n---\n")
    for name in ("a", "a-test", "b"):
        lines = [{"words": f"{name} {number}", "text": number} for number in range(3)]
        write_content(tmp_path / "lines" / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    hub.add_dataset("org/parquet", tmp_path / "parquet")
    hub.add_dataset("org/lines", tmp_path / "lines")
    return hub


def test_a_set_of_the_hub_is_read_while_it_is_fetched(sets, tmp_path):
    url, cache = "hf://datasets/org/parquet", tmp_path / "cache"
    (everything, _), (some, _) = asked(sets, cache, ([url], "text"), ([f"{url}[:700]"], "text"))
    assert everything == ROWS
    assert some == ROWS[:700]
    assert files_fetched(sets)
    assert not list(cache.rglob("*.parquet")), "a file of the set was kept"
    ((again, _),) = asked(sets, cache, ([url], "text"))
    assert again == ROWS
    assert not files_fetched(sets), "the same commit was fetched twice"


def test_the_first_rows_fetch_no_other_file(sets, tmp_path):
    asked(sets, tmp_path / "cache", (["hf://datasets/org/parquet[:100]"], "text"))
    assert not any("00001-of" in path for path in files_fetched(sets))


def test_configuration_split_and_revision(sets, tmp_path):
    base = "hf://datasets/org/lines"
    commit = sets.repos["datasets", "org/lines"].sha
    urls = [f"{base}/a", f"{base}/a/test", f"{base}@{commit}/b/train[:2]"]
    found = [texts for texts, _ in asked(sets, tmp_path / "cache", *(([url], "words") for url in urls))]
    assert found == [["a 0", "a 1", "a 2"], ["a-test 0", "a-test 1", "a-test 2"], ["b 0", "b 1"]]


def test_what_the_hub_does_not_have_is_one_sentence(sets, tmp_path):
    base = "hf://datasets/org"
    cases = {
        (f"{base}/lines/a", "sentence"): ["org/lines/a/train: no column 'sentence'; found words, text"],
        (f"{base}/lines/a", "text"): ["org/lines/a/train, row 1, column 'text': 0 is not text"],
        (f"{base}/lines/c", "words"): ["org/lines/c/train cannot be read", "'a', 'b'"],
        (f"{base}/lines/a/dev", "words"): ["org/lines/a/dev cannot be read", "dev"],
        (f"{base}/none", "words"): ["the data set org/none could not be downloaded", "RepositoryNotFoundError"],
        (f"{base}/lines@v9/a", "words"): ["org/lines at the revision v9", "RevisionNotFoundError"],
    }
    said = asked(sets, tmp_path / "cache", *(([url], column) for url, column in cases))
    for (message, _), words in zip(said, cases.values(), strict=True):
        assert all(word in message for word in words), message
        assert "\n" not in message


def test_a_dead_hub_is_said_at_once(hub, tmp_path):
    dead = hub.dead_env(tmp_path / "cache")
    ((message, seconds),) = asked(hub, tmp_path, (["hf://datasets/org/set"], "text"), env=dead)
    assert "the data set org/set could not be downloaded from the Hub (ConnectError)" in message
    assert seconds < 5


def test_a_run_names_the_set_and_its_commit(
    sets,
    tmp_path,
):
    url, out = "hf://datasets/org/parquet[:40]", tmp_path / "model"
    run_python(TRAIN, sets.env(tmp_path / "cache"), url, str(tiny_backbone(tmp_path / "backbone")), str(out))
    run = json.loads((out / "run.json").read_text())
    sha = sets.repos["datasets", "org/parquet"].sha
    assert run["data"][:1] == [{"source": url}]
    assert {"role": "data", "name": "org/parquet", "hub": True, "revision": sha} in run["sources"]
    assert run["data"][1]["rows"] == 40


def test_a_commit_is_not_asked_for():
    url, commit = "hf://datasets/org/name", "0123456789" * 4
    (source,) = with_sources(Run(data=[{"source": f"{url}@{commit}"}])).sources
    assert (source.name, source.hub, source.revision) == ("org/name", True, commit)


@pytest.mark.parametrize(
    "url", ["hf://org/name", "hf://datasets/name", "hf://datasets/a/b/c/d/e", "hf://datasets/a/b[:0]"]
)
def test_other_urls_of_the_hub_are_refused(url):
    assert f"{url} is not a data set of the Hub" in refusal(HubText.of, url)
    assert "write hf://datasets/ORG/NAME" in refusal(read_texts, [url])


def test_a_store_is_read_again_after_a_change_alone(monkeypatch):
    store = fsspec.filesystem("memory")
    url = "memory://streamed/texts"

    def put(name: str, texts: list[str]) -> None:
        with store.open(f"/streamed/texts/{name}.parquet", "wb") as file:
            pq.write_table(pa.table({"text": texts}), file, row_group_size=2)

    put("b", ["Three.", "One."])
    put("a", ["One.", " Two. ", "", "One."])
    assert read_texts([url])["text"][:] == ["One.", "Two.", "Three."]
    with monkeypatch.context() as patch:
        patch.setattr(type(store), "_open", None)  # nothing is read
        assert read_texts([url])["text"][:] == ["One.", "Two.", "Three."]
    put("b", ["Four.", "Three."])
    assert read_texts([url])["text"][:] == ["One.", "Two.", "Four.", "Three."]
    store.rm("/streamed", recursive=True)
    assert f"{url} holds no .parquet file" in refusal(read_texts, [url])
