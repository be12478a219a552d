"""The speed benchmark: what is timed is the folder's own embedding, what is counted, and what it prints and writes."""

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_backbone, tiny_model
from transformers import BertConfig, DistilBertConfig, DistilBertModel

from distilface.compression.student import load_student
from distilface.data.samples import sts_sample
from distilface.evaluation.scores import STS_TASKS
from distilface.model.folder import load, save_folder
from distilface.runtimes.extras import OPENVINO_INT8
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TEXTS = ["a dog", "the happy dog runs in the park and the cat sleeps", "the river"]
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def usual(tmp_path: Path) -> Path:
    """Save a model that reads 512 tokens, as those that are compared do."""
    place = tiny_backbone(tmp_path / "backbone")
    config = DistilBertConfig.from_pretrained(place, max_position_embeddings=512)
    DistilBertModel(config).save_pretrained(place)
    save_folder(load_student(str(place), max_seq_length=512), tmp_path / "usual")
    return tmp_path / "usual"


def request_of(models: ModuleType, folder: Path, place: Path, runtime: str) -> dict[str, Any]:
    files = models.exported(load(folder), place, [runtime]) if not runtime.startswith("torch") else {}
    pad = load(folder).tokenizer.pad_token_id
    return {
        "runtime": runtime,
        "folder": str(folder),
        "file": str(files.get(runtime, "")),
        "threads": 1,
        "pad": pad,
    }


@pytest.mark.parametrize("runtime", ["torch fp32", "torch bf16", "ONNX fp32", "ONNX int8", "OpenVINO int8"])
def test_what_is_timed_are_the_folders_embeddings(script, folder, tmp_path, runtime):
    """Silent otherwise: a runtime that pads, cuts or orders wrongly would be as fast."""
    if runtime.startswith("OpenVINO") and OPENVINO_INT8.missing:
        pytest.skip("needs openvino and nncf (the extra 'openvino')")
    worker, models = script("benchmarks.speed.worker"), script("benchmarks.speed.models")
    request = request_of(models, folder, tmp_path / "files", runtime)
    encode = (worker.torch_encoder if runtime.startswith("torch") else worker.file_encoder)(request)
    for length, texts in ((4, TEXTS), (64, TEXTS), (64, TEXTS * 30)):
        model = load(folder)
        model.max_seq_length = length
        expected, found = model.encode(texts), np.asarray(encode(texts, length), np.float32)
        norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
        cosines = (expected * found).sum(1) / norms
        assert cosines.min() > (1 - 1e-5 if runtime.endswith("fp32") else 0.95)


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_operations_are_those_of_the_matrix_products(script, kind, tmp_path):
    config = BertConfig(**SMALL) if kind == "bert" else DistilBertConfig(dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    config.save_pretrained(tmp_path)
    lengths = [3, 10, 10]
    layer = sum(2 * n * (4 * 32 * 32 + 2 * 32 * 64) + 2 * 2 * n * n * 32 for n in lengths)
    pooler = 2 * 32 * 32 * len(lengths) if kind == "bert" else 0  # transformers' own, whatever reads it
    assert script("benchmarks.speed.models").operations(tmp_path, lengths) == layer + pooler


def test_peak_memory_is_the_process_own(script):
    """Silent otherwise: ``ru_maxrss`` begins at the memory of the process that started it."""
    held = bytearray(400_000_000)
    code = "from benchmarks.speed import worker; kept = bytearray(150_000_000); print(worker.peak_megabytes())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=BENCHMARKS.parent, capture_output=True, text=True, check=True
    )
    assert 150 < float(done.stdout) < 300
    assert len(held) == 400_000_000


def test_passes_take_as_long_as_they_must(script):
    calls = []
    times = script("benchmarks.speed.worker").passes(lambda: calls.append(1), 0.01)
    assert len(calls) == len(times) + 1, "the first is not counted"
    assert sum(times[:-1]) < 0.01 <= sum(times)


