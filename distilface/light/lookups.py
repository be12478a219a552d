"""The first products of an encoder as lookups: what a token gives is multiplied once, and not in every text.

An encoder begins with LN(t + p), of a token's row t and its place's row p, and multiplies it by the weights W of its
queries, keys and values. The normalization takes a row's mean from it (C x), divides by its deviation s, multiplies by
g and adds b, so

    LN(t + p) W = ((g C t) W + (g C p) W) / s(t + p) + b W,

where only s depends on both. The rest is a table of tokens, a table of places, and a constant.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distilface.light.expanding import IDS

#: The table of tokens is made where this share of the multiplications by weights falls away, and it has no more numbers
#: than that. They are kept in 16 bits, or in 32 where one does not fit.
LEAST_SHARE, MOST_NUMBERS = 0.05, 50_000_000
#: The largest number of 16 bits.
LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Rows:
    """Rows of a table.

    Attributes:
        table: shape (rows, K).
        index: the name of what they are looked up by.
    """

    table: np.ndarray
    index: str


@dataclass(frozen=True)
class FirstRows:
    """The rows with which an encoder begins.

    Attributes:
        normalization: the node that gives them.
        parts: whose sum is normalized; the first one is of tokens.
        factors: g, shape (K,).
        shifts: b, shape (K,).
    """

    normalization: Any
    parts: list[Rows]
    factors: np.ndarray
    shifts: np.ndarray

    @property
    def name(self) -> str:
        """The name of the rows."""
        return str(self.normalization.output[0])

    def times(self, weight: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Return what each part gives, before it is divided by the deviation, and what is added after that.

        Args:
            weight: W, shape (K, N).

        Returns:
            Of each part shape (rows, N), and shape (N,); all in float32.
        """
        scaled = self.factors[:, None] * weight
        centred = [part.table - part.table.mean(axis=1, keepdims=True) for part in self.parts]
        return [rows @ scaled for rows in centred], self.shifts @ weight


def first_rows(nodes: Sequence[Any], constants: Mapping[str, np.ndarray]) -> FirstRows | None:
    """Return the normalized sum of rows of tables with which an encoder begins; ``None`` if it begins otherwise.

    Args:
        nodes: of a graph in fp32.
        constants: of the graph, by their names.
    """
    makers = {name: node for node in nodes for name in node.output}
    for node in nodes:
        if node.op_type != "LayerNormalization" or len(node.output) > 1:
            continue
        axis = next((each.i for each in node.attribute if each.name == "axis"), -1)
        parts = _parts(node.input[0], makers, constants)
        if not parts or axis != -1 or not any(part.index == IDS for part in parts):
            continue
        parts.sort(key=lambda part: part.index != IDS)
        weights = [constants[each] for each in node.input[1:] if each in constants]
        if len(weights) == len(node.input) - 1 and all(each.shape == parts[0].table.shape[1:] for each in weights):
            return FirstRows(node, parts, weights[0], weights[1] if len(weights) == 2 else np.zeros_like(weights[0]))
    return None


def _parts(name: str, makers: Mapping[str, Any], constants: Mapping[str, np.ndarray]) -> list[Rows]:
    """Return the rows of tables whose sum has a name; nothing if it is another thing."""
    node = makers.get(name)
    if node is None:
        return []
    if node.op_type == "Add":
        sides = [_parts(each, makers, constants) for each in node.input]
        return sides[0] + sides[1] if all(sides) else []
    grid: list[np.ndarray] = []
    if node.op_type == "DequantizeLinear":
        grid = [constants[each].astype(np.float32) for each in node.input[1:] if each in constants]
        node = makers.get(node.input[0])
        if len(grid) != 2 or any(each.ndim for each in grid):
            return []
    if node is None or node.op_type != "Gather" or any(each.i for each in node.attribute if each.name == "axis"):
        return []
    table = constants.get(node.input[0])
    if table is None or table.ndim != 2:
        return []
    step, zero = grid or (np.ones(()), np.zeros(()))
    return [Rows(((table - zero) * step).astype(np.float32), node.input[1])]


def saves_enough(first: FirstRows, width: int, multiplied: int) -> bool:
    """Return whether to look up what rows of the first give.

    Args:
        first: the rows.
        width: N, of the weights that they are multiplied by.
        multiplied: the numbers of all weights of the graph.
    """
    rows, size = first.parts[0].table.shape
    return size * width >= LEAST_SHARE * multiplied and rows * width <= MOST_NUMBERS
