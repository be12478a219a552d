"""The exported files, the gate that keeps a bad one out, their report, and the command on a folder."""

import dataclasses
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported import PAIRS_SET, TEXTS, as_traced, cosines
from refusals import refusal
from scipy.stats import spearmanr
from test_runtimes import ONNX, OPENVINO, OPENVINO_INT8, needs_openvino
from tiny import PAIRS, sentences, write_pairs

from distilface import cli
from distilface.exporters import exporting, parity
from distilface.exporters.exporting import calibration_texts, export, tokenised
from distilface.exporters.formats import FORMATS, Format
from distilface.exporters.four_bits import to_q4
from distilface.exporters.smaller import to_fp16, to_int8_weights
from distilface.light.session import OnnxSession
from distilface.model import folder as folder_module
from distilface.model import loading
from distilface.model.folder import Folder, load
from distilface.runtimes import FILES, extras, open_file, read_exports
from distilface.runtimes.files import pieces

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
FP16 = FILES["fp16"].path


@pytest.fixture
def folder(students, tmp_path, monkeypatch) -> Path:
    """Copy a student; its trace, which takes seconds, is that of the file that all students were tested with."""
    monkeypatch.setattr(exporting, "to_onnx", as_traced(students["mean"]))
    ignored = shutil.ignore_patterns("onnx", "export.json")
    return shutil.copytree(students["mean"], tmp_path / "m", ignore=ignored)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def constants(file: Path) -> dict[str, np.ndarray]:
    """Return the constants of an ONNX file, by name, each of which must stand there once."""
    tensors = onnx.load(file).graph.initializer
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}
    assert len(arrays) == len(tensors)
    return arrays


def products(file: Path) -> list[onnx.NodeProto]:
    """Return the products with a weight that is kept in fp32."""
    weights = {name for name, array in constants(file).items() if array.dtype == np.float32}
    nodes = onnx.load(file).graph.node
    return [node for node in nodes if node.op_type in ("MatMul", "Gemm") and weights & set(node.input)]


# ---- the files


SMALL = [("vnni", np.int8), ("avx2", np.uint8), ("q4", np.uint8), ("int8", np.int8)]


@pytest.mark.parametrize(("name", "dtype"), SMALL)
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_a_small_file_keeps_no_weight_in_fp32(students, kind, name, dtype, tmp_path):
    """Weights that layers share would stay in fp32 without a word, or stand in the file twice, which is refused."""
    root, file, model = logging.getLogger(), tmp_path / "small.onnx", load(students[kind])
    level, handlers = root.level, list(root.handlers)
    FORMATS[name].make(students[kind] / ONNX, file)
    assert (root.level, root.handlers) == (level, handlers), "onnxruntime's modules configure logging"
    assert products(students[kind] / ONNX)
    assert not products(file)
    types = [array.dtype for array in constants(file).values() if array.size > 100]
    assert types.count(np.dtype(dtype)) > 3
    bits = {flag.i for node in onnx.load(file).graph.node for flag in node.attribute if flag.name == "bits"}
    assert bits == ({4} if name == "q4" else set())
    encoder, config = open_file(file, model), model[0].model.config
    shape = (config.vocab_size, getattr(config, "embedding_size", config.hidden_size))
    half = name == "q4" and kind == "mean"  # a row of the ALBERT's table is shorter than a block
    assert encoder.table_bytes(shape) == np.prod(shape) / (2 if half else 1), "half a byte or one byte a weight"
    assert cosines(encoder.encode(TEXTS), model.encode(TEXTS)).min() > 0.9
    if FILES[name].precision == "fp32":
        np.testing.assert_allclose(encoder.encode(TEXTS, 1), encoder.encode(TEXTS, 32), atol=1e-5)


def test_a_file_does_not_tell_where_it_was_made(students):
    """The exporter writes into each part where it was traced: paths of this machine, and names of its own."""
    graph = onnx.load(students["mean"] / ONNX).graph
    parts = [graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info]
    assert not any(part.metadata_props or part.doc_string for part in parts)


