"""Nodes and constants that are added to an ONNX graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def allow_own_operators(model: Any) -> None:
    """Declare onnxruntime's own operators, as ``MatMulNBits``, in an ONNX model, unless it has them already."""
    if all(each.domain != "com.microsoft" for each in model.opset_import):
        model.opset_import.add(domain="com.microsoft", version=1)


class Emitted:
    """What is added to a graph, in its order.

    Attributes:
        nodes: those of the graph that stay, and those that are new.
        tensors: the constants that are new.
    """

    def __init__(self) -> None:
        self._known = set[str]()
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def key(self, name: str) -> str:
        """Return with what the names of new tensors begin that belong to one of the graph."""
        return f"int8_{name}"

    def emit(self, kind: str, inputs: Sequence[str], *outputs: str, **settings: Any) -> None:
        """Add a node.

        Args:
            kind: of the operator.
            inputs: by their names.
            outputs: by their names.
            settings: attributes, and ``domain``.
        """
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outputs, **settings))

    def constant(self, name: str, value: Any) -> str:
        """Add a constant to the graph, if none of its name was added; return its name."""
        from onnx import numpy_helper

        if name not in self._known:
            self._known.add(name)
            self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name
