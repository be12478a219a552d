"""Four bits and OpenVINO's pairs of files: parity on each runtime, both halves or none, and what is not installed."""

import dataclasses
import json
import logging
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from datasets import Dataset
from test_export import PAIRS_SET, TEXTS, products, students
from tiny import PAIRS, needs_package, sentences, tiny_model

from distilface import cli
from distilface.compression.student import load_student
from distilface.data.pairs import read_sts
from distilface.evaluation.file_model import FileModel
from distilface.exporters import exporting as export
from distilface.exporters import onnx as onnx_files
from distilface.exporters import openvino as openvino_files
from distilface.model.folder import Folder, load, save_folder
from distilface.runtimes import encoders as runtimes
from distilface.runtimes import extras
from distilface.runtimes.extras import import_silent
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None, reason="needs openvino and nncf (the extra 'openvino')"
)
OPENVINO = "openvino/openvino_model.xml"
INT8 = "openvino/openvino_model_qint8_quantized.xml"


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save a DistilBERT and an ALBERT, whose layers share their weights, with their fp32 ONNX file beside them."""
    place = tmp_path_factory.mktemp("runtimes")
    for name, model in students(place).items():
        if name in ("mean", "albert"):
            save_folder(model, place / name)
            onnx_files.to_onnx(load(place / name), place / f"{name}.onnx")
    return {name: place / name for name in ("mean", "albert")}


@pytest.fixture
def folder(tmp_path) -> Path:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def text(tmp_path) -> str:
    (tmp_path / "text.txt").write_text("\n".join(sentences(40, seed=7)) + "\n")
    return str(tmp_path / "text.txt")


def source(folders: dict[str, Path], kind: str) -> Path:
    return folders[kind].parent / f"{kind}.onnx"


def cosines(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    return (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_four_bits_leave_no_weight_in_fp32(folders, kind, tmp_path):
    """Weights that layers share must stand in the file once: a second of the same name is refused by onnxruntime."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    onnx_files.to_q4(source(folders, kind), tmp_path / "q4.onnx")
    assert (root.level, root.handlers) == (level, handlers), "onnxruntime's module sets logging up"
    assert products(source(folders, kind))
    assert not products(tmp_path / "q4.onnx")
    graph = onnx.load(tmp_path / "q4.onnx").graph
    tensors = [tensor.name for tensor in graph.initializer]
    assert len(tensors) == len(set(tensors))
    assert {attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "bits"} == {4}
    config = load(folders[kind])[0].model.config
    shape = (config.vocab_size, getattr(config, "embedding_size", config.hidden_size))
    assert onnx_files.table_bytes(tmp_path / "q4.onnx", shape) == np.prod(shape), "one byte a weight"
    encoder, expected = runtimes.OnnxEncoder(tmp_path / "q4.onnx", folders[kind]), load(folders[kind]).encode(TEXTS)
    assert cosines(encoder.encode(TEXTS), expected).min() > 0.9
    np.testing.assert_allclose(encoder.encode(TEXTS, 1), encoder.encode(TEXTS, 32), atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_openvino_gives_the_folders_vectors(folders, kind, tmp_path):
    file = tmp_path / "model.xml"
    openvino_files.to_openvino(source(folders, kind), file)
    encoder, model = runtimes.open_file(file, folders[kind]), load(folders[kind])
    assert isinstance(encoder, runtimes.OpenVinoEncoder)
    assert [port.get_any_name() for port in encoder.compiled.inputs] == ["input_ids", "attention_mask"]
    assert [port.get_any_name() for port in encoder.compiled.outputs] == ["last_hidden_state", "sentence_embedding"]
    expected = model.encode(TEXTS)
    for batch_size in (1, 3, 32):
        assert cosines(encoder.encode(TEXTS, batch_size), expected).min() > 1 - 1e-5
    for part in runtimes.parts(file):
        assert str(Path.home()).encode() not in part.read_bytes()
        assert str(tmp_path).encode() not in part.read_bytes()
    weights = file.with_suffix(".bin").stat().st_size
    assert weights < 0.6 * source(folders, kind).stat().st_size, "two bytes a weight"


@needs_openvino
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_static_int8_does_not_depend_on_the_batch(folders, kind, tmp_path, capsys):
    """A mask that only a padded batch has must not meet a scale that was set without one."""
    samples = [runtimes.OnnxEncoder(source(folders, kind), folders[kind]).tokens([text]) for text in sentences(40, 7)]
    file = tmp_path / "model.xml"
    openvino_files.to_openvino_int8(source(folders, kind), file, samples)
    assert capsys.readouterr().out == "", "the standard output is for results"
    assert "FakeQuantize" in file.read_text()
    encoder, expected = runtimes.open_file(file, folders[kind]), load(folders[kind]).encode(TEXTS)
    together = encoder.encode(TEXTS, 32)
    assert cosines(together, expected).min() > 0.9
    assert cosines(encoder.encode(TEXTS, 1), together).min() > 0.999
    config = load(folders[kind])[0].model.config
    shape = (config.vocab_size, getattr(config, "embedding_size", config.hidden_size))
    assert openvino_files.table_bytes(file, shape) == np.prod(shape), "one byte a weight"
    layers = config.num_hidden_layers * getattr(config, "inner_group_num", 1)
    taken = [node for node in import_silent("openvino").Core().read_model(file).get_ops() if reads_attention(node)]
    assert len(taken) == layers
    assert not any(port.get_node().get_type_name() == "FakeQuantize" for node in taken for port in node.input_values())


def reads_attention(node) -> bool:
    """Tell whether a node of OpenVINO's is the product of attention, Softmax(QK) or what a mask makes of it, and V."""
    above = [port.get_node() for port in node.input_values()]
    types = [parent.get_type_name() for one in above for parent in (one, *(p.get_node() for p in one.input_values()))]
    return node.get_type_name() == "MatMul" and "Softmax" in types


@needs_openvino
@needs_package
@pytest.mark.slow
def test_static_int8_keeps_short_and_long_texts(tmp_path):
    """Real weights: outliers that few sentences have, or attention spread over 512 tokens, cost 0.02 each otherwise."""
    save_folder(load_student("sentence-transformers/all-MiniLM-L6-v2", [0, 2, 5], normalize=True), tmp_path / "m")
    pairs = read_sts("sample")
    export.export(tmp_path / "m", pairs, ["openvino-int8"])
    sentences = [*pairs["sentence1"], *pairs["sentence2"]]
    texts = [*sentences, " ".join(sentences), f"{sentences[0]} " * 100]
    model = load(tmp_path / "m")
    assert cosines(runtimes.open_file(tmp_path / "m" / INT8, model).encode(texts), model.encode(texts)).min() > 0.99


LET_GO = """
import sys
from distilface.model.folder import load
from distilface.runtimes.encoders import open_file
model = load(sys.argv[2])
for _ in range(400):
    open_file(sys.argv[1], model, threads=2).encode(["the dog runs", "a cat", "red"] * 40)
print("done")
"""


@needs_openvino
@pytest.mark.slow
def test_a_file_can_be_let_go(folders, tmp_path):
    """An encoder that is no longer needed must not wait for its own threads for ever, as OpenVINO's queue may."""
    openvino_files.to_openvino(source(folders, "mean"), tmp_path / "model.xml")
    command = [sys.executable, "-c", LET_GO, str(tmp_path / "model.xml"), str(folders["mean"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout == "done\n"


@needs_openvino
def test_pairs_are_written_recorded_and_told(folder, text, capsys):
    found = export.export(folder, PAIRS_SET, ["openvino", "openvino-int8"], [text])
    assert names(folder / "openvino") == sorted(
        part.name for file in (OPENVINO, INT8) for part in runtimes.parts(Path(file))
    )
    record = json.loads((folder / "export.json").read_text())
    assert record["versions"]["openvino"]
    assert list(record["files"]) == [OPENVINO, INT8]
    for name, file in (("openvino", OPENVINO), ("openvino-int8", INT8)):
        assert record["files"][file]["megabytes"] == found[name].megabytes
        size = sum(part.stat().st_size for part in runtimes.parts(folder / file))
        assert found[name].megabytes == pytest.approx(size / 1e6, abs=0.01)
    lines = cli.run(["info", str(folder)])
    assert any(line.startswith(f"{INT8} (static int8): ") for line in lines)
    assert any("of it the embedding table" in line for line in lines if line.startswith(OPENVINO)) == bool(
        found["openvino"].table_megabytes
    )
    model = load(folder)
    embeddings = runtimes.open_file(folder / OPENVINO, folder).encode(TEXTS)
    assert cosines(embeddings, model.encode(TEXTS)).min() > 1 - 1e-5
    capsys.readouterr()


@needs_openvino
def test_a_refused_pair_leaves_neither_file(folder, monkeypatch):
    export.export(folder, PAIRS_SET, ["openvino"])
    assert names(folder / "openvino") == ["openvino_model.bin", "openvino_model.xml"]
    form = export.FORMATS["openvino"]

    def spoilt(made: Path, target: Path) -> None:
        model = onnx.load(made)
        table = max(model.graph.initializer, key=lambda tensor: tensor.ByteSize())
        rows = onnx.numpy_helper.to_array(table)[::-1]
        table.CopyFrom(onnx.numpy_helper.from_array(rows.copy(), table.name))
        onnx.save(model, made.with_name("spoilt.onnx"))
        form.make(made.with_name("spoilt.onnx"), target)

    monkeypatch.setitem(export.FORMATS, "openvino", dataclasses.replace(form, make=spoilt))
    assert export.export(folder, PAIRS_SET, ["openvino"])["openvino"].refused
    assert names(folder / "openvino") == []


@needs_openvino
def test_a_pair_cut_short_leaves_neither_file(folder, monkeypatch):
    """A description without its weights would load in no runtime, and one with older weights would lie."""
    export.export(folder, PAIRS_SET, ["openvino"])
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if Path(target).name == "openvino_model.xml":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        export.export(folder, PAIRS_SET, ["openvino"])
    assert names(folder / "openvino") == []
    assert names(folder.parent) == ["m", "made"], "nothing is left beside it"


def test_what_is_not_installed_is_left_out_unless_it_is_asked_for(folder, monkeypatch, capsys):
    missing = extras.Extra("OpenVINO files", ("no_such_runtime",), "openvino")
    for name, form in list(export.FORMATS.items()):
        if name.startswith("openvino"):
            monkeypatch.setitem(export.FORMATS, name, dataclasses.replace(form, extra=missing))
        elif name != "onnx":
            monkeypatch.delitem(export.FORMATS, name)
    with pytest.raises(
        InputError, match=r"^OpenVINO files need no_such_runtime; pip install 'distilface\[openvino\]'$"
    ):
        export.export(folder, PAIRS_SET, ["onnx", "openvino-int8"])
    assert not (folder / "onnx").exists(), "nothing is made before the mistake is said"
    assert list(export.export(folder, PAIRS_SET)) == ["onnx"]
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("left out")]
    assert told == [
        f"left out: {name}, which needs no_such_runtime (pip install 'distilface[openvino]')"
        for name in ("openvino", "openvino-int8")
    ]


def test_a_file_without_its_runtime_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(runtimes, "OPENVINO", extras.Extra("OpenVINO files", ("no_such_runtime",), "openvino"))
    with pytest.raises(InputError, match="OpenVINO files need no_such_runtime"):
        runtimes.open_file(tmp_path / "model.xml", tmp_path)


def test_a_file_is_a_sentence_transformer(folder):
    """What mteb scores: prompts before the text, the file's vectors, not the weights' beside it."""
    export.export(folder, PAIRS_SET, ["onnx"])
    model = FileModel(folder / "onnx" / "model.onnx", folder)
    expected = load(folder).encode(TEXTS, prompt="one two: ")
    np.testing.assert_allclose(model.encode(TEXTS, prompt="one two: "), expected, atol=1e-5)
    assert runtimes.megabytes(folder / "onnx" / "model.onnx") == pytest.approx(
        (folder / "onnx" / "model.onnx").stat().st_size / 1e6, abs=0.01
    )
    graph = onnx.load(folder / "onnx" / "model.onnx")
    table = max(graph.graph.initializer, key=lambda tensor: tensor.ByteSize())
    table.CopyFrom(onnx.numpy_helper.from_array(0.5 * onnx.numpy_helper.to_array(table), table.name))
    onnx.save(graph, folder / "onnx" / "other.onnx")
    other = FileModel(folder / "onnx" / "other.onnx", folder)
    assert np.abs(other.encode(TEXTS) - model.encode(TEXTS)).max() > 1e-3
    assert other.fingerprint != model.fingerprint
    assert FileModel(folder / "onnx" / "model.onnx", folder).fingerprint == model.fingerprint
    with pytest.raises(InputError, match=r"none\.onnx does not exist; make it first: distilface export"):
        FileModel(folder / "onnx" / "none.onnx", folder)


def test_the_scales_are_not_set_by_what_the_file_is_judged_on(folder, tmp_path):
    measured = [sentence for a, b, _ in PAIRS for sentence in (a, b)]
    (tmp_path / "some.txt").write_text("\n".join([*measured, "a tired horse under the tree"]) + "\n")
    model = load(folder)
    samples = export.calibration_samples(model, [str(tmp_path / "some.txt")], measured)
    assert [row["input_ids"].tolist() for row in samples] == [
        model.tokenizer(["a tired horse under the tree"])["input_ids"]
    ]
    (tmp_path / "same.txt").write_text("\n".join(measured) + "\n")
    with pytest.raises(InputError, match=r"all 20 sentences of --calibration .*same\.txt stand in the scored pairs"):
        export.calibration_samples(model, [str(tmp_path / "same.txt")], measured)


@needs_openvino
def test_nothing_is_sent_to_anyone(tmp_path):
    """OpenVINO and NNCF report their use from the first import on, and keep a client's number at home."""
    program = """
import logging, socket, sys
def connect(*args):
    raise AssertionError(f"a connection was opened: {args}")
socket.socket.connect = connect
from distilface.data.pairs import read_sts
from distilface.runtimes.extras import import_silent
openvino, nncf = import_silent("openvino"), import_silent("nncf")
from nncf.telemetry.wrapper import telemetry
from openvino.tools.ovc import telemetry_utils
print(type(telemetry).__name__, telemetry_utils.tm.__name__, logging.getLoggerClass().__name__)
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(tmp_path), "PATH": "", "PYTHONPATH": str(Path(runtimes.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["MagicMock openvino.tools.ovc.telemetry_stub Logger", "[]"]
    assert names(tmp_path) == [], "no client's number"


def test_the_record_keeps_what_passed_before_a_crash(folder, monkeypatch):
    def crash(made: Path, target: Path) -> None:
        raise RuntimeError("out of luck")

    form = export.FORMATS["fp16"]
    monkeypatch.setitem(export.FORMATS, "fp16", dataclasses.replace(form, make=crash))
    with pytest.raises(RuntimeError):
        export.export(folder, Dataset.from_list(list(PAIRS_SET)), ["onnx", "fp16"])
    assert list(export.read_record(Folder(folder))["files"]) == ["onnx/model.onnx"]
    assert names(folder / "onnx") == ["model.onnx"]
