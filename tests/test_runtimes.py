"""Every encoder by one protocol: a model in torch, exported files on their runtimes, and which of them is chosen."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import KINDS, PAIRS_SET, TEXTS, cosines
from forks import run_forked
from tiny import needs_package, sentences, tiny_model

from distilface import cli
from distilface.compression.student import load_student
from distilface.data.pairs import read_sts
from distilface.exporters import parity
from distilface.exporters.exporting import export
from distilface.exporters.formats import FORMATS
from distilface.exporters.openvino import to_openvino, to_openvino_int8
from distilface.extras import import_silent
from distilface.model.folder import load, save_folder
from distilface.model.identity import fingerprint
from distilface.runtimes import FILES, RUNTIMES, OpenVinoEncoder, TorchEncoder, extras, open_file
from distilface.runtimes.base import Encoder, padded, token_ids
from distilface.runtimes.files import pieces
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None or find_spec("nncf") is None, reason="needs openvino and nncf (the extra 'openvino')"
)
ONNX, OPENVINO, OPENVINO_INT8 = (FILES[name].path for name in ("onnx", "openvino", "openvino-int8"))


@pytest.fixture
def folder(tmp_path) -> Path:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    return tmp_path / "m"


def encoder_of(runtime: str, folder: Path, place: Path) -> Encoder:
    """Open a student on a runtime in fp32."""
    if runtime == "torch":
        return TorchEncoder(folder)
    if runtime == "onnx":
        return open_file(folder / ONNX, folder)
    (place / OPENVINO).parent.mkdir()
    to_openvino(folder / ONNX, place / OPENVINO)
    return open_file(place / OPENVINO, folder)


def assert_near(embeddings: np.ndarray, expected: np.ndarray, runtime: str) -> None:
    """Compare by cosine, and number by number but for OpenVINO, whose weights are stored in fp16."""
    assert cosines(embeddings, expected).min() > 1 - 1e-5
    if runtime != "openvino":
        np.testing.assert_allclose(embeddings, expected, atol=1e-5)


@pytest.mark.parametrize("runtime", ["torch", "onnx", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_runtime_gives_the_folders_vectors(students, kind, runtime, tmp_path):
    """In any batch, with a prompt and without."""
    encoder, model = encoder_of(runtime, students[kind], tmp_path), load(students[kind])
    assert (encoder.name, encoder.precision) == ({"onnx": ONNX, "openvino": OPENVINO}.get(runtime, "torch"), "fp32")
    expected = model.encode(TEXTS)
    for batch_size in (1, 3, 32):
        embeddings = encoder.encode(TEXTS, batch_size)
        assert (embeddings.dtype, embeddings.shape) == (np.float32, (len(TEXTS), encoder.dimension))
        assert_near(embeddings, expected, runtime)
    prompted = model.encode(TEXTS, prompt="one two: ")
    assert_near(encoder.encode(TEXTS, prompt="one two: "), prompted, runtime)
    assert cosines(expected, prompted).min() < 1 - 2e-5
    assert encoder.encode([]).shape == (0, encoder.dimension)


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=needs_openvino)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_passed_and_is_free_of_this_machine(students, kind, runtime, tmp_path):
    row = json.loads((students[kind] / "export.json").read_text())["files"][ONNX]
    assert row["min_cosine"] >= 1 - 1e-5
    assert row["refused"] is None
    assert [file.name for file in (students[kind] / "onnx").iterdir()] == ["model.onnx"], "its weights are inside"
    package = Path(parity.__file__).parent
    for piece in pieces(encoder_of(runtime, students[kind], tmp_path).file):
        for place in (Path.home(), tmp_path, students[kind].parent, package, "site-packages"):
            assert str(place).encode() not in piece.read_bytes()


@pytest.mark.parametrize("kind", ["mean", "last4", "albert"])
def test_a_runtime_that_pools_meets_the_same_embedding(students, kind):
    """transformers.js, fastembed and TEI read the token vectors; last4's are a mean of layers, not the last one's."""
    model = load(students[kind])
    session = onnxruntime.InferenceSession(students[kind] / ONNX, providers=["CPUExecutionProvider"])
    assert [port.name for port in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [port.name for port in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    tokens = model.tokenizer(TEXTS[:7], padding=True, return_tensors="np")
    states, embeddings = session.run(None, {name: tokens[name] for name in ("input_ids", "attention_mask")})
    mask = tokens["attention_mask"][:, :, None]
    pooled = (states * mask).sum(1) / mask.sum(1)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pooled, embeddings)]
    np.testing.assert_allclose(unit[0], unit[1], atol=1e-5)


@needs_openvino
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_openvino_reads_and_gives_the_same(students, kind, tmp_path):
    encoder = encoder_of("openvino", students[kind], tmp_path)
    assert isinstance(encoder, OpenVinoEncoder)
    assert [port.get_any_name() for port in encoder.session._compiled(1).inputs] == ["input_ids", "attention_mask"]
    assert [port.get_any_name() for port in encoder.session._compiled(1).outputs] == [
        "last_hidden_state",
        "sentence_embedding",
    ]
    weights = encoder.file.with_suffix(".bin").stat().st_size
    assert weights < 0.6 * (students[kind] / ONNX).stat().st_size, "two bytes a weight"


@needs_openvino
@pytest.mark.parametrize("kind", ["mean", "albert"])
def test_static_int8_does_not_depend_on_the_batch(students, kind, tmp_path, capsys):
    """A mask that only a padded batch has must not meet a scale that was set without one."""
    model, file = load(students[kind]), tmp_path / "model.xml"
    to_openvino_int8(
        students[kind] / ONNX, file, [padded(model, [row]) for row in token_ids(model, sentences(40, seed=7))]
    )
    assert capsys.readouterr().out == "", "the standard output is for results"
    assert "FakeQuantize" in file.read_text()
    encoder = open_file(file, model)
    together = encoder.encode(TEXTS, 32)
    assert cosines(together, model.encode(TEXTS)).min() > 0.9
    assert cosines(encoder.encode(TEXTS, 1), together).min() > 0.999
    config = model[0].model.config
    shape = (config.vocab_size, getattr(config, "embedding_size", config.hidden_size))
    assert encoder.table_bytes(shape) == np.prod(shape), "one byte a weight"
    layers = config.num_hidden_layers * getattr(config, "inner_group_num", 1)
    products = [node for node in import_silent("openvino").Core().read_model(file).get_ops() if reads_attention(node)]
    assert len(products) == layers
    types = {port.get_node().get_type_name() for node in products for port in node.input_values()}
    assert "FakeQuantize" not in types


def reads_attention(node) -> bool:
    """Say whether a node of OpenVINO's is the product of attention, Softmax(QK) or what a mask makes of it, and V."""
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
    export(tmp_path / "m", pairs, ["openvino-int8"])
    single = [*pairs["sentence1"], *pairs["sentence2"]]
    texts = [*single, " ".join(single), f"{single[0]} " * 100]
    model = load(tmp_path / "m")
    assert cosines(open_file(tmp_path / "m" / OPENVINO_INT8, model).encode(texts), model.encode(texts)).min() > 0.99


