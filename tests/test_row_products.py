"""Products in int8 by rows: against numpy in double precision, on a graph of our own and on a shipped model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import cosines
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf
from tiny import sentences

from distilface.light import LightEncoder, ways
from distilface.light.row_products import multiply_by_rows, smoothing, to_int8, widest_here
from distilface.light.session import OUTPUT, open_session

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
DRAW = np.random.default_rng(0)
WIDTH, INNER = 24, 40


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Keep what is rewritten in a folder of the test's own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))


def _weights() -> dict[str, np.ndarray]:
    """Return a table with a column that is much larger than others, and three weights with two biases."""
    shapes = {"table": (50, WIDTH), "one": (WIDTH, INNER), "other": (WIDTH, INNER), "last": (INNER, 8)}
    found = {name: DRAW.normal(size=shape) for name, shape in shapes.items()}
    found["table"][:, 3] *= 30
    found |= {"one_bias": DRAW.normal(size=INNER), "other_bias": DRAW.normal(size=INNER)}
    return {name: array.astype(np.float32) for name, array in found.items()}


WEIGHTS = _weights()


def _graph(file: Path, table: str = "input_ids") -> Path:
    """Write a graph of two products of the same rows with biases, and one of a GELU without."""
    nodes = [
        helper.make_node("Gather", ["table", table], ["rows"]),
        helper.make_node("MatMul", ["rows", "one"], ["one_product"]),
        helper.make_node("Add", ["one_product", "one_bias"], ["one_sum"]),
        helper.make_node("MatMul", ["rows", "other"], ["other_product"]),
        helper.make_node("Add", ["other_bias", "other_product"], ["other_sum"]),
        helper.make_node("Add", ["one_sum", "other_sum"], ["sum"]),
        helper.make_node("Gelu", ["sum"], ["bent"]),
        helper.make_node("MatMul", ["bent", "last"], ["vectors"]),
        helper.make_node("ReduceMean", ["vectors", "middle"], [OUTPUT], keepdims=0),
    ]
    if table != "input_ids":
        nodes.insert(0, helper.make_node("Identity", ["input_ids"], [table]))
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["texts", 8])
    constants = [*WEIGHTS.items(), ("middle", np.array([1]))]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(nodes, "graph", [ids], [output], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


def _gelu(rows: np.ndarray) -> np.ndarray:
    return rows * (1 + erf(rows / np.sqrt(2))) / 2


def _exact(ids: np.ndarray) -> np.ndarray:
    exact = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    rows = exact["table"][ids]
    summed = rows @ exact["one"] + exact["one_bias"] + rows @ exact["other"] + exact["other_bias"]
    return (_gelu(summed) @ exact["last"]).mean(axis=1)


def _run(file: Path, ids: np.ndarray) -> np.ndarray:
    return next(open_session(file, 1)[0].run([{"input_ids": ids}]))


def _miss(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return the graph, rewritten."""
    place = tmp_path_factory.mktemp("by_rows")
    multiply_by_rows(_graph(place / "exact.onnx"), place / "by_rows.onnx")
    return place / "by_rows.onnx"


def test_the_numbers_are_those_of_the_products(written):
    ids = DRAW.integers(0, 50, (30, 7))
    miss = _miss(_run(written, ids), _exact(ids))
    assert 1e-5 < miss < 0.01
    assert _miss(_run(written.with_name("exact.onnx"), ids), _exact(ids)) < 1e-5


def test_products_of_the_same_rows_are_one(written):
    kinds = [node.op_type for node in onnx.load(written).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert kinds.count("QuantizeLinear") == 2
    assert "MatMul" not in kinds
    assert kinds.count("Split") == 1
    names = {tensor.name for tensor in onnx.load(written).graph.initializer}
    assert not names & {"one", "other", "last"}, "no weight stands in it twice"


def test_a_text_has_one_vector_in_every_batch(written):
    ids = DRAW.integers(0, 50, (30, 7))
    alone = np.concatenate([_run(written, row[None]) for row in ids])
    np.testing.assert_allclose(_run(written, ids), alone, rtol=1e-5, atol=1e-3)


def test_rows_of_zeros_give_the_bias_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "table", np.zeros_like(WEIGHTS["table"]))
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx")
    ids = np.zeros((2, 3), int)
    assert _miss(_run(tmp_path / "by_rows.onnx", ids), _exact(ids)) < 0.02


