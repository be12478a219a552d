"""A suite of local tasks: its scores against scikit-learn and numpy, its columns and means, and its mistakes."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from refusals import refusal
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, v_measure_score
from suites import CLASSES, DOCUMENTS, QUERIES, RELEVANT, TYPES, rows_of_suite, write_rows, write_suite
from threadpoolctl import threadpool_limits
from tiny import PAIRS, on_one_thread, tiny_model, write_content

import distilface
from distilface import cli
from distilface.evaluation.comparison import score_tasks
from distilface.evaluation.suite import read_suite
from distilface.model.folder import load
from distilface.runtimes import TorchEncoder

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Compute on one thread: several wait for each other at every tiny matrix, scikit-learn's too."""
    with on_one_thread(), threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a model of the students' width, with other weights."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    tiny_model(folder, seed=5)
    return folder


@pytest.fixture(scope="module")
def report(suite: Path, teacher: Path, students: dict[str, Path]) -> dict[str, Any]:
    return distilface.compare(students["mean"], suite=suite, variants=["onnx"], teacher=str(teacher))


def unit(model: SentenceTransformer, texts: list[str]) -> np.ndarray:
    vectors = model.encode(texts).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def ndcg(queries: np.ndarray, documents: np.ndarray) -> float:
    scores = []
    for sims, relevant in zip(queries @ documents.T, RELEVANT, strict=True):
        gains = [relevant.get(f"d{i}", 0) for i in np.argsort(-sims)[:10]]
        ideal = sorted(relevant.values(), reverse=True)
        weights = 1 / np.log2(np.arange(2, 12))
        scores.append(np.dot(gains, weights) / np.dot(ideal, weights[: len(ideal)]))
    return 100 * float(np.mean(scores))


def by_hand(model: SentenceTransformer) -> dict[str, float]:
    """Score the suite without mteb."""
    rows = rows_of_suite()
    left, right = (unit(model, [pair[side] for pair in PAIRS]) for side in (0, 1))
    cosines = (left * right).sum(axis=1)
    ranks = []
    for row in rows["Rank"]:
        sims = unit(model, row["positive"] + row["negative"]) @ unit(model, [row["query"]])[0]
        ranks.append(1 / (1 + (sims[1:] > sims[0]).sum()))
    texts, labels = [text for text, _ in CLASSES], [label for _, label in CLASSES]
    vectors = model.encode(texts)
    classifier = LogisticRegression(max_iter=100).fit(vectors[::2], labels[::2])
    points, truth = (np.array([row[key] for row in rows["Clusters"]]) for key in ("text", "label"))
    points = model.encode(list(points))
    clustered = []
    for seed in range(10):
        order = random.Random(seed).sample(range(len(truth)), len(truth))
        means = MiniBatchKMeans(4, batch_size=512, n_init="auto", random_state=42)
        clustered.append(v_measure_score(truth[order], means.fit_predict(points[order])))
    return {
        "Search": ndcg(unit(model, QUERIES), unit(model, DOCUMENTS)),
        "Rank": 100 * float(np.mean(ranks)),
        "Pairs": 100 * average_precision_score([score > 2.5 for *_, score in PAIRS], cosines),
        "Classes": 100 * float(np.mean(classifier.predict(vectors[1::2]) == np.array(labels[1::2]))),
        "Clusters": 100 * float(np.mean(clustered)),
        "Scored": 100 * spearmanr(cosines, [score for *_, score in PAIRS]).statistic,
    }


@pytest.fixture(scope="module")
def hand(students: dict[str, Path], teacher: Path) -> dict[str, dict[str, float]]:
    """Return the scores of each encoder by hand; the exported file has the vectors of its folder."""
    model = by_hand(load(students["mean"]))
    return {"teacher": by_hand(load(teacher)), "model": model, "onnx": model}


@pytest.mark.parametrize("name", TYPES)
def test_scores_are_those_of_sklearn(name, report, hand):
    """All training rows are in each draw of the classification, so that it has one answer."""
    expected = {column: scores[name] for column, scores in hand.items()}
    assert report["tasks"][name]["scores"] == pytest.approx(expected, abs=2e-3)


def test_a_student_searches_the_teachers_index(report, students, teacher):
    student, documents = load(students["mean"]), unit(load(teacher), DOCUMENTS)
    index = report["tasks"]["Search"]["in_the_teachers_index"]
    assert list(index) == ["model", "onnx"]
    assert index["model"] == pytest.approx(ndcg(unit(student, QUERIES), documents), abs=2e-3)
    assert index["model"] != report["tasks"]["Search"]["scores"]["model"]