LET_GO = """
import sys
from distilface.model.folder import load
from distilface.runtimes import open_file
model = load(sys.argv[2])
for _ in range(400):
    open_file(sys.argv[1], model, threads=2).encode(["the dog runs", "a cat", "red"] * 40)
print("done")
"""


@needs_openvino
@pytest.mark.slow
def test_a_file_can_be_let_go(students, tmp_path):
    """An encoder that is no longer needed must not wait for its own threads for ever, as OpenVINO's queue may."""
    to_openvino(students["mean"] / ONNX, tmp_path / "model.xml")
    command = [sys.executable, "-c", LET_GO, str(tmp_path / "model.xml"), str(students["mean"])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=200)
    assert done.stdout == "done\n"


def test_a_fingerprint_is_that_of_the_embeddings(students, tmp_path):
    """Silent otherwise: mteb finds a result again by it, and would serve one file the score of another."""
    folder = shutil.copytree(students["mean"], tmp_path / "copy")
    model, file = load(folder), folder / ONNX
    graph = onnx.load(file)
    table = max(graph.graph.initializer, key=lambda tensor: tensor.ByteSize())
    table.CopyFrom(onnx.numpy_helper.from_array(0.5 * onnx.numpy_helper.to_array(table), table.name))
    onnx.save(graph, folder / "onnx" / "other.onnx")
    one, other = open_file(file, folder), open_file(folder / "onnx" / "other.onnx", folder)
    assert np.abs(one.encode(TEXTS) - other.encode(TEXTS)).max() > 1e-3
    again = open_file(students["mean"] / ONNX, students["mean"])
    again.encode(TEXTS)
    assert again.fingerprint == one.fingerprint
    torch32, torch16 = TorchEncoder(model), TorchEncoder(model, "bf16")
    assert torch32.fingerprint == fingerprint(model)
    model.prompts = {"STS12": "the same: "}
    prompted = open_file(file, model)
    all_five = {each.fingerprint for each in (one, other, prompted, torch32, torch16)}
    assert len(all_five) == 5
    assert one.megabytes == pytest.approx(file.stat().st_size / 1e6, abs=0.01)