def test_a_large_column_goes_to_the_weights():
    """Its numbers set the scale of the whole row: of all the others two or three steps would be left."""
    rows, weight = WEIGHTS["table"].astype(np.float64), WEIGHTS["one"].astype(np.float64)
    shares = smoothing(rows, weight)
    assert shares.argmax() == 3
    assert np.exp(np.log(shares).mean()) == pytest.approx(1, rel=1e-5)

    def miss(moved):
        shown, size = rows / moved, np.abs(rows / moved).max(axis=1, keepdims=True) / 127
        codes, steps = to_int8(weight * moved[:, None])
        return _miss(np.round(shown / size) * size @ (codes * steps), rows @ weight)

    assert miss(shares) < 0.8 * miss(np.ones(WIDTH))
    assert smoothing(DRAW.normal(size=(500, WIDTH)), weight) is None, "where all are alike it does not pay"


@pytest.mark.parametrize("widest", [127, 63])
def test_codes_are_the_nearest(widest):
    weight = DRAW.normal(size=(20, 6))
    codes, steps = to_int8(weight, widest)
    np.testing.assert_allclose(steps, np.abs(weight).max(axis=0) / widest, rtol=1e-6)
    assert np.abs(codes).max(axis=0).tolist() == [widest] * 6
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    assert not to_int8(np.zeros((3, 2)))[0].any()


@pytest.mark.parametrize(
    ("architecture", "instructions", "widest"),
    [
        ("x86_64", "Intel (avx2, avx512f, avx512_vnni)", 127),
        ("x86_64", "Intel (avx2, avx_vnni)", 127),
        ("AMD64", "AMD EPYC (avx2)", 63),
        ("aarch64", "Neoverse", 127),
    ],
)
def test_sums_in_16_bits_are_of_narrow_weights(architecture, instructions, widest):
    """The instruction of AVX2 cuts off what two products have beyond 32,767, without a word."""
    assert widest_here(architecture, instructions) == widest
    assert 2 * 255 * 63 < 2**15 <= 2 * 255 * 127


def test_narrow_weights_are_in_the_file(tmp_path):
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", 63)
    graph = onnx.load(tmp_path / "by_rows.onnx").graph
    codes = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.INT8]
    assert [int(np.abs(each).max()) for each in codes] == [63, 63]
    ids = DRAW.integers(0, 50, (30, 7))
    assert _miss(_run(tmp_path / "by_rows.onnx", ids), _exact(ids)) < 0.02


def test_a_file_without_a_table_is_not_rewritten(tmp_path):
    with pytest.raises(ValueError, match="no table is looked up by input_ids"):
        multiply_by_rows(_graph(tmp_path / "exact.onnx", "copied"), tmp_path / "by_rows.onnx")
    assert not (tmp_path / "by_rows.onnx").exists()


@pytest.mark.parametrize("name", ["minilm-5mb", "minilm-2mb"])
def test_the_shipped_models_by_rows(name):
    folder = Path("models") / name
    small, way = LightEncoder(folder), ways.ways_of(folder)["q4 in int8 by rows"]
    encoder, texts = small.running(way, 1), sentences(40)
    together, alone = encoder.encode(texts), np.stack([encoder.encode(text) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert cosines(together, small.encode(texts)).min() >= 0.999
    assert np.abs(together - small.encode(texts)).max() > 1e-4
    kinds = [node.op_type for node in onnx.load(way.path()).graph.node]
    layers = {"minilm-5mb": 4, "minilm-2mb": 1}[name]
    assert kinds.count("MatMulIntegerToFloat") == 4 * layers, "queries, keys and values are one"
    assert "MatMulNBits" not in kinds


def test_one_thread_is_on_onnxruntime_alone():
    file = Path("model_q4.onnx")
    found = ways.on_one_thread({"q4": ways.Way(file), "o": ways.Way(file, openvino="f32")})
    assert list(found) == ["q4 on one thread"]
    assert (found["q4 on one thread"].alone, found["q4 on one thread"].words) == (True, "on one thread")