def test_attention_is_exported_in_its_steps(students):
    """Taken apart, the fused one looks for rows without a token, and transposes the keys twice."""
    graph, layers = onnx.load(students["mean"] / ONNX).graph, load(students["mean"])[0].model.config.num_hidden_layers
    kinds = Counter(node.op_type for node in graph.node)
    assert (kinds["Softmax"], kinds["IsNaN"], kinds["Transpose"]) == (layers, 0, 4 * layers)


@pytest.mark.parametrize("kind", ["mean", "albert", "dense"])
def test_int8_weights_are_right_to_half_a_step(students, kind, tmp_path):
    """Each against the folder's own matrix, and each column against its own scale."""
    to_int8_weights(students[kind] / ONNX, tmp_path / "w.onnx")
    arrays, model = constants(tmp_path / "w.onnx"), load(students[kind])
    rows = [weight.numpy() for weight in model.state_dict().values() if weight.ndim == 2]
    small = {name.removesuffix("_int8"): number for name, number in arrays.items() if name.endswith("_int8")}
    assert len(small) == len({node.input[1] for node in products(students[kind] / ONNX)}) > 3, "one where shared"
    for name, number in small.items():
        scale = arrays[f"{name}_scale"]
        assert number.dtype == np.int8
        assert (np.abs(number).max(axis=0) == 127).all()
        near = [np.abs(row.T - number * scale) for row in rows if row.T.shape == number.shape]
        assert any((difference <= scale * 0.5001).all() for difference in near), name
    assert not products(tmp_path / "w.onnx")
    large = {number.dtype for number in arrays.values() if number.size > 100 and number.ndim == 2}
    assert large == {np.dtype(np.int8), np.dtype(np.uint8)}
    # One vector everywhere: a runtime that folds no constants and any batch differ in the last bits of fp32 alone.
    encoder, plain = open_file(tmp_path / "w.onnx", model), onnxruntime.SessionOptions()
    embeddings = encoder.encode(TEXTS)
    assert cosines(embeddings, model.encode(TEXTS)).min() > 0.999
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    unfolded = onnxruntime.InferenceSession(tmp_path / "w.onnx", plain, providers=["CPUExecutionProvider"])
    for session, batch_size in ((encoder.session, 1), (encoder.session, 3), (OnnxSession(unfolded), 32)):
        encoder.session = session
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size), embeddings, atol=1e-6)


