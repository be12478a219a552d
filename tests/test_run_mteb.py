"""The MTEB benchmark from end to end: table, JSON, figure, and what it refuses."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from forks import run_script
from hub import Hub
from tiny import PAIRS, tiny_backbone, tiny_model, write_pairs

from benchmarks.sts import comparison, figure, run
from distilface.evaluation.scores import PAPER_TASKS, STS_TASKS, means
from distilface.evaluation.tasks import find_tasks
from distilface.exporters.smaller import to_int8
from distilface.settings import InputError

ROOT = Path(__file__).parents[1]
MINILM = {
    "STS12": 72.37,
    "STS13": 80.60,
    "STS14": 75.60,
    "STS15": 85.39,
    "STS16": 78.99,
    "STSBenchmark": 82.03,
    "SICK-R": 77.58,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, task in enumerate(STS_TASKS):
        write_pairs(tmp_path / "data" / f"{task}.jsonl.gz", PAIRS[i // 2 :])
    return tmp_path / "data"


@pytest.fixture
def trained_folder(tmp_path: Path) -> Path:
    """Make a folder with the ``run.json`` of a training that had a teacher."""
    folder = tmp_path / "models" / "student"
    tiny_model(folder, seed=1)
    tiny_model(tmp_path / "teacher", seed=2)
    run = {
        "method": "embedding",
        "seed": 7,
        "teacher": str(tmp_path / "teacher"),
        "baseline_model": str(tiny_backbone(tmp_path / "backbone")),
        "layers": [1],
        "settings": {"pooling": "cls"},
    }
    (folder / "run.json").write_text(json.dumps(run))
    return folder


def test_end_to_end(trained_folder, data, tmp_path, capsys):
    files = [tmp_path / "out" / "result.json", tmp_path / "out" / "figure.png"]
    places = ["--cache-dir", str(tmp_path / "cache"), "--output", str(files[0]), "--figure", str(files[1])]
    result = run.main(["--model", str(trained_folder), "--data-dir", str(data), *places])
    printed = capsys.readouterr().out
    assert json.loads(files[0].read_text()) == result
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert list(result["scores"]) == list(STS_TASKS)
    assert "scores: " + " ".join(f"{x:.2f}" for x in result["scores"].values()) + "\n" in printed
    assert result["mean_of_5"] == pytest.approx(sum(result["scores"][task] for task in PAPER_TASKS) / 5, abs=1e-3)
    assert result["run"]["seed"] == 7
    assert result["data"]["tasks"]["STS12"]["path"] == "STS12.jsonl.gz"
    assert result["data"]["tasks"]["STS12"]["revision"].startswith("sha256:")
    teacher, untrained = (result["compared"][role] for role in ("teacher", "untrained"))
    assert teacher["parameters"] == result["parameters"] > untrained["parameters"]
    assert len({str(x["scores"]) for x in (result, teacher, untrained)}) == 3
    for shown in (
        "teacher (teacher)",
        "student, untrained",
        "DistilFace (the paper's)",
        "large-scale",
        "72.10",
    ):
        assert shown in printed


def test_only_the_model_and_an_exported_file_of_it(trained_folder, students, data, tmp_path, capsys):
    onnx = shutil.copytree(students["mean"], tmp_path / "small") / "onnx"
    to_int8(onnx / "model.onnx", onnx / "model_quantized.onnx", signed=False)
    shutil.copy(trained_folder / "run.json", tmp_path / "small")
    words = ["--model", str(tmp_path / "small"), "--data-dir", str(data), "--cache-dir", str(tmp_path / "cache")]
    words += ["--only-model", "--tasks", "STS12"]
    whole = run.main(words)
    assert (list(whole["scores"]), whole["compared"], whole["mean_of_5"]) == (["STS12"], {}, None)
    assert "DistilBERT" not in capsys.readouterr().out
    small = run.main([*words, "--file", "onnx/model_quantized.onnx"])
    assert small["name"].endswith("small/onnx/model_quantized.onnx")
    assert small["fingerprint"] != whole["fingerprint"]
    assert list(small["scores"]) == list(whole["scores"])
    assert small["megabytes"] < whole["megabytes"]
    assert small["versions"]["onnxruntime"]
    assert "model_quantized.onnx" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"model_none\.onnx does not exist; make it first: distilface export"):
        run.main([*words, "--file", "onnx/model_none.onnx"])


def test_pairs_of_languages(trained_folder, tmp_path, capsys, caplog):
    """The table has a line for each pair; a pair without data is named."""
    for i, name in enumerate(("en-ar", "es-en")):
        write_pairs(tmp_path / "sts17" / f"{name}.jsonl.gz", PAIRS[i:])
    words = ["--data-dir", str(tmp_path / "sts17"), "--cache-dir", str(tmp_path / "cache"), "--tasks", "STS17"]
    result = run.main(["--model", str(trained_folder), *words, "--only-model"])
    assert list(result["scores"]) == ["STS17", "STS17 (en-ar)", "STS17 (es-en)"]
    printed = capsys.readouterr().out
    for name, score in result["scores"].items():
        assert re.search(rf"^ {re.escape(name)} +{score:.2f}", printed, re.MULTILINE)
    missing = "ko-ko ar-ar en-de en-en en-tr es-es fr-en it-en nl-en"
    assert f"STS17: without {missing}, not in {tmp_path / 'sts17'}\n" in caplog.text
    assert result["data"]["tasks"]["STS17"]["missing"] == missing


def test_a_relative_that_is_gone_and_a_damaged_run(trained_folder, data, tmp_path, caplog):
    training = json.loads((trained_folder / "run.json").read_text()) | {"teacher": "./gone", "baseline_model": "./gone"}
    (trained_folder / "run.json").write_text(json.dumps(training))
    words = ["--data-dir", str(data), "--cache-dir", str(tmp_path / "cache"), "--tasks", "STS12"]
    assert run.main(["--model", str(trained_folder), *words])["compared"] == {}
    assert "without its teacher: ./gone" in caplog.text
    assert "without its untrained self: ./gone" in caplog.text
    (trained_folder / "run.json").write_text("[1, 2]")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        run.main(["--model", str(trained_folder)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"models/distilface does not exist; python training/train_unsup\.py"),
        (["--model", "./nothing"], "neither a folder"),
        (["--model", "MODEL", "--tasks", "STS12", "STS99x"], "unknown task 'STS99x'"),
        (["--model", "MODEL", "--figure", "figure.txt"], r"must end in one of \.png"),
        (["--model", "MODEL", "--figure", "a.png", "--tasks", "STS12"], "name them all in --tasks"),
        (["--model", "MODEL", "--output", "."], "is a folder"),
        (["--model", "MODEL", "--batch-size", "0"], "--batch_size 0 is out of range"),
        (["--model", "MODEL", "--data", "x"], "did you mean 'data_dir'"),
        (["--model", "MODEL", "--data-dir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_refused_with_nothing_written(trained_folder, tmp_path, monkeypatch, words, message):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(InputError, match=message):
        run.main([str(trained_folder) if word == "MODEL" else word for word in words])
    assert not any((tmp_path / "empty").iterdir())


def test_labels_of_the_figure_do_not_overlap(tmp_path):
    peers = comparison.published()
    near = peers[2]
    ours = [
        comparison.Row(f"models/{role}", comparison.MEASURED, near.scores, near.parameters, role=role)
        for role in ("model", "teacher", "untrained")
    ]
    drawn = figure.sts_against_parameters([*ours, *peers], tmp_path / "figure.svg")
    boxes = [note.get_window_extent() for note in drawn.axes[0].texts]
    assert len(boxes) == len(peers) + 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_published_peers():
    of_peer = {row.name: means(row.scores) for row in comparison.published()}
    assert of_peer["DistilFace (the paper's)"]["mean_of_5"] == pytest.approx(72.10, abs=0.005)
    assert of_peer["DistilFace (the paper's)"]["mean_of_7"] is None
    assert of_peer["BAAI/bge-small-en-v1.5"]["mean_of_7"] == pytest.approx(82.82, abs=0.005)


def test_from_the_hub(hub: Hub, tmp_path):
    """By default the data of all seven are the Hub's, each at the very commit that mteb pins."""
    tiny_model(tmp_path / "model")
    pinned = {task.metadata.name: task.metadata.dataset for task in find_tasks(STS_TASKS)}
    for name, source in pinned.items():
        write_pairs(tmp_path / name / "test.jsonl.gz")
        hub.add_dataset(source["path"], tmp_path / name, sha=source["revision"])
    words = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "result.json")]
    done = run_script(ROOT / "benchmarks" / "run_mteb.py", *words, env=hub.env(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["data"] == {"from": "Hugging Face Hub", "tasks": pinned}
    assert len(pinned) == 7
    assert set(result["scores"].values()) == {result["scores"]["STS12"]}, "of the same pairs"
    assert f"scores: {result['scores']['STS12']:.2f}" in done.stdout


@pytest.mark.data
@pytest.mark.timeout(3600)
def test_published_scores_of_minilm(tmp_path):
    """all-MiniLM-L6-v2 on the real test sets gives what MTEB publishes."""
    words = ["--data-dir", str(Path(os.environ["DISTILFACE_DATA"]) / "sts"), "--cache-dir", str(tmp_path)]
    result = run.main(["--model", "sentence-transformers/all-MiniLM-L6-v2", "--only-model", *words])
    assert result["scores"] == pytest.approx(MINILM, abs=0.02)
    assert result["mean_of_7"] == pytest.approx(78.94, abs=0.01)
