"""Your own search in BEIR's layout: its scores against numpy and bm25s, and its mistakes; the means of benchmarks."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bm25s
import mteb
import numpy as np
import pytest
import Stemmer
from suites import DOCUMENTS, QUERIES, RELEVANT, rows_of_suite, write_rows, write_search, write_suite
from threadpoolctl import threadpool_limits
from tiny import on_one_thread, tiny_model, write_content

import distilface
from distilface import cli
from distilface.evaluation import search as search_module
from distilface.evaluation.search_files import read_search
from distilface.evaluation.suite import read_suite
from distilface.model.folder import load
from distilface.settings import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with on_one_thread(), threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, students: dict[str, Path]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("search")
    tiny_model(folder / "teacher", seed=5)
    return distilface.compare(
        students["mean"], search=write_search(folder), variants=["onnx"], teacher=str(folder / "teacher")
    )


def recall(similarities: np.ndarray, depth: int) -> float:
    shares = []
    for row, relevant in zip(similarities, RELEVANT, strict=True):
        near = {f"d{i}" for i in np.argsort(-row, kind="stable")[:depth]}
        shares.append(len(near & set(relevant)) / len(relevant))
    return 100 * float(np.mean(shares))


def similarities(model: Any, documents: Any) -> np.ndarray:
    left, right = model.encode(QUERIES), documents.encode(DOCUMENTS)
    return (left / np.linalg.norm(left, axis=1)[:, None]) @ (right / np.linalg.norm(right, axis=1)[:, None]).T


def test_scores_are_those_of_numpy(report, students):
    model = load(students["mean"])
    scores = report["scores"]
    assert scores["recall@10"]["model"] == pytest.approx(recall(similarities(model, model), 10), abs=2e-3)
    assert scores["recall@100"] == dict.fromkeys(["teacher", "model", "onnx", "bm25"], 100)
    assert list(scores["nDCG@10, in the teacher's index"]) == ["model", "onnx"]
    assert report["search"]["queries"] == len(QUERIES)
    assert report["search"]["judgements"] == sum(map(len, RELEVANT))
    json.dumps(report, allow_nan=False)


def test_a_search_is_the_retrieval_of_a_suite(report, students, tmp_path):
    """The same documents, queries and judgements in the two layouts have one score."""
    suite = write_suite(tmp_path / "suite")
    (tmp_path / "suite" / "tasks.json").write_text('[{"name": "Search", "type": "retrieval"}]')
    scores = distilface.compare(students["mean"], suite=suite, teacher="none")["tasks"]["Search"]["scores"]
    assert scores["model"] == report["scores"]["nDCG@10"]["model"]


def test_bm25_is_that_of_bm25s(report):
    """Mteb's BM25 removes English stop words and stems; a document without a word of the query has the score 0."""
    stemmer = Stemmer.Stemmer("english")
    words = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index(bm25s.tokenize(DOCUMENTS, **words), show_progress=False)
    tokens = bm25s.tokenize(QUERIES, return_ids=False, **words)
    scores = np.stack([index.get_scores(query) for query in tokens])
    assert report["scores"]["recall@10"]["bm25"] == pytest.approx(recall(scores, 10), abs=100 / len(QUERIES))


