"""Products in int8 by rows: against numpy in double precision, on a graph of our own and on a shipped model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from exported import cosines
from onnx import TensorProto, helper, numpy_helper
from products_graph import IDS, IN_PAIRS, INNER, WEIGHTS, WIDTH, exact, graph_of_products, miss, run, sums_of_two
from tiny import sentences

from distilface.light import LightEncoder, ways
from distilface.light.fastest import TEXTS
from distilface.light.row_products import multiply_by_rows
from distilface.light.session import OUTPUT

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Return the graph, rewritten."""
    place = tmp_path_factory.mktemp("by_rows")
    multiply_by_rows(graph_of_products(place / "exact.onnx"), place / "by_rows.onnx", IN_PAIRS)
    return place / "by_rows.onnx"


def test_the_numbers_are_those_of_the_products(written):
    assert 1e-5 < miss(run(written, IDS), exact(IDS)) < 0.01
    assert miss(run(written.with_name("exact.onnx"), IDS), exact(IDS)) < 1e-5


def test_products_of_the_same_rows_are_one(written):
    kinds = [node.op_type for node in onnx.load(written).graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert kinds.count("QuantizeLinear") == 2
    assert "MatMul" not in kinds
    assert kinds.count("Split") == 1
    names = {tensor.name for tensor in onnx.load(written).graph.initializer}
    assert not names & {"one", "other", "last"}, "no weight stands in it twice"


def test_a_text_has_one_vector_in_every_batch(written):
    alone = np.concatenate([run(written, row[None]) for row in IDS])
    np.testing.assert_allclose(run(written, IDS), alone, rtol=1e-5, atol=1e-3)


def test_rows_of_zeros_give_the_bias_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "table", np.zeros_like(WEIGHTS["table"]))
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    ids = np.zeros((2, 3), int)
    assert miss(run(tmp_path / "by_rows.onnx", ids), exact(ids)) < 0.02


@pytest.mark.parametrize(("low", "high"), [(-3, 0), (-1, 0.4), (-0.8, -0.7), (0, 9)])
def test_a_gelu_of_any_range_keeps_its_numbers(tmp_path, monkeypatch, low, high):
    """None is below the code 0, and a row of small ones has steps as small as that allows."""
    for name in ("table", "other_bias"):
        monkeypatch.setitem(WEIGHTS, name, np.zeros_like(WEIGHTS[name]))
    monkeypatch.setitem(WEIGHTS, "one_bias", np.linspace(low, high, INNER, dtype=np.float32))
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    ids = np.zeros((2, 3), int)
    assert miss(run(tmp_path / "by_rows.onnx", ids), exact(ids)) < 0.03


@pytest.mark.skipif(not IN_PAIRS, reason="this processor adds the products of any two weights exactly")
def test_this_processor_needs_pairs(tmp_path):
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx"), tmp_path / "unpaired.onnx")
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx"), tmp_path / "paired.onnx", in_pairs=True)
    unpaired, paired = (miss(run(tmp_path / f"{name}.onnx", IDS), exact(IDS)) for name in ("unpaired", "paired"))
    assert unpaired > 2 * paired


def test_paired_weights_are_in_the_file(tmp_path):
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", in_pairs=True)
    graph = onnx.load(tmp_path / "by_rows.onnx").graph
    codes = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.INT8]
    assert [each.shape for each in codes] == [(WIDTH, 2 * INNER), (INNER, 8)]
    assert all(255 * sums_of_two(each) < 2**15 for each in codes)
    assert miss(run(tmp_path / "by_rows.onnx", IDS), exact(IDS)) < 0.01


def test_names_of_the_graph_are_not_taken_twice(tmp_path):
    model = onnx.load(graph_of_products(tmp_path / "exact.onnx"))
    for node in model.graph.node:  # "rows_whole" once was what by rows called its own
        node.input[:] = ["rows_whole" if name == "sum" else name for name in node.input]
        node.output[:] = ["rows_whole" if name == "sum" else name for name in node.output]
    onnx.save(model, tmp_path / "exact.onnx")
    multiply_by_rows(tmp_path / "exact.onnx", tmp_path / "by_rows.onnx", IN_PAIRS)
    assert miss(run(tmp_path / "by_rows.onnx", IDS), exact(IDS)) < 0.02


