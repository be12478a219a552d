"""Products of an ONNX file with weights of few bits: ``MatMulNBits``, of the weights that are on a grid."""

from collections.abc import Callable
from typing import Any

import numpy as np

from distilface.compression.bits import BLOCK
from distilface.light.graphs import allow_own_operators


def products_in(
    model: Any,
    bits: int,
    packed: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray] | None],
    zero_point: float | None = None,
) -> Any:
    """Return a model some of whose products are ``MatMulNBits``.

    Args:
        model: of ONNX, its weights in fp32.
        bits: of a code.
        packed: returns a weight of shape (outputs, inputs), inputs whole blocks, as codes, uint8 of shape (outputs,
            blocks, bytes of a block), and scales, float32 of shape (outputs, blocks); ``None`` leaves its product.
        zero_point: the code that stands for 0, where onnxruntime's own is another; it is filled in as the file is
            opened, and takes no room in it.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[Any] = []
    added: dict[str, np.ndarray] = {}
    points: dict[tuple[int, ...], Any] = {}
    for node in graph.node:
        weight = _weight_of(node, tensors)
        found = None if weight is None else packed(weight)
        if weight is None or found is None:
            nodes.append(node)
            continue
        (codes, scales), (outputs, inputs), name = found, weight.shape, node.input[1]
        names = [f"{name}_{bits}bit", f"{name}_scale"]
        added |= dict(zip(names, (codes, scales), strict=True))
        if zero_point is not None:
            if scales.shape not in points:
                points[scales.shape] = _filled(scales.shape, zero_point, added)
            names.append(points[scales.shape].output[0])
        flags: dict[str, Any] = {"K": inputs, "N": outputs, "bits": bits, "block_size": BLOCK}
        read, given = [node.input[0], *names], [node.output[0]]
        nodes.append(helper.make_node("MatMulNBits", read, given, name=node.name, domain="com.microsoft", **flags))
    if not added:
        return model
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(array, name) for name, array in added.items())])
    graph.node.extend([*points.values(), *nodes])
    allow_own_operators(model)
    return model


def _filled(shape: tuple[int, ...], number: float, added: dict[str, np.ndarray]) -> Any:
    """Return the node of an array of one number, and add the shape that it reads."""
    from onnx import helper, numpy_helper

    label = f"middle_{'x'.join(map(str, shape))}"
    added[f"{label}_shape"] = np.array(shape, np.int64)
    fill = numpy_helper.from_array(np.array([number], np.float32))
    return helper.make_node("ConstantOfShape", [f"{label}_shape"], [label], value=fill)


def _weight_of(node: Any, tensors: dict[str, Any]) -> np.ndarray | None:
    """Return the weight of a product, shape (outputs, inputs), if it is one whose inputs are whole blocks."""
    from onnx import numpy_helper

    if node.op_type != "MatMul" or node.input[1] not in tensors:
        return None
    weight = np.ascontiguousarray(numpy_helper.to_array(tensors[node.input[1]]).T)
    return weight if weight.ndim == 2 and weight.shape[1] % BLOCK == 0 else None