def test_a_table_of_4_bits_is_right_to_half_a_step(students, tmp_path):
    """Each row against the folder's own, in blocks of 32 with a scale in fp16 each, two codes in a byte."""
    to_q4(students["mean"] / ONNX, tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    (node,) = (node for node in model.graph.node if node.op_type == "GatherBlockQuantized")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    codes, scales = (onnx.numpy_helper.to_array(tensors[name]) for name in (node.input[0], f"{node.input[2]}_half"))
    assert scales.dtype == np.float16
    table = load(students["mean"])[0].model.get_input_embeddings().weight.detach().numpy()
    assert codes.shape == table.shape
    assert scales.shape == (len(table), table.shape[1] // 32)
    steps = scales.astype(np.float32).repeat(32, axis=1)
    restored = codes.astype(np.float32) * steps
    assert (np.abs(restored - table) <= 0.51 * np.abs(steps) + 1e-7).mean() > 0.98, "but where the ends are rounded"
    assert (np.abs(restored - table) <= 1.01 * np.abs(steps)).all()


def test_the_scales_are_not_set_by_what_is_judged(folder, tmp_path):
    measured = [sentence for a, b, _ in PAIRS for sentence in (a, b)]
    (tmp_path / "some.txt").write_text("\n".join([*measured, "a tired horse under the tree"]) + "\n")
    model = load(folder)
    (sample,) = tokenised(model, calibration_texts([str(tmp_path / "some.txt")], measured))
    tokens = model.tokenizer(["a tired horse under the tree"])["input_ids"]
    assert sample["input_ids"].tolist() == tokens
    assert sample["attention_mask"].tolist() == [[1] * len(tokens[0])]
    (tmp_path / "same.txt").write_text("\n".join(measured) + "\n")
    said = refusal(calibration_texts, [str(tmp_path / "same.txt")], measured)
    assert said.startswith(f"all 20 sentences of --calibration {tmp_path / 'same.txt'} stand in the scored pairs")


# ---- the gate


def test_the_gate_measures_what_it_says(students, tmp_path):
    """Cosines and Spearman of the fp16 file against plain numpy and scipy."""
    model, file = load(students["mean"]), tmp_path / "h.onnx"
    to_fp16(students["mean"] / ONNX, file)
    texts, half = [*PAIRS_SET["sentence1"], *PAIRS_SET["sentence2"]], len(PAIRS)
    reference, encoder = model.encode(texts), open_file(file, model)
    result = parity.compare(encoder, parity.reference_of(model, PAIRS_SET), exact=False)
    rows = [[v / np.linalg.norm(v) for v in vectors] for vectors in (encoder.encode(texts), reference)]
    similar = [float(a @ b) for a, b in zip(*rows, strict=True)]
    scores = [
        100 * spearmanr([row[i] @ row[half + i] for i in range(half)], PAIRS_SET["score"]).statistic for row in rows
    ]
    assert result.min_cosine == pytest.approx(min(similar), abs=1e-5)
    assert result.mean_cosine == pytest.approx(np.mean(similar), abs=1e-5)
    assert (result.score, result.score_change) == pytest.approx((scores[0], scores[0] - scores[1]), abs=1e-3)
    assert result.megabytes == pytest.approx(file.stat().st_size / 1e6, abs=0.01)
    config = model[0].model.config
    assert result.table_megabytes == pytest.approx(config.vocab_size * config.hidden_size * 2 / 1e6, abs=0.01)


def spoil(source: Path, target: Path) -> Path:
    """Write a file with its weights shuffled."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 100:
            values = onnx.numpy_helper.to_array(tensor).copy()
            np.random.default_rng(0).shuffle(values)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ("exact", "near", "reason"),
    [
        (True, 0.8, "the least cosine to the folder's vectors is"),
        (False, 0.8, "the least cosine to the folder's vectors is"),
        (False, -2.0, "Spearman falls by"),
    ],
)
def test_a_file_past_the_gate_is_not_written(folder, exact, near, reason, monkeypatch, caplog):
    """It is removed where an older one lies, of which nobody would know that it is refused today."""
    export(folder, PAIRS_SET, ["onnx", "fp16"])
    assert (folder / FP16).is_file()
    monkeypatch.setattr(parity, "NEAR", near)
    monkeypatch.setattr(parity, "LOSS", -200.0 if near < 0 else 1.0)
    monkeypatch.setitem(FORMATS, "fp16", Format(spoil, exact, weights=frozenset({"float"})))
    refused = export(folder, PAIRS_SET, ["fp16"])["fp16"].refused
    assert refused is not None
    assert reason in refused
    assert f"model_fp16.onnx: not written: {reason}" in caplog.text
    assert names(folder / "onnx") == ["model.onnx"], "the others stay"
    rows = json.loads((folder / "export.json").read_text())["files"]
    assert (rows[FP16]["refused"], rows[ONNX]["refused"]) == (refused, None)
    assert names(folder.parent) == ["m"], "nothing is left beside it"


def test_a_default_prompt_is_no_reason_to_refuse(folder):
    """A file reads ids, so it is compared on the text as it stands: its caller puts the prompt before it."""
    config = json.loads((folder / "config_sentence_transformers.json").read_text())
    config |= {"prompts": {"query": "one two three: "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    assert export(folder, PAIRS_SET, ["onnx"])["onnx"].refused is None
    assert load(folder).default_prompt_name == "query"


@needs_openvino
def test_a_pair_of_files_is_written_whole_or_not(folder, tmp_path, monkeypatch):
    """A description without its weights would load in no runtime, and one with older weights would lie."""
    (tmp_path / "text.txt").write_text("\n".join(sentences(40, seed=7)) + "\n")
    results = export(folder, PAIRS_SET, ["openvino", "openvino-int8"], [str(tmp_path / "text.txt")])
    report = json.loads((folder / "export.json").read_text())
    assert report["versions"]["openvino"]
    assert list(report["files"]) == [OPENVINO, OPENVINO_INT8]
    for name in results:
        pair = pieces(folder / FILES[name].path)
        assert report["files"][FILES[name].path]["megabytes"] == results[name].megabytes
        assert results[name].megabytes == pytest.approx(sum(file.stat().st_size for file in pair) / 1e6, abs=0.01)
    lines = cli.run(["info", str(folder)])
    assert any(line.startswith(f"{OPENVINO_INT8} (static int8): ") for line in lines)
    (line,) = (line for line in lines if line.startswith(OPENVINO))
    assert ("of it the embedding table" in line) == bool(results["openvino"].table_megabytes)
    left = ["openvino_model_qint8_quantized.bin", "openvino_model_qint8_quantized.xml"]
    assert names(folder / "openvino") == ["openvino_model.bin", "openvino_model.xml", *left]
    real, form = Path.replace, FORMATS["openvino"]

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "openvino_model.xml":
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            export(folder, PAIRS_SET, ["openvino"])
    assert names(folder / "openvino") == left
    assert names(folder.parent) == ["m", "text.txt"], "nothing is left beside it"
    export(folder, PAIRS_SET, ["openvino"])
    assert len(names(folder / "openvino")) == 4

    def spoilt(file: Path, target: Path) -> None:
        form.make(spoil(file, file.with_name("spoilt.onnx")), target)

    monkeypatch.setitem(FORMATS, "openvino", dataclasses.replace(form, make=spoilt))
    assert export(folder, PAIRS_SET, ["openvino"])["openvino"].refused
    assert names(folder / "openvino") == left


# ---- the report


def test_results_of_other_weights_are_not_taken(folder, capsys):
    export(folder, PAIRS_SET, ["onnx"])
    assert read_exports(Folder(folder))["pairs"] == len(PAIRS)
    model = load(folder)
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight.mul_(1.1)
    model[0].model.save_pretrained(folder)
    assert read_exports(Folder(folder)) == {}
    lines = cli.run(["info", str(folder)])
    assert "lacks: exports of these weights, for onnx/ is of others (distilface export)" in lines
    assert not any("model.onnx" in line for line in lines)
    capsys.readouterr()


def test_what_passed_before_a_crash_is_reported(folder, monkeypatch):
    def crash(file: Path, target: Path) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setitem(FORMATS, "fp16", Format(crash))
    with pytest.raises(RuntimeError):
        export(folder, PAIRS_SET, ["onnx", "fp16"])
    assert list(read_exports(Folder(folder))["files"]) == [ONNX]
    assert names(folder / "onnx") == ["model.onnx"]


def test_the_weights_are_hashed_once(folder, monkeypatch):
    """Of a large model that takes longer than a small format."""
    real, hashed = folder_module.fingerprint, []
    monkeypatch.setattr(folder_module, "fingerprint", lambda model: (hashed.append(model), real(model))[1])
    export(folder, PAIRS_SET, ["onnx", "fp16"])
    export(folder, PAIRS_SET, ["fp16"])
    assert len(hashed) == 2


# ---- what is not installed


def test_what_is_not_installed_is_left_out_unless_asked(folder, monkeypatch, caplog):
    missing = extras.Extra("OpenVINO files", ("no_such_runtime",), "openvino")
    for name, form in list(FORMATS.items()):
        if name.startswith("openvino"):
            monkeypatch.setitem(FORMATS, name, dataclasses.replace(form, extra=missing))
        elif name != "onnx":
            monkeypatch.delitem(FORMATS, name)
    said = refusal(export, folder, PAIRS_SET, ["onnx", "openvino-int8"])
    assert said == "OpenVINO files need no_such_runtime; pip install 'distilface[openvino]'"
    assert not (folder / "onnx").exists(), "nothing is made before the mistake is said"
    assert list(export(folder, PAIRS_SET)) == ["onnx"]
    assert [line for line in caplog.messages if line.startswith("left out")] == [
        f"left out: {name}, which needs no_such_runtime (pip install 'distilface[openvino]')"
        for name in ("openvino", "openvino-int8")
    ]
    monkeypatch.setattr(exporting, "ONNX", extras.Extra("ONNX files", ("onnx", "no_such_package"), "onnx"))
    said = refusal(export, folder, PAIRS_SET, ["fp16"])
    assert "ONNX files need no_such_package; pip install 'distilface[onnx]'" in said
    assert not (folder / FP16).exists()


# ---- the command


def test_the_command_exports_and_reports(folder, tmp_path, capsys):
    dev = write_pairs(tmp_path / "dev.jsonl")
    results = cli.run(["export", str(folder), "--formats", "onnx", "vnni", "--dev", str(dev)])
    written = [name for name, result in results.items() if result.refused is None]
    assert capsys.readouterr().out.endswith(f"{len(written)} of 2 formats written to {folder}\n")
    lines = cli.run(["info", "--folder", str(folder)])
    assert capsys.readouterr().out == "\n".join(lines) + "\n"
    config = load(folder)[0].model.config
    table = config.vocab_size * config.hidden_size
    assert lines[0].startswith(f"{folder}: distilbert, {config.num_hidden_layers} layers of {config.hidden_size}, ")
    assert f"({table:,} in the embedding table)" in lines[1]
    assert any(line.startswith("onnx/model.onnx (fp32): ") for line in lines)
    assert lines[-2:] == ["lacks: run.json, which says how it was trained", "lacks: a card (distilface card)"]
    run = {"method": "simcse", "seed": 3, "verdict": "WIN", "scores": {"stsb_dev": 81.234, "teacher_stsb_dev": None}}
    (folder / "run.json").write_text(json.dumps(run))
    assert cli.run(["info", str(folder)])[2:4] == ["trained: simcse, seed 3, verdict WIN", "scores: stsb_dev 81.23"]
    cli.run([])
    assert "distilface export FOLDER" in capsys.readouterr().out


def test_a_model_of_the_hub_is_saved_first(folder, tmp_path, monkeypatch, capsys):
    dev, target = write_pairs(tmp_path / "dev.jsonl"), tmp_path / "made" / "q4"
    monkeypatch.setattr(loading, "resolve", {"org/model": str(folder)}.__getitem__)
    words = ["export", "org/model", "--formats", "onnx", "--dev", str(dev)]
    assert "does not exist; give a model folder" in refusal(cli.run, words)
    cli.run([*words, "--output-dir", str(target)])
    assert capsys.readouterr().out.endswith(f"1 of 1 formats written to {target}\n")
    assert (target / "onnx" / "model.onnx").is_file()
    assert not (folder / "onnx").exists()
    saved, own = load(target), load(folder)
    assert saved[0].model.config.max_position_embeddings == own.max_seq_length
    text = "the dog runs in the park " * 30
    np.testing.assert_allclose(saved.encode(text), own.encode(text), atol=1e-6)
    assert f"{target}" in refusal(cli.run, [*words, "--output-dir", str(target)]), "it is not written over"


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
    assert sentence in refusal(cli.run, [str(folder) if word == "FOLDER" else word for word in words])
    assert not (folder / "onnx").exists()
