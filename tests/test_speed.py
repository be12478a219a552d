"""The speed benchmark: what is timed is the folder's own embedding, what is counted, and what it prints and writes."""

import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import as_traced
from sentence_transformers.util import pairwise_cos_sim
from tiny import tiny_backbone, tiny_model
from transformers import BertConfig, DistilBertConfig, DistilBertModel

from benchmarks.speed import models, plot, rounds, run, worker
from distilface.compression.student import load_student
from distilface.data.samples import sts_sample
from distilface.evaluation.scores import STS_TASKS
from distilface.model.folder import load, save_folder
from distilface.runtimes.extras import OPENVINO_INT8
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
ROOT = Path(__file__).parents[1]
TEXTS = ["a dog", "the happy dog runs in the park and the cat sleeps", "the river"]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture(scope="module")
def files(students, tmp_path_factory) -> dict[str, Path]:
    """Write the file of each runtime, of the student's own trace, which takes seconds."""
    here = [name for name in models.RUNTIMES if not (name.startswith("OpenVINO") and OPENVINO_INT8.missing)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "to_onnx", as_traced(students["mean"]))
        return models.exported(load(students["mean"]), tmp_path_factory.mktemp("files") / "files", here)


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """Save a model that reads 512 tokens, as those that are compared do."""
    place = tiny_backbone(tmp_path / "backbone")
    config = DistilBertConfig.from_pretrained(place, max_position_embeddings=512)
    DistilBertModel(config).save_pretrained(place)
    save_folder(load_student(str(place), max_seq_length=512), tmp_path / "usual")
    return tmp_path / "usual"


@pytest.mark.parametrize("runtime", models.RUNTIMES)
def test_the_timed_embeddings_are_the_folders(students, files, runtime):
    """Silent otherwise: a runtime that pads, cuts or orders wrongly would be as fast."""
    model, torch_alone = load(students["mean"]), runtime.startswith("torch")
    if not torch_alone and runtime not in files:
        pytest.skip("needs openvino and nncf (the extra 'openvino')")
    request = {"runtime": runtime, "folder": str(students["mean"]), "file": str(files.get(runtime, "")), "threads": 1}
    request["pad"] = model.tokenizer.pad_token_id
    encode = (worker.torch_encoder if torch_alone else worker.file_encoder)(request)
    for length, texts in ((4, TEXTS), (64, TEXTS), (64, TEXTS * 30)):
        model.max_seq_length = length
        cosines = pairwise_cos_sim(model.encode(texts), np.asarray(encode(texts, length), np.float32))
        assert cosines.min() > (1 - 1e-5 if runtime.endswith("fp32") else 0.95)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_operations_are_those_of_the_matrix_products(kind, tmp_path):
    config = BertConfig(**SMALL) if kind == "bert" else DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    config.save_pretrained(tmp_path)
    lengths = [3, 10, 10]
    layer = sum(2 * n * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 2 * n * n * 32 for n in lengths)
    pooler = 2 * 32 * 32 * len(lengths) if kind == "bert" else 0  # transformers' own, whatever reads it
    assert models.operations(tmp_path, lengths) == layer + pooler


def test_peak_memory_is_the_process_own():
    """Silent otherwise: ``ru_maxrss`` begins at the memory of the process that started it."""
    held = bytearray(400_000_000)
    code = "from benchmarks.speed import worker; kept = bytearray(150_000_000); print(worker.peak_megabytes())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert 150 < float(done.stdout) < 300
    assert len(held) == 400_000_000


def test_passes_and_peaks(monkeypatch):
    """Passes take as long as they must; a peak is of the fastest pass, in operations a second."""
    calls = []
    times = worker.passes(lambda: calls.append(1), 0.01)
    assert len(calls) == len(times) + 1, "the first is not counted"
    assert sum(times[:-1]) < 0.01 <= sum(times)
    monkeypatch.setattr(worker, "passes", lambda work, least: [work() is None or 0.5, 0.25])
    assert worker.peaks(1, 100, 0.0) == dict.fromkeys(("fp32", "bf16", "int8"), 2 * 100**3 / 0.25 / 1e9)


def replies(*of_rounds: tuple[float, float]) -> list[dict[str, Any]]:
    """Make the replies of rounds: the seconds of a pass, and the load time."""
    singles = [0.001 * n for n in range(1, 101)]
    return [
        {"passes": {"short": [time, 9.0, 0.0]}, "singles": singles, "load_s": load, "peak_mb": 100.4}
        for time, load in of_rounds
    ]