def test_a_gelu_that_something_else_reads_stays_as_it_is(tmp_path):
    file = graph_of_products(tmp_path / "exact.onnx")
    multiply_by_rows(file, tmp_path / "by_rows.onnx")
    model = onnx.load(file)
    model.graph.node.insert(7, helper.make_node("Mul", ["bent", "bent"], ["squares"]))
    model.graph.node[-1].input[0] = "with_squares"
    model.graph.node.insert(9, helper.make_node("MatMul", ["squares", "last"], ["more"]))
    model.graph.node.insert(10, helper.make_node("Add", ["vectors", "more"], ["with_squares"]))
    onnx.save(model, tmp_path / "read.onnx")
    multiply_by_rows(tmp_path / "read.onnx", tmp_path / "other.onnx")
    multiply_by_rows(graph_of_products(tmp_path / "exact.onnx", shown=["bent"]), tmp_path / "shown.onnx")
    ways_of_it = []
    for name in ("by_rows.onnx", "other.onnx", "shown.onnx"):
        gelu = next(node for node in onnx.load(tmp_path / name).graph.node if node.op_type == "Gelu")
        ways_of_it.append([each.s for each in gelu.attribute])
    assert ways_of_it == [[b"tanh"], [], []]


def test_a_product_that_is_shown_keeps_its_name(tmp_path):
    """As another exporter's file may have more outputs than one; those that lead to no embedding are left out."""
    file = graph_of_products(tmp_path / "exact.onnx", shown=["one_product", "rows"])
    model = onnx.load(file)
    model.graph.node.append(helper.make_node("Neg", ["rows"], ["aside"]))
    model.graph.output.append(helper.make_tensor_value_info("aside", TensorProto.FLOAT, None))
    onnx.save(model, file)
    multiply_by_rows(file, tmp_path / "by_rows.onnx", IN_PAIRS)
    assert [output.name for output in onnx.load(tmp_path / "by_rows.onnx").graph.output] == [
        OUTPUT,
        "one_product",
        "rows",
    ]
    assert miss(run(tmp_path / "by_rows.onnx", IDS), exact(IDS)) < 0.01


def _with_data_beside(file: Path) -> Path:
    onnx.save(onnx.load(graph_of_products(file)), file, save_as_external_data=True, location="data", size_threshold=0)
    return file


def _without_products(file: Path) -> Path:
    model = onnx.load(graph_of_products(file))
    del model.graph.node[1:]
    model.graph.node.append(helper.make_node("ReduceMean", ["rows", "middle"], [OUTPUT], keepdims=0))
    onnx.save(model, file)
    return file


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file: graph_of_products(file, "copied"), "no table is looked up by input_ids"),
        (lambda file: graph_of_products(file, opset=17), "it is of ONNX's operators 17, and 18 are needed"),
        (_with_data_beside, "its weights lie in another file"),
        (_without_products, "it has no product by a weight"),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_not(tmp_path, make, problem):
    with pytest.raises(ValueError, match=problem):
        multiply_by_rows(make(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx")
    assert not (tmp_path / "by_rows.onnx").exists()


@pytest.mark.parametrize("name", ["minilm-10mb", "minilm-5mb", "minilm-2mb"])
def test_the_shipped_models_by_rows(name):
    folder = Path("models") / name
    small, way = LightEncoder(folder), ways.Way(folder / "onnx" / "model_q4.onnx", ways.BY_ROWS[ways.sums_fit()])
    encoder, texts = small.running(way, 1), sentences(40)
    together, alone = encoder.encode(texts), np.stack([encoder.encode(text) for text in texts])
    assert np.abs(together - alone).max() < 1e-6
    assert cosines(together, small.encode(texts)).min() >= (0.998 if name == "minilm-10mb" else 0.999)
    assert np.abs(together - small.encode(texts)).max() > 1e-4
    kinds = [node.op_type for node in onnx.load(way.path()).graph.node]
    products = {"minilm-10mb": 24, "minilm-5mb": 15, "minilm-2mb": 3}[name]
    assert kinds.count("MatMulIntegerToFloat") == products, "queries, keys and values are one, or looked up"
    own = {"minilm-10mb": 4, "minilm-5mb": 2, "minilm-2mb": 0}[name]
    assert kinds.count("ReduceMax") <= kinds.count("Gelu") + own, "most other rows have one scale"
    assert ways.agree(encoder.encode(TEXTS), small.encode(TEXTS)), "so auto may take it"
    assert "MatMulNBits" not in kinds
