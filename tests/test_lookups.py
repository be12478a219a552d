"""First products as lookups, and rows of one size on one grid: against numpy in double precision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from products_graph import IDS, IN_PAIRS, INNER, WEIGHTS, WIDTH, gelu, graph_of_products, miss, run

from distilface.light import lookups
from distilface.light.row_products import multiply_by_rows

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")


PLACES = (np.random.default_rng(7).integers(0, 256, (30, WIDTH)).astype(np.uint8), np.float32(0.02), np.uint8(128))
FACTORS, SHIFTS = np.random.default_rng(8).normal(1, 0.3, (2, WIDTH)).astype(np.float32)


def _with_places(file: Path, shifts: Sequence[str] = ("shifts",), **settings: Any) -> Path:
    """Write the graph with rows as an encoder begins: of tokens and places, of 8 bits, added and normalized."""
    model = onnx.load(graph_of_products(file, shown=["one_sum"]))
    model.graph.node[0].output[0] = "token_rows"
    first = [
        model.graph.node[0],
        helper.make_node("Shape", ["input_ids"], ["tokens"], start=1),
        helper.make_node("Squeeze", ["tokens"], ["count"]),
        helper.make_node("Range", ["none", "count", "single"], ["order"]),
        helper.make_node("Gather", ["places", "order"], ["place_codes"]),
        helper.make_node("DequantizeLinear", ["place_codes", "place_step", "place_zero"], ["place_rows"]),
        helper.make_node("Add", ["place_rows", "token_rows"], ["added"]),
        helper.make_node("LayerNormalization", ["added", "factors", *shifts], ["rows"], epsilon=1e-12, **settings),
    ]
    nodes = [*first, *list(model.graph.node)[1:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    named = zip(("places", "place_step", "place_zero"), PLACES, strict=True)
    numbers = [("none", np.array(0)), ("single", np.array(1))]
    constants = [*named, *numbers, ("factors", FACTORS), ("shifts", SHIFTS)]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(array), name) for name, array in constants)
    onnx.save(model, file)
    return file


def _first_sums(file: Path) -> np.ndarray:
    """Return what a file gives for the first of the first two products, with its bias."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["one_sum"], {"input_ids": IDS})[0])


def exact_with_places(kind: Any = 0, shifts: Any = SHIFTS) -> tuple[np.ndarray, np.ndarray]:
    """Return what the first product of :data:`IDS` is with its bias, and the embeddings."""
    exact = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    codes, step, zero = (each.astype(np.float64) for each in PLACES)
    added = exact["table"][IDS] + ((codes - zero) * step)[: IDS.shape[1]] + kind
    rows = (added - added.mean(-1, keepdims=True)) / added.std(-1, keepdims=True) * FACTORS + shifts
    one = rows @ exact["one"] + exact["one_bias"]
    summed = one + rows @ exact["other"] + exact["other_bias"]
    return one, (gelu(summed) @ exact["last"]).mean(axis=1)


def test_the_first_products_are_looked_up(tmp_path):
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    one, embeddings = exact_with_places()
    assert miss(_first_sums(tmp_path / "exact.onnx"), one) < 1e-5
    assert 1e-6 < miss(_first_sums(tmp_path / "by_rows.onnx"), one) < 5e-4, "nothing is rounded but the table"
    assert miss(run(tmp_path / "by_rows.onnx", IDS), embeddings) < 0.02
    model = onnx.load(tmp_path / "by_rows.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 1, "of the last weights; those of the first two are in the tables"
    shapes = {tuple(tensor.dims): tensor.data_type for tensor in model.graph.initializer}
    assert shapes[50, 2 * INNER] == TensorProto.FLOAT16
    assert shapes[30, 2 * INNER] == TensorProto.FLOAT


def test_three_tables_are_looked_up_and_nothing_is_added_to_them(tmp_path):
    """As a BERT begins: tokens, kinds, places; and a normalization may add nothing."""
    model = onnx.load(_with_places(tmp_path / "exact.onnx", shifts=()))
    nodes = list(model.graph.node)
    add = next(number for number, node in enumerate(nodes) if node.output[0] == "added")
    nodes[add].input[1] = "with_kind"
    kind = [
        helper.make_node("Gather", ["kinds", "none"], ["kind_row"]),
        helper.make_node("Add", ["token_rows", "kind_row"], ["with_kind"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:add], *kind, *nodes[add:]])
    model.graph.initializer.append(numpy_helper.from_array(WEIGHTS["table"][7:9], "kinds"))
    onnx.save(model, tmp_path / "exact.onnx")
    multiply_by_rows(tmp_path / "exact.onnx", tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 1
    one, exact = exact_with_places(WEIGHTS["table"][7], 0)[0], _first_sums(tmp_path / "exact.onnx")
    assert miss(exact, one) < 1e-5
    assert miss(_first_sums(tmp_path / "by_rows.onnx"), one) < 5e-4


@pytest.mark.parametrize("weights", ["factors", "shifts"])
def test_one_factor_for_all_columns_is_left_to_the_normalization(tmp_path, weights):
    model = onnx.load(_with_places(tmp_path / "exact.onnx"))
    tensor = next(each for each in model.graph.initializer if each.name == weights)
    tensor.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), weights))
    onnx.save(model, tmp_path / "exact.onnx")
    multiply_by_rows(tmp_path / "exact.onnx", tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert miss(_first_sums(tmp_path / "by_rows.onnx"), _first_sums(tmp_path / "exact.onnx")) < 0.02


def test_normalized_rows_have_one_grid(tmp_path, monkeypatch):
    """Their sizes are alike, so nothing about a row is measured, and the product adds the bias itself."""
    monkeypatch.setattr(lookups, "LEAST_SHARE", 0.99)
    monkeypatch.setitem(WEIGHTS, "table", np.random.default_rng(9).normal(size=(50, WIDTH)).astype(np.float32))
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert (kinds.count("ReduceMax"), kinds.count("Abs")) == (1, 0), "that of the GELU's rows alone"
    assert 1e-4 < miss(_first_sums(tmp_path / "by_rows.onnx"), exact_with_places()[0]) < 0.02


def test_numbers_beyond_16_bits_are_kept_in_32(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "one", WEIGHTS["one"] * 1e4)
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    assert miss(_first_sums(tmp_path / "by_rows.onnx"), exact_with_places()[0]) < 1e-5


@pytest.mark.parametrize(
    ("limits", "settings"),
    [({"LEAST_SHARE": 0.99}, {}), ({"MOST_NUMBERS": 50 * 2 * INNER - 1}, {}), ({}, {"axis": 2})],
    ids=["it saves little", "the table is too large", "another axis than the last is not read"],
)
def test_where_it_does_not_pay_nothing_is_looked_up(tmp_path, monkeypatch, limits, settings):
    for name, limit in limits.items():
        monkeypatch.setattr(lookups, name, limit)
    multiply_by_rows(_with_places(tmp_path / "exact.onnx", **settings), tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert 1e-3 < miss(_first_sums(tmp_path / "by_rows.onnx"), exact_with_places()[0]) < 0.02, "rows are rounded"
