"""Products in int8 by rows: against numpy in double precision, on a graph of our own and on a shipped model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from exported import cosines
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf
from tiny import sentences

from distilface.light import LightEncoder, lookups, ways
from distilface.light.row_products import multiply_by_rows
from distilface.light.samples import TEXT, token_rows
from distilface.light.session import OUTPUT, open_session
from distilface.light.whole_numbers import one_grid, smoothing, to_int8

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")
#: As this processor needs it: AVX2 alone cuts sums of other weights off.
IN_PAIRS = not ways.sums_fit()
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
    multiply_by_rows(_graph(place / "exact.onnx"), place / "by_rows.onnx", IN_PAIRS)
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
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
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


def test_codes_are_the_nearest():
    weight = np.random.default_rng(3).normal(size=(20, 6))
    codes, steps = to_int8(weight)
    np.testing.assert_allclose(steps, np.abs(weight).max(axis=0) / 127, rtol=1e-6)
    assert np.abs(codes).max(axis=0).tolist() == [127] * 6
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    assert not to_int8(np.zeros((3, 2)))[0].any()


def _sums_of_two(codes: np.ndarray) -> np.ndarray:
    """Return the largest sum of two neighbours of one sign."""
    even = np.concatenate([codes, np.zeros((len(codes) % 2, codes.shape[1]), codes.dtype)]).astype(int)
    one, other = even[::2], even[1::2]
    return np.maximum(np.maximum(one, 0) + np.maximum(other, 0), np.maximum(-one, 0) + np.maximum(-other, 0)).max()


@pytest.mark.parametrize("rows", [384, 7])
@pytest.mark.parametrize("kind", ["normal", "alike", "one"])
def test_two_paired_codes_fit_into_16_bits_with_any_bytes(rows, kind):
    """The instruction of AVX2 adds two products of a byte from 0 to 255, and a code, in 16 bits."""
    weight = {
        "normal": np.random.default_rng(4).normal(size=(rows, 50)),
        "alike": np.full((rows, 3), -0.3),
        "one": np.eye(rows),
    }[kind]
    codes, steps = to_int8(weight, in_pairs=True)
    assert 255 * _sums_of_two(codes) < 2**15
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    if kind == "normal" and rows == 384:
        wider = steps / to_int8(weight)[1]
        assert 1.1 < wider.mean() < 1.5, "7 bits would have steps twice as wide"
        assert 255 * _sums_of_two(to_int8(weight)[0]) >= 2**15
    if kind == "one":
        assert codes.max() == 127, "a number whose neighbour is 0 has all of it"


def test_the_products_of_paired_weights_are_exact_on_this_processor():
    """Whatever the processor, and whichever numbers onnxruntime takes for a pair: with the largest bytes too."""
    weight = np.random.default_rng(5).normal(size=(96, 64)).astype(np.float32)
    codes, _ = to_int8(weight, in_pairs=True)
    rows = np.random.default_rng(6).integers(0, 256, (40, 96)).astype(np.uint8)
    rows[:20] = 255 * (rows[:20] > 127)
    ports = [("rows", TensorProto.UINT8, ["n", 96]), ("found", TensorProto.INT32, ["n", 64])]
    given, found = (helper.make_tensor_value_info(*port) for port in ports)
    node = helper.make_node("MatMulInteger", ["rows", "codes"], ["found"])
    graph = helper.make_graph([node], "graph", [given], [found], [numpy_helper.from_array(codes, "codes")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"rows": rows})[0], rows.astype(int) @ codes.astype(int))


@pytest.mark.skipif(not IN_PAIRS, reason="this processor adds the products of any two weights exactly")
def test_this_processor_needs_pairs(tmp_path):
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "unpaired.onnx")
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "paired.onnx", in_pairs=True)
    unpaired, paired = (_miss(_run(tmp_path / f"{name}.onnx", IDS), _exact(IDS)) for name in ("unpaired", "paired"))
    assert unpaired > 2 * paired


def test_paired_weights_are_in_the_file(tmp_path):
    multiply_by_rows(_graph(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", in_pairs=True)
    graph = onnx.load(tmp_path / "by_rows.onnx").graph
    codes = [numpy_helper.to_array(each) for each in graph.initializer if each.data_type == TensorProto.INT8]
    assert [each.shape for each in codes] == [(WIDTH, 2 * INNER), (INNER, 8)]
    assert all(255 * _sums_of_two(each) < 2**15 for each in codes)
    assert _miss(_run(tmp_path / "by_rows.onnx", IDS), _exact(IDS)) < 0.01


PLACES = (np.random.default_rng(7).integers(0, 256, (30, WIDTH)).astype(np.uint8), np.float32(0.02), np.uint8(128))
FACTORS, SHIFTS = np.random.default_rng(8).normal(1, 0.3, (2, WIDTH)).astype(np.float32)


def _with_places(file: Path, shifts: Sequence[str] = ("shifts",), **settings: Any) -> Path:
    """Write the graph with rows as an encoder begins: of tokens and places, of 8 bits, added and normalized."""
    model = onnx.load(_graph(file, shown=["one_sum"]))
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


def _exact_with_places(kind: Any = 0, shifts: Any = SHIFTS) -> tuple[np.ndarray, np.ndarray]:
    """Return what the first product of :data:`IDS` is with its bias, and the embeddings."""
    exact = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    codes, step, zero = (each.astype(np.float64) for each in PLACES)
    added = exact["table"][IDS] + ((codes - zero) * step)[: IDS.shape[1]] + kind
    rows = (added - added.mean(-1, keepdims=True)) / added.std(-1, keepdims=True) * FACTORS + shifts
    one = rows @ exact["one"] + exact["one_bias"]
    summed = one + rows @ exact["other"] + exact["other_bias"]
    return one, (_gelu(summed) @ exact["last"]).mean(axis=1)


def test_the_first_products_are_looked_up(tmp_path):
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    one, embeddings = _exact_with_places()
    assert _miss(_first_sums(tmp_path / "exact.onnx"), one) < 1e-5
    assert 1e-6 < _miss(_first_sums(tmp_path / "by_rows.onnx"), one) < 5e-4, "nothing is rounded but the table"
    assert _miss(_run(tmp_path / "by_rows.onnx", IDS), embeddings) < 0.02
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
    one, exact = _exact_with_places(WEIGHTS["table"][7], 0)[0], _first_sums(tmp_path / "exact.onnx")
    assert _miss(exact, one) < 1e-5
    assert _miss(_first_sums(tmp_path / "by_rows.onnx"), one) < 5e-4


@pytest.mark.parametrize("weights", ["factors", "shifts"])
def test_one_factor_for_all_columns_is_left_to_the_normalization(tmp_path, weights):
    model = onnx.load(_with_places(tmp_path / "exact.onnx"))
    tensor = next(each for each in model.graph.initializer if each.name == weights)
    tensor.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), weights))
    onnx.save(model, tmp_path / "exact.onnx")
    multiply_by_rows(tmp_path / "exact.onnx", tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert kinds.count("MatMulIntegerToFloat") == 2
    assert _miss(_first_sums(tmp_path / "by_rows.onnx"), _first_sums(tmp_path / "exact.onnx")) < 0.02


def test_names_of_the_graph_are_not_taken_twice(tmp_path):
    model = onnx.load(_graph(tmp_path / "exact.onnx"))
    for node in model.graph.node:  # "rows_whole" once was what by rows called its own
        node.input[:] = ["rows_whole" if name == "sum" else name for name in node.input]
        node.output[:] = ["rows_whole" if name == "sum" else name for name in node.output]
    onnx.save(model, tmp_path / "exact.onnx")
    multiply_by_rows(tmp_path / "exact.onnx", tmp_path / "by_rows.onnx", IN_PAIRS)
    assert _miss(_run(tmp_path / "by_rows.onnx", IDS), _exact(IDS)) < 0.02


def test_the_grid_holds_the_first_token_of_a_text():
    """Its row is larger than any other's, and no random token stands for it."""
    file = Path("models/minilm-5mb/onnx/model_q4.onnx")
    rows = token_rows(file, 17_800)
    assert rows.shape[1] == 24
    tokens = LightEncoder("models/minilm-5mb")._tokens.ids([TEXT])[0]
    assert (rows[64:, 0] == tokens[0]).all()
    assert (rows[64:, -1] == tokens[-1]).all()
    assert rows[64:, 1:-1].ravel()[:100].tolist() == tokens[1:101]
    assert rows.max() < 17_800