def test_a_seen_task_is_in_no_mean(report):
    scores = {name: task["scores"]["model"] for name, task in report["tasks"].items()}
    assert [name for name, task in report["tasks"].items() if not task["in_the_means"]] == ["Rank"]
    del scores["Rank"]
    means = {label: mean["model"] for label, mean in report["means"].items()}
    assert means["mean over tasks"] == pytest.approx(np.mean(list(scores.values())), abs=1e-3)
    assert means["mean classification"] == scores["Classes"]
    assert "mean reranking" not in means


def test_a_text_is_embedded_once(suite, students, encoded):
    """The suite takes a text for several tasks, the clustering alone each of its texts ten times."""
    score_tasks({"model": TorchEncoder(students["mean"])}, read_suite(suite))
    texts = [text for call in encoded for text in call]
    assert len(texts) == len(set(texts))


def test_a_prompt_has_its_own_embedding(suite, students, tmp_path):
    """Silent otherwise: a text that was embedded as a query would be taken for the same text as a document."""
    model = load(students["mean"])
    model.prompts = {"query": "the dog: ", "document": "a river "}
    plain = load(students["mean"])
    queries, documents = [f"the dog: {text}" for text in QUERIES], [f"a river {text}" for text in DOCUMENTS]
    tasks = [task for task in read_suite(suite) if task.name == "Search"]
    scores = score_tasks({"model": TorchEncoder(model)}, tasks)["Search"].scores
    assert scores["model"] == pytest.approx(ndcg(unit(plain, queries), unit(plain, documents)), abs=2e-3)


def test_the_report_says_what_was_measured(report, suite, students):
    assert set(report["suite"]["sha256"]) == {file.name for file in suite.iterdir()} - {"tasks.json"}
    assert report["encoders"]["model"]["fingerprint"] == TorchEncoder(students["mean"]).fingerprint
    assert report["encoders"]["onnx"]["runtime"] == "onnx/model.onnx"
    assert report["machine"]["cores"] >= 1
    assert report["versions"]["mteb"] == mteb.__version__
    assert report["tasks"]["Classes"]["more"]["model"]["accuracy_std"] == 0
    json.dumps(report, allow_nan=False)


def test_the_command_prints_a_table(suite, teacher, students, tmp_path, capsys):
    folder = shutil.copytree(students["mean"], tmp_path / "student")
    taught = {"version": 1, "sources": [{"role": "teacher", "name": str(teacher)}]}
    write_content(folder / "run.json", json.dumps(taught))
    words = ["evaluate", str(folder), "--suite", str(suite), "--output", str(tmp_path / "out.json")]
    cli.run(words)
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written["encoders"]) == ["teacher", "model"]
    (row,) = [line.split() for line in lines if line.startswith("Pairs (AP)")]
    mine, its = (written["tasks"]["Pairs"]["scores"][name] for name in ("model", "teacher"))
    assert row[2:] == [f"{its:.2f}", f"{mine:.2f}", f"{100 * mine / its:.1f}"]
    (row,) = [line.split() for line in lines if line.startswith("Search, in the teacher's index")]
    search = written["tasks"]["Search"]
    index, its = search["in_the_teachers_index"]["model"], search["scores"]["teacher"]
    assert row[5:] == [f"{index:.2f}", f"{100 * index / its:.1f}"]
    assert any(line.startswith("Rank (MAP, seen: in no mean)") for line in lines)


def test_a_teacher_that_is_not_here_is_left_out(suite, students, tmp_path, caplog):
    folder = shutil.copytree(students["mean"], tmp_path / "student")
    teacher = {"role": "teacher", "name": "nobody/nothing", "hub": True}
    write_content(folder / "run.json", json.dumps({"version": 1, "sources": [teacher]}))
    write_content(tmp_path / "suite" / "tasks.json", '[{"name": "Pairs", "type": "pair_classification"}]')
    shutil.copy(suite / "Pairs.jsonl", tmp_path / "suite")
    report = distilface.compare(folder, suite=tmp_path / "suite")
    assert list(report["encoders"]) == ["model"]
    assert "the teacher nobody/nothing is not here" in caplog.text
    assert "%" not in report["means"]


def test_a_teacher_of_another_width_has_no_index(suite, students):
    encoders = {"teacher": TorchEncoder(students["mean"]), "model": TorchEncoder(students["dense"])}
    result = score_tasks(encoders, [task for task in read_suite(suite) if task.name == "Search"])["Search"]
    assert set(result.scores) == {"teacher", "model"}
    assert result.index == {}


