"""Products in int8 by rows: against numpy in double precision, on a graph of our own and on a shipped model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import cosines
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf
from tiny import sentences

from distilface.light import LightEncoder, ways
from distilface.light.row_products import multiply_by_rows
from distilface.light.session import OUTPUT, open_session
from distilface.light.whole_numbers import smoothing, to_int8

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")
WIDTH, INNER = 24, 40


def _weights() -> dict[str, np.ndarray]:
    """Return a table with a column that is much larger than others, and three weights with two biases."""
    draw = np.random.default_rng(0)
    shapes = {"table": (50, WIDTH), "one": (WIDTH, INNER), "other": (WIDTH, INNER), "last": (INNER, 8)}
    found = {name: draw.normal(size=shape) for name, shape in shapes.items()}
    found["table"][:, 3] *= 30
    found |= {"one_bias": draw.normal(size=INNER), "other_bias": draw.normal(size=INNER)}
    return {name: array.astype(np.float32) for name, array in found.items()}


WEIGHTS = _weights()
IDS = np.random.default_rng(1).integers(0, 50, (30, 7))


def _graph(file: Path, table: str = "input_ids", opset: int = 20, shown: Sequence[str] = ()) -> Path:
    """Write a graph of two products of the same rows with biases, and one of a GELU without; some tensors are shown."""
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
    others = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in shown]
    graph = helper.make_graph(nodes, "graph", [ids], [output, *others], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), file)
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
    miss = _miss(_run(written, IDS), _exact(IDS))
    assert 1e-5 < miss < 0.01
    assert _miss(_run(written.with_name("exact.onnx"), IDS), _exact(IDS)) < 1e-5


def test_products_of_the_same_rows_are_one(written):
    kinds = [node.op_type for node in onnx.load(written).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert kinds.count("QuantizeLinear") == 2
    assert "MatMul" not in kinds
    assert kinds.count("Split") == 1
    names = {tensor.name for tensor in onnx.load(written).graph.initializer}
    assert not names & {"one", "other", "last"}, "no weight stands in it twice"


def test_a_text_has_one_vector_in_every_batch(written):
    alone = np.concatenate([_run(written, row[None]) for row in IDS])
    np.testing.assert_allclose(_run(written, IDS), alone, rtol=1e-5, atol=1e-3)


def test_rows_of_zeros_give_the_bias_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "table", np.zeros_like(WEIGHTS["table"]))
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx")
    ids = np.zeros((2, 3), int)
    assert _miss(_run(tmp_path / "by_rows.onnx", ids), _exact(ids)) < 0.02


def test_a_large_column_goes_to_the_weights():
    """Its numbers set the scale of the whole row: of all the others two or three steps would be left."""
    draw = np.random.default_rng(2)
    rows, weight = WEIGHTS["table"].astype(np.float64), WEIGHTS["one"].astype(np.float64)
    shares = smoothing(rows, weight)
    assert shares.argmax() == 3
    assert np.exp(np.log(shares).mean()) == pytest.approx(1, rel=1e-5)

    def miss(moved):
        shown, size = rows / moved, np.abs(rows / moved).max(axis=1, keepdims=True) / 127
        codes, steps = to_int8(weight * moved[:, None])
        return _miss(np.round(shown / size) * size @ (codes * steps), rows @ weight)

    assert miss(shares) < 0.8 * miss(np.ones(WIDTH))
    assert smoothing(draw.normal(size=(500, WIDTH)), weight) is None, "where all are alike it does not pay"


@pytest.mark.parametrize("widest", [127, 63])
def test_codes_are_the_nearest(widest):
    weight = np.random.default_rng(3).normal(size=(20, 6))
    codes, steps = to_int8(weight, widest)
    np.testing.assert_allclose(steps, np.abs(weight).max(axis=0) / widest, rtol=1e-6)
    assert np.abs(codes).max(axis=0).tolist() == [widest] * 6
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    assert not to_int8(np.zeros((3, 2)))[0].any()


def test_narrow_weights_are_in_the_file(tmp_path):
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", 63)
    graph = onnx.load(tmp_path / "by_rows.onnx").graph
    codes = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.INT8]
    assert [int(np.abs(each).max()) for each in codes] == [63, 63]
    assert _miss(_run(tmp_path / "by_rows.onnx", IDS), _exact(IDS)) < 0.02


def test_unsigned_weights_give_the_same_products(tmp_path, written):
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "unsigned.onnx", unsigned=True)
    kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "unsigned.onnx").graph.initializer}
    assert TensorProto.INT8 not in kinds
    np.testing.assert_allclose(_run(tmp_path / "unsigned.onnx", IDS), _run(written, IDS), rtol=1e-5, atol=1e-3)


def test_a_product_that_is_shown_keeps_its_name(tmp_path):
    """As another exporter's file may have more outputs than one; those that lead to no embedding are left out."""
    file = _graph(tmp_path / "exact.onnx", shown=["one_product", "rows"])
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("Neg", ["rows"], ["aside"]))
    model.graph.output.append(helper.make_tensor_value_info("aside", TensorProto.FLOAT, None))
    onnx.save(model, file)
    multiply_by_rows(file, tmp_path / "by_rows.onnx")
    assert [output.name for output in onnx.load(tmp_path / "by_rows.onnx").graph.output] == [
        OUTPUT,
        "one_product",
        "rows",
    ]
    assert _miss(_run(tmp_path / "by_rows.onnx", IDS), _exact(IDS)) < 0.01


def _with_data_beside(file: Path) -> Path:
    onnx.save(onnx.load(_graph(file)), file, save_as_external_data=True, location="data", size_threshold=0)
    return file


def _without_products(file: Path) -> Path:
    model = onnx.load(_graph(file))
    del model.graph.node[1:]
    model.graph.node.append(helper.make_node("ReduceMean", ["rows", "middle"], [OUTPUT], keepdims=0))
    onnx.save(model, file)
    return file


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file: _graph(file, "copied"), "no table is looked up by input_ids"),
        (lambda file: _graph(file, opset=17), "it is of ONNX's operators 17, and 18 are needed"),
        (_with_data_beside, "its weights lie in another file"),
        (_without_products, "it has no product by a weight"),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_not(tmp_path, make, problem):
    with pytest.raises(ValueError, match=problem):
        multiply_by_rows(make(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx")
    assert not (tmp_path / "by_rows.onnx").exists()


@pytest.mark.parametrize("name", ["minilm-5mb", "minilm-2mb"])
def test_the_shipped_models_by_rows(name):
    folder = Path("models") / name
    small, way = LightEncoder(folder), ways.Way(folder / "onnx" / "model_q4.onnx", "int8 by rows")
    encoder, texts = small.running(way, 1), sentences(40)
    together, alone = encoder.encode(texts), np.stack([encoder.encode(text) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert cosines(together, small.encode(texts)).min() >= 0.999
    assert np.abs(together - small.encode(texts)).max() > 1e-4
    kinds = [node.op_type for node in onnx.load(way.path()).graph.node]
    layers = {"minilm-5mb": 4, "minilm-2mb": 1}[name]
    assert kinds.count("MatMulIntegerToFloat") == 4 * layers, "queries, keys and values are one"
    assert "MatMulNBits" not in kinds