def test_the_tokenizer_is_found_where_a_file_is_a_link(tmp_path):
    """As in the Hub's cache."""
    real = Path("models/minilm-5mb").absolute()
    (tmp_path / "onnx").mkdir()
    for name in ("tokenizer.json", "onnx/model_q4.onnx"):
        (tmp_path / name).symlink_to(real / name)
    assert len(token_rows(tmp_path / "onnx" / "model_q4.onnx", 17_800)) > 64


def test_without_a_tokenizer_the_tokens_are_random(tmp_path):
    rows = token_rows(tmp_path / "model.onnx", 50)
    assert rows.shape == (64, 24)
    assert (rows.min(), rows.max()) == (0, 49)


def test_normalized_rows_have_one_grid(tmp_path, monkeypatch):
    """Their sizes are alike, so nothing about a row is measured, and the product adds the bias itself."""
    monkeypatch.setattr(lookups, "LEAST_SHARE", 0.99)
    monkeypatch.setitem(WEIGHTS, "table", np.random.default_rng(9).normal(size=(50, WIDTH)).astype(np.float32))
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    kinds = [node.op_type for node in onnx.load(tmp_path / "by_rows.onnx").graph.node]
    assert (kinds.count("ReduceMax"), kinds.count("Abs")) == (1, 0), "that of the GELU's rows alone"
    assert 1e-4 < _miss(_first_sums(tmp_path / "by_rows.onnx"), _exact_with_places()[0]) < 0.02


