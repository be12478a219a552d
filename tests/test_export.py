"""Exports against the folder's own vectors, the gate that keeps a bad file out, and the command on a folder."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny import PAIRS, sentences, tiny_backbone, tiny_model, write_pairs

from distilface import cli
from distilface.compression.recurrent import recurrent_student
from distilface.compression.student import load_student
from distilface.exporters import exporting as export
from distilface.exporters import parity
from distilface.exporters.onnx import to_fp16, to_int8, to_int8_weights
from distilface.model.folder import Folder, load, save_folder
from distilface.runtimes import extras
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
PAIRS_SET = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
TEXTS = ["dog", *sentences(20), " ".join(sentences(9))]


def students(folder: Path) -> dict[str, SentenceTransformer]:
    """Make one model of each kind that can be a student."""
    backbone = str(tiny_backbone(folder / "backbone", layers=4))
    models = {mode: load_student(backbone, pooling=mode) for mode in ("mean", "cls", "last4")}
    width = models["mean"].get_embedding_dimension()
    models["dense"] = SentenceTransformer(modules=[*models["mean"], Dense(width, 12), Normalize()], device="cpu")
    models["albert"] = recurrent_student(load_student(backbone, normalize=True), 2, 2, 8)
    return models


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save each kind of student, exported in fp32."""
    place = tmp_path_factory.mktemp("export")
    for name, model in students(place).items():
        save_folder(model, place / name)
        export.export(place / name, PAIRS_SET, ["onnx"])
    return {name: place / name for name in ("mean", "cls", "last4", "dense", "albert")}


@pytest.fixture
def folder(tmp_path) -> Path:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("kind", ["mean", "cls", "last4", "dense", "albert"])
def test_the_vectors_are_the_folders(folders, kind):
    """Batches and lengths that the example of the export had not, and a text longer than the model reads."""
    model, encoder = load(folders[kind]), export.OnnxEncoder(folders[kind] / "onnx" / "model.onnx", folders[kind])
    expected = model.encode(TEXTS)
    for batch_size in (1, 3, 32):
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size), expected, atol=1e-5)
    record = json.loads((folders[kind] / "export.json").read_text())["files"]["onnx/model.onnx"]
    assert record["min_cosine"] >= 1 - 1e-5
    assert record["refused"] is None


