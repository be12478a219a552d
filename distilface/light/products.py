"""The products by weights that a graph has, and what goes into them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilface.light.expanding import IDS
from distilface.light.samples import token_rows
from distilface.light.session import usable_threads


@dataclass(frozen=True)
class Product:
    """A product by a weight, with the bias that is added to it, if one is.

    Attributes:
        node: of the product.
        weight: shape (K, N).
        bias: shape (N,).
        adding: the node that adds it.
    """

    node: Any
    weight: np.ndarray
    bias: np.ndarray
    adding: Any | None

    @property
    def output(self) -> str:
        """The name of what it gives, with its bias."""
        return str((self.adding or self.node).output[0])


def joined(group: Sequence[Product]) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of products of the same rows side by side, shape (K, N), and their biases, shape (N,)."""
    weights, biases = [each.weight for each in group], [each.bias for each in group]
    return np.concatenate(weights, axis=1), np.concatenate(biases)


class Products:
    """The products of a graph by weights, by the rows that they read.

    Attributes:
        constants: of the graph, by their names.
        gelus: the nodes of GELUs, by what they give.
        normalized: what normalizations give.
        groups: the products of the same rows, by the name of the rows.

    Args:
        model: in fp32.

    Raises:
        ValueError: if it has no product by a weight.
    """

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self._model, self._graph = model, model.graph
        self.constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.initializer}
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in self._graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {output.name for output in self._graph.output}
        self.gelus = {node.output[0]: node for node in self._graph.node if node.op_type == "Gelu"}
        self.normalized = {node.output[0] for node in self._graph.node if node.op_type == "LayerNormalization"}
        self.groups: dict[str, list[Product]] = {}
        for node in self._graph.node:
            if node.op_type == "MatMul" and self.constants.get(node.input[1], np.empty(0)).ndim == 2:
                self.groups.setdefault(node.input[0], []).append(self._product(node))
        if not self.groups:
            raise ValueError("it has no product by a weight")

    def alone_read(self, name: str) -> bool:
        """Return whether nothing but products reads what has a name."""
        return name not in self._outputs and len(self._readers[name]) == len(self.groups.get(name, []))

    def _product(self, node: Any) -> Product:
        """Return a product with what is added to it, where that is a constant and all that reads it."""
        weight, readers = self.constants[node.input[1]], self._readers[node.output[0]]
        none = np.zeros(weight.shape[1], np.float32)
        if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in self._outputs:
            return Product(node, weight, none, None)
        others = [name for name in readers[0].input if name != node.output[0]]
        bias = self.constants.get(others[0]) if len(others) == 1 else None
        if bias is None or bias.shape != none.shape:
            return Product(node, weight, none, None)
        return Product(node, weight, bias, readers[0])

    def recorded(self, file: Path) -> dict[str, np.ndarray]:
        """Return what the rows of each group hold for a few texts, of shape (n, K).

        Args:
            file: of the model, near which its tokenizer lies.

        Raises:
            ValueError: if it does not look tokens up in a table.
        """
        import onnxruntime
        from onnx import ModelProto, TensorProto, helper

        names, watched = list(self.groups), ModelProto()
        watched.CopyFrom(self._model)
        watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_threads()
        session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        lookups = [node for node in self._graph.node if node.op_type == "Gather" and node.input[1] == IDS]
        if not lookups or lookups[0].input[0] not in self.constants:
            raise ValueError(f"no table is looked up by {IDS}")
        reads = {port.name for port in session.get_inputs()}
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for ids in token_rows(file, len(self.constants[lookups[0].input[0]])):
            given = {IDS: ids, "attention_mask": np.ones_like(ids)}
            outputs = session.run(names, {name: array for name, array in given.items() if name in reads})
            for name, rows in zip(names, outputs, strict=True):
                found[name].append(rows.reshape(-1, rows.shape[-1]))
        return {name: np.concatenate(parts) for name, parts in found.items()}