@pytest.mark.parametrize(("spread", "served"), [(0.05, True), (1.5, False)])
def test_one_grid_serves_rows_of_one_size(spread, served):
    draw = np.random.default_rng(10)
    rows = draw.normal(1, 1, size=(400, 32)) * np.exp(draw.normal(0, spread, size=(400, 1)))
    weight = draw.normal(size=(32, 20))
    codes, steps = to_int8(weight)
    grid = one_grid(rows, weight, codes, steps)
    assert (grid is not None) == served
    if grid is not None:
        step, zero = grid
        assert step == pytest.approx(1.25 * (rows.max() - rows.min()) / 255, rel=1e-5)
        assert zero == round(255 * rows.min() / (rows.min() - rows.max()))
        assert _miss((np.round(rows / step) * step) @ (codes * steps), rows @ weight) < 0.02


def test_numbers_beyond_16_bits_are_kept_in_32(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "one", WEIGHTS["one"] * 1e4)
    multiply_by_rows(_with_places(tmp_path / "exact.onnx"), tmp_path / "by_rows.onnx", IN_PAIRS)
    assert _miss(_first_sums(tmp_path / "by_rows.onnx"), _exact_with_places()[0]) < 1e-5


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
    assert 1e-3 < _miss(_first_sums(tmp_path / "by_rows.onnx"), _exact_with_places()[0]) < 0.02, "rows are rounded"


def test_a_gelu_that_something_else_reads_stays_as_it_is(tmp_path):
    file = _graph(tmp_path / "exact.onnx")
    multiply_by_rows(file, tmp_path / "by_rows.onnx")
    model = onnx.load(file)
    model.graph.node.insert(7, helper.make_node("Mul", ["bent", "bent"], ["squares"]))
    model.graph.node[-1].input[0] = "with_squares"
    model.graph.node.insert(9, helper.make_node("MatMul", ["squares", "last"], ["more"]))
    model.graph.node.insert(10, helper.make_node("Add", ["vectors", "more"], ["with_squares"]))
    onnx.save(model, tmp_path / "read.onnx")
    multiply_by_rows(tmp_path / "read.onnx", tmp_path / "other.onnx")
    multiply_by_rows(_graph(tmp_path / "exact.onnx", shown=["bent"]), tmp_path / "shown.onnx")
    ways_of_it = []
    for name in ("by_rows.onnx", "other.onnx", "shown.onnx"):
        gelu = next(node for node in onnx.load(tmp_path / name).graph.node if node.op_type == "Gelu")
        ways_of_it.append([each.s for each in gelu.attribute])
    assert ways_of_it == [[b"tanh"], [], []]


def test_a_product_that_is_shown_keeps_its_name(tmp_path):
    """As another exporter's file may have more outputs than one; those that lead to no embedding are left out."""
    file = _graph(tmp_path / "exact.onnx", shown=["one_product", "rows"])
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
    assert "MatMulNBits" not in kinds