@pytest.mark.parametrize("kind", ["mean", "last4", "albert"])
def test_a_runtime_that_pools_by_itself_meets_the_same_embedding(folders, kind):
    """transformers.js, fastembed and TEI read the token vectors; last4's are a mean of layers, not the last one's."""
    model = load(folders[kind])
    session = onnxruntime.InferenceSession(folders[kind] / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [given.name for given in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    tokens = model.tokenizer(TEXTS[:7], padding=True, return_tensors="np")
    states, embeddings = session.run(None, {name: tokens[name] for name in ("input_ids", "attention_mask")})
    mask = tokens["attention_mask"][:, :, None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    ours = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pooled, embeddings)]
    np.testing.assert_allclose(ours[0], ours[1], atol=1e-5)


def test_the_file_is_one_and_free_of_this_machine(folders):
    file = folders["mean"] / "onnx" / "model.onnx"
    assert [found.name for found in file.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(file, load_external_data=False)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert str(Path.home()).encode() not in file.read_bytes()
    assert str(folders["mean"].parent).encode() not in file.read_bytes()
    assert b"site-packages" not in file.read_bytes()
    assert str(Path(export.__file__).parent).encode() not in file.read_bytes()


def products(file: Path) -> list[onnx.NodeProto]:
    """Return the products with a weight that is kept in fp32."""
    graph = onnx.load(file).graph
    weights = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    return [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and weights & set(node.input)]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_int8_leaves_no_weight_in_fp32(folders, kind, signed, tmp_path):
    """Layers that share weights would stay in fp32 without a word, and the file twice as large as it need be."""
    source = folders[kind] / "onnx" / "model.onnx"
    to_int8(source, tmp_path / "q.onnx", signed)
    assert products(source)
    assert not products(tmp_path / "q.onnx")
    kinds = {onnx.TensorProto.INT8: 0, onnx.TensorProto.UINT8: 0}
    large = [t for t in onnx.load(tmp_path / "q.onnx").graph.initializer if np.prod(t.dims) > 100]
    for tensor in large:
        kinds[tensor.data_type] = kinds.get(tensor.data_type, 0) + 1
    assert kinds[onnx.TensorProto.INT8 if signed else onnx.TensorProto.UINT8] > 3
    found = export.OnnxEncoder(tmp_path / "q.onnx", folders[kind]).encode(TEXTS)
    expected = load(folders[kind]).encode(TEXTS)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.9


def matrices(file: Path) -> dict[str, np.ndarray]:
    """Return the constants of an ONNX file, by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}


@pytest.mark.parametrize("kind", ["mean", "albert", "dense"])
def test_int8_weights_are_those_of_the_folder_to_half_a_step(folders, kind, tmp_path):
    """Each against the folder's own matrix, and each column against its own scale."""
    source = folders[kind] / "onnx" / "model.onnx"
    to_int8_weights(source, tmp_path / "w.onnx")
    found = matrices(tmp_path / "w.onnx")
    rows = [weight.numpy() for weight in load(folders[kind]).state_dict().values() if weight.ndim == 2]
    small = {name.removesuffix("_int8"): number for name, number in found.items() if name.endswith("_int8")}
    assert len(small) == len({node.input[1] for node in products(source)}) > 3, "layers that share one have one"
    for name, number in small.items():
        scale = found[f"{name}_scale"]
        assert number.dtype == np.int8
        assert (np.abs(number).max(axis=0) == 127).all()
        near = [np.abs(row.T - number * scale) for row in rows if row.T.shape == number.shape]
        assert any((difference <= scale * 0.5001).all() for difference in near), name
    assert not products(tmp_path / "w.onnx")
    large = [number for number in found.values() if number.size > 100 and number.ndim == 2]
    assert {number.dtype for number in large} == {np.dtype(np.int8), np.dtype(np.uint8)}


@pytest.mark.parametrize("kind", ["mean", "albert", "dense"])
def test_int8_weights_give_one_vector_in_every_batch_and_runtime(folders, kind, tmp_path):
    """A runtime that folds no constants, as one that folds all, as any batch: only fp32's last bits differ."""
    file = tmp_path / "w.onnx"
    to_int8_weights(folders[kind] / "onnx" / "model.onnx", file)
    encoder = export.OnnxEncoder(file, folders[kind])
    given = encoder.encode(TEXTS)
    for batch_size in (1, 3):
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size), given, atol=1e-6)
    plain = onnxruntime.SessionOptions()
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    encoder.session = onnxruntime.InferenceSession(file, plain, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(encoder.encode(TEXTS), given, atol=1e-6)
    wanted = load(folders[kind]).encode(TEXTS)
    cosines = (given * wanted).sum(1) / np.linalg.norm(given, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosines.min() > 0.999


def test_what_is_measured_is_measured(folders, tmp_path):
    """Cosines and Spearman of the fp16 file against plain numpy and scipy."""
    folder = folders["mean"]
    to_fp16(folder / "onnx" / "model.onnx", tmp_path / "h.onnx")
    texts = [*PAIRS_SET["sentence1"], *PAIRS_SET["sentence2"]]
    wanted = load(folder).encode(texts)
    found = export.compare(tmp_path / "h.onnx", load(folder), PAIRS_SET, wanted, exact=False)
    given = export.OnnxEncoder(tmp_path / "h.onnx", folder).encode(texts)
    half = len(PAIRS)
    rows = [[v / np.linalg.norm(v) for v in vectors] for vectors in (given, wanted)]
    cosines = [float(a @ b) for a, b in zip(*rows, strict=True)]
    scores = [
        100 * spearmanr([row[i] @ row[half + i] for i in range(half)], PAIRS_SET["score"]).statistic for row in rows
    ]
    assert found.min_cosine == pytest.approx(min(cosines), abs=1e-5)
    assert found.mean_cosine == pytest.approx(np.mean(cosines), abs=1e-5)
    assert (found.score, found.score_change) == pytest.approx((scores[0], scores[0] - scores[1]), abs=1e-3)
    assert found.megabytes == pytest.approx((tmp_path / "h.onnx").stat().st_size / 1e6, abs=0.01)
    config = load(folder)[0].model.config
    assert found.table_megabytes == pytest.approx(config.vocab_size * config.hidden_size * 2 / 1e6, abs=0.01)


def spoil(source: Path, target: Path) -> None:
    """Write a file with its weights shuffled."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 100:
            values = onnx.numpy_helper.to_array(tensor).copy()
            np.random.default_rng(0).shuffle(values)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, target)


@pytest.mark.parametrize("exact", [True, False])
def test_a_file_past_the_gate_is_not_written(folder, exact, monkeypatch, capsys):
    """It is removed where an older one lies, of which nobody would know that it is refused today."""
    export.export(folder, PAIRS_SET, ["onnx", "fp16"])
    assert (folder / "onnx" / "model_fp16.onnx").is_file()
    monkeypatch.setattr(parity, "LOSS", -200.0 if not exact else 1.0)
    form = export.Format("onnx/model_fp16.onnx", spoil, exact, "spoilt")
    monkeypatch.setitem(export.FORMATS, "fp16", form)
    found = export.export(folder, PAIRS_SET, ["fp16"])["fp16"]
    reason = "the least cosine to the folder's vectors is" if exact else "Spearman falls by"
    assert found.refused is not None
    assert reason in found.refused
    assert f"model_fp16.onnx: not written: {reason}" in capsys.readouterr().err
    assert not (folder / "onnx" / "model_fp16.onnx").exists()
    assert (folder / "onnx" / "model.onnx").is_file(), "the others stay"
    record = json.loads((folder / "export.json").read_text())["files"]
    assert record["onnx/model_fp16.onnx"]["refused"] == found.refused
    assert record["onnx/model.onnx"]["refused"] is None
    assert sorted(path.name for path in folder.parent.iterdir()) == ["m", "made"], "nothing is left beside it"


def test_a_default_prompt_is_no_reason_to_refuse(folder):
    """A file is given ids, so it is compared on the text as it stands: a prompt is its caller's to put before."""
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    config |= {"prompts": {"query": "one two three: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    assert export.export(folder, PAIRS_SET, ["onnx"])["onnx"].refused is None
    assert load(folder).default_prompt_name == "query"


def test_results_of_other_weights_are_not_taken_for_these(folder, capsys):
    export.export(folder, PAIRS_SET, ["onnx"])
    assert export.read_record(Folder(folder))["pairs"] == len(PAIRS)
    model = load(folder)
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight.mul_(1.1)
    model[0].model.save_pretrained(folder)
    assert export.read_record(Folder(folder)) == {}
    lines = cli.run(["info", str(folder)])
    assert "lacks: exports of these weights, for onnx/ is of others (distilface export)" in lines
    assert not any("model.onnx" in line for line in lines)
    capsys.readouterr()


def test_without_the_packages_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setattr(export, "ONNX", extras.Extra("ONNX files", ("onnx", "no_such_package"), "onnx"))
    with pytest.raises(InputError, match=r"ONNX files need no_such_package; pip install 'distilface\[onnx\]'"):
        export.export(folder, PAIRS_SET, ["onnx"])
    assert not (folder / "onnx").exists()


# ---- the command


def test_the_command_exports_and_tells(folder, tmp_path, capsys):
    dev = write_pairs(tmp_path / "dev.jsonl")
    found = cli.run(["export", str(folder), "--formats", "onnx", "vnni", "--dev", str(dev)])
    written = [name for name, parity in found.items() if parity.refused is None]
    assert capsys.readouterr().out.endswith(f"{len(written)} of 2 formats written to {folder}\n")
    lines = cli.run(["info", "--folder", str(folder)])
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
    config = load(folder)[0].model.config
    table = config.vocab_size * config.hidden_size
    assert lines[0].startswith(f"{folder}: distilbert, {config.num_hidden_layers} layers of {config.hidden_size}, ")
    assert f"({table:,} in the embedding table)" in lines[1]
    assert any(line.startswith("onnx/model.onnx (fp32): ") for line in lines)
    assert lines[-2:] == ["lacks: run.json, which says how it was trained", "lacks: a card (distilface card)"]


def test_the_command_tells_a_training(folder, capsys):
    run = {"method": "simcse", "seed": 3, "verdict": "WIN", "scores": {"stsb_dev": 81.234, "teacher_stsb_dev": None}}
    (folder / "run.json").write_text(json.dumps(run))
    assert cli.run(["info", str(folder)])[2:4] == ["trained: simcse, seed 3, verdict WIN", "scores: stsb_dev 81.23"]
    cli.run([])
    assert "distilface export FOLDER" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["exprot", "m"], "unknown verb 'exprot': did you mean 'export'?"),
        (["info"], "no folder given; as distilface info models/mine"),
        (["info", "nowhere"], "nowhere does not exist; give a model folder"),
        (["export", "FOLDER", "--formats", "onxn"], "unknown format 'onxn': did you mean 'onnx'?"),
        (["export", "nowhere"], "nowhere does not exist; give a model folder"),
        (["export", "FOLDER", "--dev", "none.jsonl"], "none.jsonl does not exist"),
    ],
)
def test_a_mistake_is_one_sentence(folder, words, sentence):
    with pytest.raises(InputError) as error:
        cli.run([str(folder) if word == "FOLDER" else word for word in words])
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not (folder / "onnx").exists()


def test_the_command_ends_in_a_sentence_and_not_in_a_traceback(tmp_path):
    command = [sys.executable, "-m", "distilface.cli", "info", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'none'} does not exist; give a model folder"
