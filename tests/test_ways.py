"""The ways to run a folder: its small file in fp32, and on OpenVINO, with the vectors of the small file."""

import hashlib
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import TEXTS, cosines
from tiny import sentences, tiny_model
from torch import nn

import distilface
from distilface.compression.bits import Rounding, rounded_modules
from distilface.exporters.four_bits import to_q4
from distilface.exporters.onnx import to_onnx
from distilface.light import LightEncoder, expanding, fastest, openvino, ways
from distilface.light.openvino import OpenVinoSession, multiplies_bf16
from distilface.model.folder import load, save_folder
from distilface.model.precision import has_bf16
from distilface.runtimes.onnx import OnnxEncoder
from distilface.settings import InputError

#: Opens a file, has another thread let it go, writes over the memory that is free, and presses Ctrl-C.
LET_GO = """
import gc, signal, sys, threading
from distilface.light.openvino import OpenVinoSession

signal.signal(signal.SIGINT, signal.default_int_handler)
sessions = [OpenVinoSession(sys.argv[1], 1)]
closing = threading.Thread(target=lambda: (sessions.clear(), gc.collect()))
closing.start()
closing.join()
others = [bytearray(20_000) for _ in range(1000)]
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")


@pytest.fixture(scope="module", params=[(4, 4), (2, 2)], ids=["4 bits", "2 bits"])
def on_grid(request, tmp_path_factory):
    """Return a folder whose weights are on a grid, with its small file."""
    place = tmp_path_factory.mktemp("on_grid")
    model = tiny_model(place / "model").eval()
    Rounding(model, *request.param).write()
    save_folder(model, place / "folder")
    (place / "folder" / "onnx").mkdir()
    to_onnx(load(place / "folder"), place / "m.onnx")
    to_q4(place / "m.onnx", place / "folder" / "onnx" / "model_q4.onnx")
    return place / "folder"


@pytest.fixture
def small(on_grid, tmp_path):
    """Return a copy of the small file."""
    return Path(shutil.copy(on_grid / "onnx" / "model_q4.onnx", tmp_path / "model_q4.onnx"))


def other_content(file: Path, producer: str) -> None:
    model = onnx.load(file)
    model.producer_name = producer
    onnx.save(model, file)


def test_a_small_file_is_expanded_to_the_weights_it_stands_for(on_grid, tmp_path):
    """Each weight of the folder stands in it, number for number: the folder's own are on the grid."""
    expanding.expand(on_grid / "onnx" / "model_q4.onnx", tmp_path / "fp32.onnx")
    graph = onnx.load(tmp_path / "fp32.onnx").graph
    stored = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer]
    own = [
        module.weight.detach().numpy().T if isinstance(module, nn.Linear) else module.weight.detach().numpy()
        for module, _ in rounded_modules(load(on_grid))
    ]
    assert len(own) > 10
    for weight in own:
        assert any(weight.shape == each.shape and np.allclose(weight, each, atol=2e-7) for each in stored)
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {"MatMulNBits", "GatherBlockQuantized", "BitShift"}
    copied = shutil.copytree(on_grid, tmp_path / "copied")
    (tmp_path / "fp32.onnx").replace(copied / "onnx" / "model.onnx")
    texts = sentences(20)
    difference = LightEncoder(copied, "onnx").encode(texts) - LightEncoder(copied, "q4").encode(texts)
    assert np.abs(difference).max() < 2e-6


@pytest.mark.parametrize("name", ["minilm-5mb", "minilm-2mb", "minilm-static"])
def test_the_shipped_files_are_expanded(name, tmp_path):
    folder = Path("models") / name
    way = ways.ways_of(folder)["q4 in fp32"]
    small = LightEncoder(folder)
    plain = small.running(way, 1)
    assert np.abs(plain.encode(TEXTS) - small.encode(TEXTS)).max() < 1e-5
    assert plain.megabytes == small.megabytes < 7, "what was downloaded, not what is kept beside it"


