"""Weights and rows as whole numbers: against numpy, and on this processor's own products."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from products_graph import WEIGHTS, WIDTH, miss, sums_of_two

from distilface.light.whole_numbers import MARGINS, WIDE_MARGINS, one_grid, smoothing, to_int8


def test_a_large_column_goes_to_the_weights():
    """Its numbers set the scale of the whole row: of all the others two or three steps would be left."""
    draw = np.random.default_rng(2)
    rows, weight = WEIGHTS["table"].astype(np.float64), WEIGHTS["one"].astype(np.float64)
    shares = smoothing(rows, weight)
    assert shares.argmax() == 3
    assert np.exp(np.log(shares).mean()) == pytest.approx(1, rel=1e-5)

    def error(moved):
        shown, size = rows / moved, np.abs(rows / moved).max(axis=1, keepdims=True) / 127
        codes, steps = to_int8(weight * moved[:, None])
        return miss(np.round(shown / size) * size @ (codes * steps), rows @ weight)

    assert error(shares) < 0.8 * error(np.ones(WIDTH))
    assert smoothing(draw.normal(size=(500, WIDTH)), weight) is None, "where all are alike it does not pay"


def test_codes_are_the_nearest():
    weight = np.random.default_rng(3).normal(size=(20, 6))
    codes, steps = to_int8(weight)
    np.testing.assert_allclose(steps, np.abs(weight).max(axis=0) / 127, rtol=1e-6)
    assert np.abs(codes).max(axis=0).tolist() == [127] * 6
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    assert not to_int8(np.zeros((3, 2)))[0].any()


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
    assert 255 * sums_of_two(codes) < 2**15
    assert (np.abs(codes * steps - weight) <= steps / 2 * 1.001).all()
    if kind == "normal" and rows == 384:
        wider = steps / to_int8(weight)[1]
        assert 1.1 < wider.mean() < 1.5, "7 bits would have steps twice as wide"
        assert 255 * sums_of_two(to_int8(weight)[0]) >= 2**15
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


def on_grid(rows, grid):
    """Return smoothed rows as the whole numbers of a grid stand for them, by numpy."""
    zero = int(grid.zero)
    return (np.clip(np.round(rows / grid.shares / grid.step) + zero, 0, 255) - zero) * grid.step


@pytest.mark.parametrize(("spread", "served"), [(0.05, True), (1.5, False)])
def test_one_grid_serves_rows_of_one_size(spread, served):
    draw = np.random.default_rng(10)
    rows = draw.normal(1, 1, size=(400, 32)) * np.exp(draw.normal(0, spread, size=(400, 1)))
    weight = draw.normal(size=(32, 20))
    grid = one_grid(rows, weight, None)
    assert (grid is not None) == served
    if grid is not None:
        shown = rows[::2] / grid.shares
        wide = grid.step / ((shown.max() - shown.min()) / 255)
        assert wide == pytest.approx(min(MARGINS, key=lambda margin: abs(margin - wide)), rel=1e-5)
        assert grid.zero == round(255 * shown.min() / (shown.min() - shown.max()))
        codes, steps = to_int8(weight * grid.shares[:, None])
        assert miss(on_grid(rows, grid) @ (codes * steps), rows @ weight) < 0.02


@pytest.mark.parametrize("in_pairs", [False, True])
def test_rows_are_smoothed_for_the_one_grid(in_pairs):
    """A column three times as large as the others would leave them a third of its numbers."""
    draw = np.random.default_rng(11)
    rows, weight = draw.normal(size=(400, 64)), draw.normal(size=(64, 20))
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True))
    rows[:, 5] *= 3
    grid = one_grid(rows, weight, smoothing(rows, weight, in_pairs), in_pairs)
    assert grid is not None
    assert grid.shares.argmax() == 5
    assert grid.shares[5] > 1.7 * np.median(grid.shares)
    codes, steps = to_int8(weight * grid.shares[:, None], in_pairs)
    with_it = miss(on_grid(rows, grid) @ (codes * steps), rows @ weight)
    flat = np.float32((rows.max() - rows.min()) / 255)
    plain_codes, plain_steps = to_int8(weight, in_pairs)
    without = miss((np.round(rows / flat) * flat) @ (plain_codes * plain_steps), rows @ weight)
    assert with_it < 0.8 * without


def test_rows_that_a_grid_is_not_made_for_judge_it():
    """One of them may be larger than all that it is made for: then it is wider, or there is none."""
    draw = np.random.default_rng(12)
    rows, weight = draw.normal(size=(400, 32)), draw.normal(size=(32, 20))
    rows /= np.sqrt((rows**2).mean(axis=1, keepdims=True))
    narrow = one_grid(rows, weight, None)
    assert narrow is not None
    rows[1::2] *= 1.2
    wider = one_grid(rows, weight, None)
    assert wider is not None
    assert wider.step > 1.1 * narrow.step
    rows[1::2] *= 3
    assert one_grid(rows, weight, None) is None


def test_a_wide_grid_has_room_for_larger_rows():
    """Rows of attention, means of values, are larger where one token has nearly all of it."""
    draw = np.random.default_rng(13)
    rows, weight = draw.normal(size=(400, 32)), draw.normal(size=(32, 20))
    narrow, wide = one_grid(rows, weight, None), one_grid(rows, weight, None, margins=WIDE_MARGINS)
    assert narrow is not None
    assert wide is not None
    codes, steps = to_int8(weight * wide.shares[:, None])
    assert miss(on_grid(1.4 * rows, wide) @ (codes * steps), 1.4 * rows @ weight) < 0.02
    assert wide.step > 1.3 * narrow.step