def test_without_its_packages_bm25_is_left_out(students, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(search_module, "_BM25", SimpleNamespace(missing=["bm25s"]))
    report = distilface.compare(students["mean"], search=write_search(tmp_path))
    assert list(report["scores"]["nDCG@10"]) == ["model"]
    assert "pip install 'distilface[search]'" in caplog.text


def test_the_command_prints_a_table(students, tmp_path, capsys):
    queries, documents, relevant = map(str, write_search(tmp_path))
    words = ["--queries", queries, "--documents", documents, "--relevant", relevant]
    report = cli.run(["evaluate", str(students["mean"]), *words, "--output", str(tmp_path / "out.json")])
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    (row,) = [line.split() for line in lines if line.startswith("nDCG@10")]
    assert row[1:] == [f"{report['scores']['nDCG@10'][name]:.2f}" for name in ("model", "bm25")]
    assert json.loads((tmp_path / "out.json").read_text())["scores"] == report["scores"]
    with pytest.raises(InputError, match="give --documents, --relevant too"):
        cli.run(["evaluate", str(students["mean"]), "--queries", queries])


def test_what_does_not_match_is_counted(tmp_path, caplog):
    """BEIR's sets have judgements of lost documents; a query that has no other is left out."""
    files = write_search(tmp_path)
    lines = files[2].read_text().splitlines()
    lines = [line for line in lines if not line.startswith("q0\t")]
    write_content(files[2], "\n".join([*lines, "q0\tlost\t1", "other\td1\t1", lines[-1]]) + "\n")
    search = read_search(*files)
    assert search.counts == {"queries": 11, "documents": 40, "judgements": sum(map(len, RELEVANT[1:]))}
    assert "2 of" in caplog.text
    assert "name what the files have not, as the document 'lost', and are left out" in caplog.text
    assert "1 of 12 queries have no relevant document and are left out" in caplog.text
    assert "1 of 25 judgements stand twice" in caplog.text


HEAD = "query-id\tcorpus-id\tscore\n"


@pytest.mark.parametrize(
    ("number", "content", "message"),
    [
        (0, '{"_id": "q0", "text": "a dog"}\n' * 2, "line 2: a second row with the _id 'q0'"),
        (0, '{"id": "q0", "text": "a dog"}\n', "line 1: no column '_id'"),
        (0, "\n", "holds no row"),
        (1, '{"_id": "d0", "title": "", "text": " "}\n', "line 1: text is empty"),
        (2, "q0\td0\t1\nq1\td1\t1\n", "no column 'query-id'"),
        (2, HEAD + "q0\td0\thigh\n", "line 2: the score 'high' is not a whole number"),
        (2, HEAD + "x0\td0\t1\n", "none of 1 judgements names a query and a document .* as the query 'x0'"),
        (2, HEAD + "q0\td0\t0\n", "names no relevant document"),
        (2, HEAD, "none of 0 judgements"),
    ],
)
def test_mistakes_in_the_files(number, content, message, tmp_path):
    files = write_search(tmp_path)
    files[1] = write_rows(tmp_path / "d.jsonl", [{"_id": "d0", "text": "a dog"}])
    write_content(files[number], content)
    with pytest.raises(InputError, match=message):
        read_search(*files)


def test_a_title_alone_is_a_document(tmp_path):
    files = write_search(tmp_path)
    write_rows(files[1], [{"_id": "d0", "title": "A dog", "text": ""}, {"_id": "d1", "text": "a cat"}])
    assert read_search(*files).documents["d0"] == {"title": "A dog", "text": ""}


def test_a_benchmark_has_means_by_type(students, tmp_path, monkeypatch, capsys):
    """Over tasks and over types are two numbers where a benchmark has more tasks of one type; both are in use."""
    suite = write_suite(tmp_path / "suite")
    rows = rows_of_suite()
    write_rows(tmp_path / "suite" / "Pairs2.jsonl", rows["Pairs"][:7])
    names = [
        {"name": n, "type": t}
        for n, t in (("Search", "retrieval"), ("Pairs", "pair_classification"), ("Pairs2", "pair_classification"))
    ]
    write_content(tmp_path / "suite" / "tasks.json", json.dumps(names))
    tasks = [task.task for task in read_suite(suite)]
    get = mteb.get_benchmark
    small = SimpleNamespace(tasks=tasks)
    monkeypatch.setattr(mteb, "get_benchmark", lambda name: small if name == "Small" else get(name))
    scores = cli.run(["evaluate", str(students["mean"]), "--tasks", "Small", "--output", str(tmp_path / "out.json")])
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:-1])
    pairs = (scores["Pairs"] + scores["Pairs2"]) / 2
    expected = {
        "mean Retrieval": scores["Search"],
        "mean PairClassification": pairs,
        "mean over tasks": sum(scores.values()) / 3,
        "mean over types": (scores["Search"] + pairs) / 2,
    }
    written = json.loads((tmp_path / "out.json").read_text())
    for name, mean in expected.items():
        assert float(printed[name]) == pytest.approx(mean, abs=0.006)
        assert written[name] == pytest.approx(mean, abs=1e-3)