def test_peaks_are_operations_a_second(script, monkeypatch):
    worker = script("benchmarks.speed.worker")
    monkeypatch.setattr(worker, "passes", lambda work, least: [work() is None or 0.5, 0.25])
    assert worker.peaks(1, 100, 0.0) == dict.fromkeys(("fp32", "bf16", "int8"), 2 * 100**3 / 0.25 / 1000000000.0)


def answers(*rounds: tuple[float, float]) -> list[dict[str, Any]]:
    """Make the answers of rounds: the seconds of a pass, and the load time."""
    return [
        {"passes": {"short": [time, 9.0, 0.0]}, "singles": [0.001 * n for n in range(1, 101)], "load_s": load}
        | {"peak_mb": 100.4}
        for time, load in rounds
    ]


def test_rounds_are_put_together(script):
    run_speed, models = script("benchmarks.speed.run"), script("benchmarks.speed.models")
    contender = models.Contender("m", "ONNX int8", "", "", 17.4, 0)
    work = {"short": {"texts": TEXTS, "length": 8, "operations": {"m": 6e9}}}
    row = run_speed.measured(
        contender, answers((0.1, 1.0), (0.3, 3.0), (0.2, 2.0)), answers((1.0, 0), (1.2, 0), (1.0, 0)), work, 100.0
    )
    found = row["texts"]["short"]
    assert found["sentences_per_second"] == {"median": 15.0, "min": 10.0, "max": 30.0}
    assert found["ratio"] == {"median": 5.0, "min": 4.0, "max": 10.0}, "each round against its own"
    assert found["gops"] == pytest.approx(6 / 0.2)
    assert found["share_of_peak"] == pytest.approx(0.3)
    assert row["load_s"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert row["latency_ms"]["p50"]["median"] == pytest.approx(np.percentile(range(1, 101), 50), abs=0.01)
    assert row["latency_ms"]["p99"]["median"] == pytest.approx(np.percentile(range(1, 101), 99), abs=0.01)


def test_texts_have_the_lengths_that_are_told(script):
    run_speed = script("benchmarks.speed.run")
    work = run_speed.texts_of(run_speed.Settings(short=400))
    assert [len(one["texts"]) for one in work.values()] == [400, 32, 8]
    pairs = sts_sample()
    assert work["short"]["texts"][:360] == [*pairs["sentence1"], *pairs["sentence2"]]
    for length in ("128", "512"):
        assert min(len(text.split()) for text in work[length]["texts"]) > int(length), "a word is a token or more"
        assert len(set(work[length]["texts"])) == len(work[length]["texts"])


def test_end_to_end(script, usual, tmp_path, monkeypatch, capsys):
    models = script("benchmarks.speed.models")
    monkeypatch.delitem(models.SHAPES, models.PAPER)
    monkeypatch.setitem(models.SHAPES, models.BERT, functools.partial(BertConfig, **SMALL))
    student = tmp_path / "student"
    save_folder(load_student(str(usual), [1], max_seq_length=512), student)
    words = ["--usual", str(usual), "--student", str(student), "--runtimes", "ONNX int8", "--rounds", "1"]
    words += ["--short", "6", "--of-128", "1", "--of-512", "1", "--seconds", "0.01", "--matrix", "32"]
    result = script("benchmarks.speed.run").main([*words, "--output", str(tmp_path / "speed.json")])
    assert json.loads((tmp_path / "speed.json").read_text()) == result
    assert [(row["model"], row["runtime"]) for row in result["rows"]] == [
        *((name, runtime) for name in (models.STUDENT, models.USUAL) for runtime in ("torch fp32", "ONNX int8")),
        (models.BERT, "torch fp32"),
    ]
    assert result["rows"][2]["texts"]["short"]["ratio"]["median"] == 1.0, "what others are compared with"
    assert result["rows"][1]["megabytes"] < result["rows"][0]["megabytes"]
    assert result["texts"]["128"] == {"texts": 1, "mean_tokens": 128}
    assert set(result["peak_gops"]) == {"fp32", "bf16", "int8"}
    assert {"versions", "machine", "date"} <= set(result)
    printed = capsys.readouterr()
    assert f"int8 student: {result['rows'][1]['texts']['short']['ratio']['median']} times" in printed.out
    assert "round 1: " in printed.err
    draw(script, tmp_path, result)


def draw(script, tmp_path: Path, speed: dict[str, Any]) -> None:
    """Draw what was measured beside scores, and refuse what is none."""
    for name, score in (("student", 70.0), ("usual", 80.0)):
        row = {
            "name": name,
            "role": "model",
            "scores": dict.fromkeys(STS_TASKS, score),
            "parameters": 1,
            "megabytes": 1,
        }
        (tmp_path / f"{name}.json").write_text(json.dumps({**row, "compared": {}}))
    words = ["--student", str(tmp_path / "student.json"), "--usual", str(tmp_path / "usual.json")]
    words += ["--output", str(tmp_path / "figures" / "speed.png")]
    figure = script("benchmarks.speed.plot").main(["--speed", str(tmp_path / "speed.json"), *words])
    assert (tmp_path / "figures" / "speed.png").read_bytes().startswith(b"\x89PNG")
    points = {
        (round(float(x), 1), round(float(y), 1))
        for container in figure.axes[0].containers
        for x, y in zip(*container.lines[0].get_data(), strict=True)
    }
    for row in speed["rows"][:4]:
        score = 70.0 if row["model"].startswith("3") else 80.0
        assert (row["texts"]["short"]["sentences_per_second"]["median"], score) in points
    with pytest.raises(InputError, match=r"student\.json is no result of run_speed\.py"):
        script("benchmarks.speed.plot").main(["--speed", str(tmp_path / "student.json"), *words])


def test_a_worker_that_fails_is_a_sentence(script, folder, tmp_path):
    run_speed = script("benchmarks.speed.run")
    request = {
        "model": "m",
        "runtime": "ONNX int8",
        "folder": str(folder),
        "file": str(tmp_path / "none.onnx"),
        "pad": 0,
    }
    request |= {"work": {}, "singles": {"texts": ["the dog"], "length": 8}, "threads": 1, "least": 0.01}
    with pytest.raises(InputError, match=r"^m on ONNX int8 could not be measured: .*none\.onnx"):
        run_speed.ask(request)


def test_bad_input(script, tmp_path):
    run_speed = script("benchmarks.speed.run")
    with pytest.raises(InputError, match="--rounds 0 is out of range"):
        run_speed.main(["--rounds", "0"])
    with pytest.raises(InputError, match="unknown runtime 'ONNX int4'"):
        run_speed.main(["--runtimes", "ONNX int4"])
    with pytest.raises(InputError, match="is a folder; name a file"):
        run_speed.main(["--output", str(tmp_path)])
    with pytest.raises(InputError, match="nothing"):
        run_speed.main(["--student", str(tmp_path / "nothing")])


def test_without_openvino_it_is_left_out(script, folder, tmp_path, monkeypatch, capsys):
    models = script("benchmarks.speed.models")
    missing = models.OPENVINO_INT8.__class__("int8 files of OpenVINO", ("no_such_runtime",), "openvino")
    monkeypatch.setattr(models, "OPENVINO_INT8", missing)
    found = models.contenders({models.BERT: folder}, ["torch fp32", "OpenVINO int8"], tmp_path)
    assert [one.runtime for one in found] == ["torch fp32"]
    assert "left out: OpenVINO int8, which needs no_such_runtime" in capsys.readouterr().err
    assert torch.tensor([weight.numel() for weight in load(folder).parameters()]).sum() * 4 / 1e6 == pytest.approx(
        found[0].megabytes, abs=0.01
    )