def test_a_collapsed_model_has_no_score(suite, students):
    """Silent otherwise: a search among equal embeddings has the score of the documents' order."""
    import torch

    model = load(students["mean"])
    last = model[0].auto_model.transformer.layer[-1].output_layer_norm
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    said = refusal(score_tasks, {"model": TorchEncoder(model)}, read_suite(suite))
    assert "no score on Search: torch embeds every text alike; it has collapsed" in said


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Search", {"kind": "document"}, "line 1: the kind 'document' is neither 'doc' nor 'query'"),
        ("Search", {"id": "d1"}, "line 2: a second doc with the id 'd1'"),
        ("Search", {"text": " "}, "line 1: text is empty"),
        ("Search", {"id": "other"}, "line 41: relevant names the document 'd0', which the file has not"),
        ("Rank", {"negative": []}, "line 1: negative is not a list of one text or more"),
        ("Rank", {"query": None}, "line 1: nothing in column 'query'"),
        ("Pairs", {"label": 2}, "line 1: the label 2 is neither 0 nor 1"),
        ("Classes", {"split": "dev"}, "line 1: the split 'dev' is neither 'train' nor 'test'"),
        ("Classes", {"label": 0.5}, "line 1: the label 0.5 is neither a text nor a whole number"),
        ("Clusters", {"text": 3}, "line 1, column 'text': 3 is not text"),
        ("Scored", {"score": "high"}, "line 1: the score 'high' is not a number"),
    ],
)
def test_a_mistake_in_a_row_has_its_line(name, change, message, tmp_path):
    rows = rows_of_suite()[name]
    write_content(tmp_path / "tasks.json", json.dumps([{"name": name, "type": TYPES[name]}]))
    write_rows(tmp_path / f"{name}.jsonl", [rows[0] | change, *rows[1:]])
    assert message in refusal(read_suite, tmp_path)
    missing = next(iter(change))
    if missing != "label" or name == "Pairs":
        write_rows(tmp_path / f"{name}.jsonl", [{k: v for k, v in rows[0].items() if k != missing}, *rows[1:]])
        assert f"line 1: no column '{missing}'" in refusal(read_suite, tmp_path)


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (None, "is not a suite: it has no tasks.json"),
        ("{}", "is not a list of tasks"),
        ('[{"name": "A"}]', "is not an object with name and type"),
        ('[{"name": "A", "type": "retreival"}]', "did you mean 'retrieval'"),
        ('[{"name": "A", "type": "sts"}]', "holds no A.jsonl or A.jsonl.gz"),
        ('[{"name": "Pairs", "type": "pair_classification"}, {"name": "Pairs", "type": "sts"}]', "no column 'score'"),
        ('[{"name": "Classes", "type": "classification", "samples_per_label": 0}]', "samples_per_label 0 of Classes"),
    ],
)
def test_what_is_not_a_suite(tasks, message, suite, tmp_path):
    for name in ("Pairs.jsonl", "Classes.jsonl.gz"):
        shutil.copy(suite / name, tmp_path)
    if tasks is not None:
        write_content(tmp_path / "tasks.json", tasks)
    assert message in refusal(distilface.compare, "models/none", suite=tmp_path)


def test_another_model_stands_beside_it(suite, teacher, students, report, tmp_path):
    other = shutil.copytree(teacher, tmp_path / "untrained")
    beside = distilface.compare(students["mean"], suite=suite, teacher="none", beside=[str(other)])
    assert list(beside["encoders"]) == ["untrained", "model"]
    assert beside["tasks"]["Pairs"]["scores"]["untrained"] == report["tasks"]["Pairs"]["scores"]["teacher"]
    for place in ("teacher", "onnx", "untrained"):
        again = shutil.copytree(teacher, tmp_path / "again" / place)
        more = {"variants": ["onnx"], "teacher": "none", "beside": [str(other), str(again)]}
        said = refusal(distilface.compare, students["mean"], suite=suite, **more)
        assert f"would have the column '{place}', which is another's" in said


def test_settings_that_cannot_be(suite, students, tmp_path):
    for words, message in (
        (["--variants", "q4"], "--variants is of a suite or a search"),
        (["--beside", "models/other"], "--beside is of a suite or a search"),
        (["--suite", str(suite), "--beside", "nowhere"], "nowhere is neither a folder nor a Hub id"),
        (["--suite", str(suite), "--variants", "q5"], "unknown variant 'q5'"),
        (["--suite", str(suite), "--variants", "q4"], "has no q4 export of its weights"),
        (["--suite", str(suite), "--tasks", "STS12"], "--tasks and --suite exclude each other"),
        (["--suite", str(suite), "--teacher", "nowhere"], "nowhere is neither a folder nor a Hub id"),
        (["--suite", str(suite), "--batch_size", "0"], "out of range"),
    ):
        assert message in refusal(cli.run, ["evaluate", str(students["mean"]), *words])
    memory = refusal(distilface.compare, load(students["mean"]), suite=suite, variants=["onnx"])
    assert memory.endswith("a model in memory is not a folder")
    assert "give a suite, or the three files" in refusal(distilface.compare, students["mean"])
