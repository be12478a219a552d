"""A graph of three products, as an ONNX file, and what it gives in double precision."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.special import erf

from distilface.light import ways
from distilface.light.session import OUTPUT, open_session

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


def graph_of_products(file: Path, table: str = "input_ids", opset: int = 20, shown: Sequence[str] = ()) -> Path:
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


def gelu(rows: np.ndarray) -> np.ndarray:
    """Return the GELU of some numbers."""
    return rows * (1 + erf(rows / np.sqrt(2))) / 2


def exact(ids: np.ndarray) -> np.ndarray:
    """Return what the graph gives for tokens, in double precision."""
    double = {name: array.astype(np.float64) for name, array in WEIGHTS.items()}
    rows = double["table"][ids]
    summed = rows @ double["one"] + double["one_bias"] + rows @ double["other"] + double["other_bias"]
    return (gelu(summed) @ double["last"]).mean(axis=1)


def run(file: Path, ids: np.ndarray) -> np.ndarray:
    """Return what a file gives for tokens."""
    return next(open_session(file, 1)[0].run([{"input_ids": ids}]))


def miss(found: np.ndarray, exact: np.ndarray) -> float:
    """Return the size of what is missed, as a share of what is right."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def sums_of_two(codes: np.ndarray) -> np.ndarray:
    """Return the largest sum of two neighbours of one sign."""
    even = np.concatenate([codes, np.zeros((len(codes) % 2, codes.shape[1]), codes.dtype)]).astype(int)
    one, other = even[::2], even[1::2]
    return np.maximum(np.maximum(one, 0) + np.maximum(other, 0), np.maximum(-one, 0) + np.maximum(-other, 0)).max()