def test_a_file_that_cannot_be_opened_is_a_sentence(folder, monkeypatch):
    with pytest.raises(InputError, match=r"none\.onnx does not exist; make it first: distilface export"):
        open_file(folder / "onnx" / "none.onnx", folder)
    with pytest.raises(InputError, match=r"model\.safetensors is not an exported file; .* \.onnx or \.xml$"):
        open_file(folder / "model.safetensors", folder)
    monkeypatch.setattr(OpenVinoEncoder, "extra", extras.Extra("OpenVINO files", ("no_such_runtime",), "openvino"))
    with pytest.raises(InputError, match="OpenVINO files need no_such_runtime"):
        open_file(folder / "model.xml", folder)
    (folder / "texts.txt").write_text("a dog\n")
    words = ["encode", str(folder), str(folder / "texts.txt"), str(folder / "v.npy"), "--variant", "openvino"]
    with pytest.raises(InputError, match="OpenVINO files need no_such_runtime"):
        cli.run(words)


def test_each_format_has_a_file_and_a_runtime():
    assert set(FORMATS) == set(FILES)
    assert {Path(file.path).suffix for file in FILES.values()} == set(RUNTIMES)


# ---- encode by OpenVINO


@needs_openvino
def test_encode_by_openvino(folder, tmp_path, monkeypatch):
    """The same bytes each time, by the file that was asked for; not by one of other weights, nor by half a pair."""
    monkeypatch.setattr(parity, "LOSS", 200.0)  # a random model's scores mean nothing
    text = tmp_path / "texts.txt"
    text.write_text("".join(f"{line}\n" for line in ("", *TEXTS)))

    def run(*words: str) -> bytes:
        cli.run(["encode", str(folder), str(text), str(tmp_path / "v.npy"), "--overwrite", "--threads", "2", *words])
        return (tmp_path / "v.npy").read_bytes()

    for variant in ("openvino", "openvino-int8"):
        with pytest.raises(InputError, match=f"m has no {variant} export of its weights; make .*--formats {variant}$"):
            run("--variant", variant)
    export(folder, PAIRS_SET, ["openvino", "openvino-int8"], [str(text)])
    expected = load(folder).encode(TEXTS)
    outputs = {}
    for variant, least in (("openvino", 1 - 1e-5), ("openvino-int8", 0.9)):
        outputs[variant] = run("--variant", variant)
        embeddings = np.load(tmp_path / "v.npy")
        assert not embeddings[0].any()
        assert np.array_equal(embeddings[1:], open_file(folder / FILES[variant].path, folder).encode(TEXTS))
        assert cosines(embeddings[1:], expected).min() > least
        assert run("--variant", variant) == outputs[variant]
    assert outputs["openvino"] != outputs["openvino-int8"]
    with pytest.raises(InputError, match="openvino runs on the CPU, not on cuda; leave --device out, or choose bf16"):
        run("--variant", "openvino", "--device", "cuda")
    (folder / OPENVINO).with_suffix(".bin").unlink()
    with pytest.raises(InputError, match="has no openvino export of its weights"):
        run("--variant", "openvino")
    report = json.loads((folder / "export.json").read_text())
    (folder / "export.json").write_text(json.dumps(report | {"fingerprint": "of other weights"}))
    with pytest.raises(InputError, match="has no openvino-int8 export of its weights"):
        run("--variant", "openvino-int8")


@needs_openvino
def test_nothing_is_sent_to_anyone(tmp_path):
    """OpenVINO and NNCF report their use from the first import on, and keep a client's number at home."""
    program = """
import logging, socket, sys
def connect(*args):
    raise AssertionError(f"a connection was opened: {args}")
socket.socket.connect = connect
from distilface.data.pairs import read_sts
from distilface.extras import import_silent
from distilface.runtimes.files import pieces
openvino, nncf = import_silent("openvino"), import_silent("nncf")
from nncf.telemetry.wrapper import telemetry
from openvino.tools.ovc import telemetry_utils
print(type(telemetry).__name__, telemetry_utils.tm.__name__, logging.getLoggerClass().__name__)
print([name for name in sys.modules if name.startswith("openvino_telemetry")])
"""
    done = run_forked(program, env={"HOME": str(tmp_path), "PATH": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["MagicMock openvino.tools.ovc.telemetry_stub Logger", "[]"]
    assert not any(tmp_path.iterdir()), "no client's number"
