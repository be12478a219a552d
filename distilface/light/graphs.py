"""Nodes and constants that are added to an ONNX graph."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Emitted:
    """What is added to a graph, in its order.

    Args:
        prefix: of the names of its constants, so that none is that of the graph's own.

    Attributes:
        nodes: those of the graph that stay, and those that are new.
        tensors: the constants that are new.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix, self._known = prefix, set[str]()
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

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
        """Return the name of a constant in the graph, which is added if it is not there.

        Args:
            name: of it; the same name is the same constant.
            value: its numbers.
        """
        from onnx import numpy_helper

        name = f"{self._prefix}_{name}"
        if name not in self._known:
            self._known.add(name)
            self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name