def test_a_row_summarises_the_rounds():
    contender = models.Contender("m", "ONNX int8", "", "", 17.4, 0)
    work = {"short": {"texts": TEXTS, "length": 8, "operations": {"m": 6e9}}}
    usual = replies((1.0, 0), (1.2, 0), (1.0, 0))
    row = rounds.row_of(contender, replies((0.1, 1.0), (0.3, 3.0), (0.2, 2.0)), usual, work, 100.0)
    short = row["texts"]["short"]
    assert short["sentences_per_second"] == {"median": 15.0, "min": 10.0, "max": 30.0}
    assert short["ratio"] == {"median": 5.0, "min": 4.0, "max": 10.0}, "each round against its own"
    assert (short["gops"], short["share_of_peak"]) == pytest.approx((6 / 0.2, 0.3))
    assert row["load_s"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    for share in (50, 99):
        expected = pytest.approx(np.percentile(range(1, 101), share), abs=0.01)
        assert row["latency_ms"][f"p{share}"]["median"] == expected


def test_texts_have_the_lengths_that_are_named():
    work = run.texts_of(run.Settings(short=400))
    assert [len(one["texts"]) for one in work.values()] == [400, 32, 8]
    pairs = sts_sample()
    assert work["short"]["texts"][:360] == [*pairs["sentence1"], *pairs["sentence2"]]
    for length in ("128", "512"):
        assert min(len(text.split()) for text in work[length]["texts"]) > int(length), "a word is a token or more"
        assert len(set(work[length]["texts"])) == len(work[length]["texts"])


def mostly_here(start: Callable[[dict], dict], request: dict[str, Any]) -> dict[str, Any]:
    """Start a worker for one contender and for the products; measure the others here, without seconds of imports."""
    if "matrix" in request or (request["model"], request["runtime"]) == (models.STUDENT, "ONNX int8"):
        return start(request)
    began, reply = time.monotonic(), worker.reply_to(request)
    return reply | {"load_s": reply.pop("ready") - began}


def test_end_to_end(usual, tmp_path, monkeypatch, capsys, caplog):
    """Measure a student and two others, and draw it."""
    caplog.set_level("INFO", logger="distilface")
    monkeypatch.setattr(rounds, "run_worker", functools.partial(mostly_here, rounds.run_worker))
    monkeypatch.delitem(models.SHAPES, models.PAPER)
    monkeypatch.setitem(models.SHAPES, models.BERT, functools.partial(BertConfig, **SMALL))
    student, output = tmp_path / "student", tmp_path / "speed.json"
    save_folder(load_student(str(usual), [1], max_seq_length=512), student)
    words = ["--usual", str(usual), "--student", str(student), "--runtimes", "ONNX int8", "--rounds", "1"]
    words += ["--short", "6", "--of-128", "1", "--of-512", "1", "--seconds", "0.01", "--matrix", "32"]
    result = run.main([*words, "--output", str(output)])
    assert json.loads(output.read_text()) == result
    assert [(row["model"], row["runtime"]) for row in result["rows"]] == [
        *((name, runtime) for name in (models.STUDENT, models.USUAL) for runtime in ("torch fp32", "ONNX int8")),
        (models.BERT, "torch fp32"),
    ]
    assert result["rows"][2]["texts"]["short"]["ratio"]["median"] == 1.0, "what others are compared with"
    assert result["rows"][1]["megabytes"] < result["rows"][0]["megabytes"]
    assert result["texts"]["128"] == {"texts": 1, "mean_tokens": 128}
    assert set(result["peak_gops"]) == {"fp32", "bf16", "int8"}
    assert {"versions", "machine", "date"} <= set(result)
    ratio = result["rows"][1]["texts"]["short"]["ratio"]["median"]
    assert f"int8 student: {ratio} times" in capsys.readouterr().out
    assert "round 1: " in caplog.text

    scores = {"student": 70.0, "usual": 80.0}
    for name, score in scores.items():
        row = {"name": name, "scores": dict.fromkeys(STS_TASKS, score), "parameters": 1, "megabytes": 1}
        (tmp_path / f"{name}.json").write_text(json.dumps({**row, "compared": {}}))
    words = [word for name in scores for word in (f"--{name}", str(tmp_path / f"{name}.json"))]
    words += ["--output", str(tmp_path / "figures" / "speed.png")]
    figure = plot.main(["--speed", str(output), *words])
    assert (tmp_path / "figures" / "speed.png").read_bytes().startswith(b"\x89PNG")
    points = {
        (round(float(x), 1), round(float(y), 1))
        for container in figure.axes[0].containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }
    for row in result["rows"][:4]:
        score = scores["student" if row["model"] == models.STUDENT else "usual"]
        assert (row["texts"]["short"]["sentences_per_second"]["median"], score) in points
    with pytest.raises(InputError, match=r"student\.json is not a result of run_speed\.py"):
        plot.main(["--speed", str(tmp_path / "student.json"), *words])


def test_a_worker_that_fails_is_a_sentence(folder, tmp_path):
    request = {"model": "m", "runtime": "ONNX int8", "folder": str(folder), "file": str(tmp_path / "none.onnx")}
    request |= {"pad": 0, "work": {}, "singles": {"texts": ["the dog"], "length": 8}, "threads": 1, "least": 0.01}
    with pytest.raises(InputError, match=r"^m on ONNX int8 could not be measured: .*none\.onnx"):
        rounds.run_worker(request)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--rounds", "0"], "--rounds 0 is out of range"),
        (["--runtimes", "ONNX int4"], "unknown runtime 'ONNX int4'"),
        (["--output", "."], "is a folder; name a file"),
        (["--student", "nothing"], "nothing"),
    ],
)
def test_bad_input(words, problem):
    with pytest.raises(InputError, match=problem):
        run.main(words)


def test_without_openvino_it_is_left_out(folder, tmp_path, monkeypatch, caplog):
    missing = models.OPENVINO_INT8.__class__("int8 files of OpenVINO", ("no_such_runtime",), "openvino")
    monkeypatch.setattr(models, "OPENVINO_INT8", missing)
    (only,) = models.contenders({models.BERT: folder}, ["torch fp32", "OpenVINO int8"], tmp_path)
    assert only.runtime == "torch fp32"
    assert "left out: OpenVINO int8, which needs no_such_runtime" in caplog.text
    assert sum(weight.numel() for weight in load(folder).parameters()) * 4 / 1e6 == pytest.approx(
        only.megabytes, abs=0.01
    )