def test_products_in_int8_give_a_text_one_vector(tmp_path):
    """Near to those of the file, but not the same: the numbers that go in are rounded, each text's by itself."""
    small = LightEncoder("models/minilm-5mb")
    way = ways.ways_of(Path("models/minilm-5mb"))["q4 in int8"]
    encoder, texts = small.running(way, 1), sentences(40)
    products = [node for node in onnx.load(way.path()).graph.node if node.op_type == "MatMulNBits"]
    levels = [attribute.i for node in products for attribute in node.attribute if attribute.name == "accuracy_level"]
    assert levels == [4] * 24
    together, alone = encoder.encode(texts), np.stack([encoder.encode(text) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert cosines(together, small.encode(texts)).min() >= 0.999
    assert np.abs(together - small.encode(texts)).max() > 1e-4
    assert "q4 in int8" not in ways.ways_of(Path("models/minilm-static")), "it has no products"


def test_an_expansion_is_kept_whole_or_not_at_all(small, own_home, monkeypatch):
    made = []
    expand = expanding.expand
    monkeypatch.setattr(expanding, "expand", lambda *files: made.append(files) or expand(*files))
    first = expanding.kept(small, own_home, expanding.expand)
    assert expanding.kept(small, own_home, expanding.expand) == first
    assert len(made) == 1
    other_content(small, "another file has another")
    assert expanding.kept(small, own_home, expanding.expand) != first
    before = sorted(own_home.glob("*.onnx*"))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    other_content(small, "a full disk")
    with pytest.raises(OSError, match="No space left"):
        expanding.kept(small, own_home, expanding.expand)
    assert sorted(own_home.glob("*.onnx*")) == before


def test_openvino_gives_batches_in_their_order(on_grid, tmp_path):
    """More batches than run at once, each of another length: an output that another batch overwrites would show."""
    expanding.expand(on_grid / "onnx" / "model_q4.onnx", tmp_path / "fp32.onnx")
    encoder = LightEncoder(on_grid)
    texts = [" ".join(["dog", "cat", "river"][: 1 + number % 3] * (1 + number)) for number in range(17)]
    batches = [encoder._tokens.padded(encoder._tokens.ids([text])) for text in texts]
    session = OpenVinoSession(tmp_path / "fp32.onnx", 2)
    for _ in range(2):
        assert cosines(np.concatenate(list(session.run(batches))), encoder.encode(texts)).min() > 0.99999
    assert list(session.run([])) == []
    assert session.width == encoder.dimension


def test_long_batches_have_a_model_of_their_own(on_grid, tmp_path, monkeypatch):
    """It is compiled when the first of them comes; short and long ones, mixed, come back in their order."""
    monkeypatch.setattr(openvino, "LONG", 10)
    expanding.expand(on_grid / "onnx" / "model_q4.onnx", tmp_path / "fp32.onnx")
    encoder, session = LightEncoder(on_grid), OpenVinoSession(tmp_path / "fp32.onnx", 2)
    texts = [" ".join(["dog", "cat", "river", "red"][: 1 + number % 4] * (1 + number)) for number in range(14)]
    batches = [encoder._tokens.padded(encoder._tokens.ids([text])) for text in texts]
    lengths = [batch["input_ids"].shape[1] for batch in batches]
    short = [number for number, length in enumerate(lengths) if length < 10]
    assert 0 < len(short) < len(texts)
    list(session.run([batches[number] for number in short]))
    assert [*session._models] == [False]
    assert cosines(np.concatenate(list(session.run(batches))), encoder.encode(texts)).min() > 0.99999
    assert sorted(session._models) == [False, True]


def test_a_signal_is_handled_after_a_session_was_let_go(on_grid, tmp_path):
    """OpenVINO gives the thread a stack for signals, which must not be freed from under it by another thread."""
    expanding.expand(on_grid / "onnx" / "model_q4.onnx", tmp_path / "fp32.onnx")
    done = subprocess.run(
        [sys.executable, "-c", LET_GO, str(tmp_path / "fp32.onnx")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


def test_bf16_is_used_where_the_processor_has_it():
    """OpenVINO and torch look for it each in its own way."""
    assert multiplies_bf16() == has_bf16()


def test_all_ways_are_measured_and_the_fastest_is_taken(on_grid, monkeypatch):
    by_rows, measured = ways.BY_ROWS[ways.sums_fit()], {}

    def measure(encoders, one_by_one):
        vectors = [encode(fastest.TEXTS) for encode in encoders.values()]
        measured.update(dict.fromkeys(encoders, 1.0))
        assert all(cosines(one, other).min() > 0.999 for one, other in pairwise(vectors))
        return fastest.Choice("q4 in fp32 on OpenVINO", measured, "a processor")

    monkeypatch.setattr(fastest, "measure", measure)
    auto, texts = distilface.load(on_grid, runtime="auto"), sentences(50)
    assert set(measured) >= {"q4", "q4 in int8", f"q4 in {by_rows}", "q4 in fp32", "q4 in fp32 on OpenVINO"}
    assert ("q4 in fp32 on OpenVINO in bf16" in measured) == multiplies_bf16()
    assert isinstance(auto._session, OpenVinoSession)
    assert cosines(auto.encode(texts), LightEncoder(on_grid).encode(texts)).min() > 0.99999
    assert auto.encode(texts[0]).shape == (auto.dimension,)
    assert auto.encode([]).shape == (0, auto.dimension)
    measured.clear()
    distilface.load(on_grid, runtime="auto")
    assert not measured, "it is remembered"


def test_a_way_with_other_vectors_is_not_measured(on_grid, monkeypatch):
    """OpenVINO reads products of 4 bits as other numbers, without a word."""
    others = {
        "q4": ways.Way(on_grid / "onnx" / "model_q4.onnx"),
        "same file": ways.Way(on_grid / "onnx" / "model_q4.onnx"),
    }
    monkeypatch.setattr("distilface.light.encoder.ways_of", lambda folder: others)
    monkeypatch.setattr("distilface.light.fastest.agree", lambda one, same: one is same)
    measured = []

    def measure(encoders, one_by_one):
        measured.extend(encoders)
        return fastest.Choice("q4", {"q4": 1.0}, "a processor")

    monkeypatch.setattr(fastest, "measure", measure)
    distilface.load(on_grid, runtime="auto")
    assert measured == ["q4"]


def test_a_way_that_cannot_be_opened_is_not_one(on_grid, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(expanding, "expand", full)
    caplog.set_level("INFO")
    auto = distilface.load(on_grid, runtime="auto")
    assert auto.file.name == "model_q4.onnx"
    assert "cannot be run as q4 in fp32: [Errno 28] No space left on device" in caplog.text
    (on_grid / "onnx" / "model_q4.onnx").rename(on_grid / "onnx" / "whole")
    (on_grid / "onnx" / "model_q4.onnx").write_bytes(b"damaged")
    try:
        with pytest.raises(InputError, match="cannot be opened"):
            distilface.load(on_grid, runtime="auto")
    finally:
        (on_grid / "onnx" / "whole").replace(on_grid / "onnx" / "model_q4.onnx")


def test_without_the_packages_there_is_the_file_alone(on_grid, monkeypatch):
    monkeypatch.setattr(ways, "find_spec", lambda package: None)
    monkeypatch.setattr(ways, "sums_fit", lambda: True)
    assert list(ways.ways_of(on_grid)) == ["q4"]
    monkeypatch.setattr(ways, "find_spec", lambda package: package == "onnx" or None)
    assert list(ways.ways_of(on_grid)) == ["q4", "q4 in int8 by rows", "q4 in int8", "q4 in fp32"]


@pytest.mark.parametrize(
    ("architecture", "processor", "fit"),
    [
        ("x86_64", "Intel (avx2, avx512f, avx512_vnni)", True),
        ("x86_64", "Intel (avx2, avx_vnni)", True),
        ("AMD64", "AMD EPYC (avx2)", False),
        ("aarch64", "Neoverse", True),
    ],
)
def test_sums_in_16_bits_are_of_paired_weights(on_grid, monkeypatch, architecture, processor, fit):
    """The instruction of AVX2 cuts off what two products have beyond 32,767, without a word."""
    monkeypatch.setattr("platform.machine", lambda: architecture)
    monkeypatch.setattr("distilface.environment.processor", lambda: processor)
    assert ways.sums_fit() == fit
    by_rows = [name for name in ways.ways_of(on_grid) if name.endswith("by rows")]
    assert by_rows == (["q4 in int8 by rows"] if fit else ["q4 in paired int8 by rows"])


def test_one_thread_is_one_on_onnxruntime(on_grid):
    found = ways.on_one_thread(ways.ways_of(on_grid))
    assert all(way.openvino is None for way in found.values())
    way = found["q4 on one thread"]
    assert way.words == "on one thread"
    session, _ = way.open(2)
    assert session._session.get_session_options().intra_op_num_threads == 1
    assert OnnxEncoder(way, on_grid, 2).threads == 1


@pytest.mark.parametrize(("angle", "same"), [(0.06, True), (0.065, False)])
def test_vectors_agree_to_a_cosine_of_0_998(angle, same):
    one = np.array([[2.0, 0.0], [0.0, 1.0]])
    other = np.array([[3.0, 0.0], [np.sin(angle), np.cos(angle)]])
    assert ways.agree(one, other) == same


def test_what_an_earlier_version_made_of_a_file_goes(tmp_path):
    """It is megabytes that nothing reads again; what is of other files stays."""
    file, home = tmp_path / "model.onnx", tmp_path / "home"
    file.write_bytes(b"a model")
    name = hashlib.sha256(b"a model").hexdigest()[:32]
    home.mkdir()
    for older in (f"{name}-1.onnx", f"{name}-1.lock", f"{name}-{expanding.VERSION - 1}.onnx", "another-1.onnx"):
        (home / older).touch()
    written = expanding.kept(file, home, lambda source, target: target.write_bytes(source.read_bytes()))
    assert written.read_bytes() == b"a model"
    assert {each.name for each in home.glob("*.onnx")} == {written.name, "another-1.onnx"}
    assert not (home / f"{name}-1.lock").exists()
