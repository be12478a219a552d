"""2 bits in an ONNX file: of linear maps by ``MatMulNBits``, of the token table by ONNX's own operators."""

from typing import Any

import numpy as np
import torch

from distilface.compression.bits import BLOCK, is_on_grid, table_block, two_bits
from distilface.exporters.products import products_in
from distilface.runtimes.base import INPUTS

#: The opset of ONNX that knows ``BitwiseAnd``.
OPSET = 18


def _lookup(model: Any) -> tuple[Any, Any] | None:
    """Return the node that looks tokens up, and its table in fp32; ``None`` if there is none."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Gather" and node.input[1] == INPUTS[0] and node.input[0] in tensors:
            return node, tensors[node.input[0]]
    return None


def on_two_bits(model: Any) -> Any:
    """Return the node of a model that looks tokens up, if its table is on the 2-bit grid; else ``None``."""
    from onnx import numpy_helper

    found = _lookup(model)
    if found is None or not (block := table_block(found[1].dims[-1])):
        return None
    table = torch.from_numpy(numpy_helper.to_array(found[1]).copy())
    return found[0] if is_on_grid(table, block, 2) else None


def pack(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a table that is on the 2-bit grid as bytes and scales.

    Byte j of a row holds the codes of the columns j, j + width / 4, j + width / 2 and j + 3 width / 4, the first in its
    lowest bits; code c stands for c - 1.5 times its block's scale.

    Args:
        table: shape (pieces, width).

    Returns:
        uint8 of shape (pieces, width / 4), and fp16 of shape (pieces, blocks of a row).
    """
    pieces, width = table.shape
    scale, codes = two_bits(torch.from_numpy(table.copy()).reshape(-1, table_block(width)))
    quarters = (codes.numpy() + 1.5).astype(np.uint8).reshape(pieces, 4, width // 4)
    packed = (quarters << np.array([0, 2, 4, 6], np.uint8)[:, None]).sum(1, dtype=np.uint8)
    return packed, scale.numpy().reshape(pieces, -1).astype(np.float16)


def two_bit_table(model: Any) -> Any:
    """Return a model with its token table packed in 2 bits; a lookup unpacks the rows that it takes.

    Args:
        model: of ONNX, its table in fp32 on the 2-bit grid (:func:`on_two_bits`).
    """
    import onnx
    from onnx import helper, numpy_helper

    found = _lookup(model)
    assert found is not None, "on_two_bits found its table"
    gather, tensor = found
    table = numpy_helper.to_array(tensor)
    width, block = table.shape[1], table_block(table.shape[1])
    packed, scales = pack(table)
    constants = {
        "table_2bit": packed,
        "table_scales": scales,
        "table_shifts": np.array([0, 2, 4, 6], np.uint8)[:, None],
        "table_mask": np.array(3, np.uint8),
        "table_middle": np.array(1.5, np.float32),
        "table_before_last": np.array([-2], np.int64),
        "table_last": np.array([-1], np.int64),
        "table_blocks": np.array([0, 0, width // block, block], np.int64),
        "table_row": np.array([0, 0, width], np.int64),
    }
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Gather", ["table_2bit", INPUTS[0]], "rows_2bit", {}),
        ("Unsqueeze", ["rows_2bit", "table_before_last"], "rows_bytes", {}),
        ("BitShift", ["rows_bytes", "table_shifts"], "rows_shifted", {"direction": "RIGHT"}),
        ("BitwiseAnd", ["rows_shifted", "table_mask"], "rows_codes", {}),
        ("Cast", ["rows_codes"], "rows_numbers", {"to": onnx.TensorProto.FLOAT}),
        ("Reshape", ["rows_numbers", "table_blocks"], "rows_blocks", {}),
        ("Sub", ["rows_blocks", "table_middle"], "rows_centred", {}),
        ("Gather", ["table_scales", INPUTS[0]], "rows_scales_half", {}),
        ("Cast", ["rows_scales_half"], "rows_scales", {"to": onnx.TensorProto.FLOAT}),
        ("Unsqueeze", ["rows_scales", "table_last"], "rows_scales_each", {}),
        ("Mul", ["rows_centred", "rows_scales_each"], "rows_scaled", {}),
        ("Reshape", ["rows_scaled", "table_row"], gather.output[0], {}),
    ]
    nodes = [helper.make_node(kind, inputs, [output], **rest) for kind, inputs, output, rest in steps]
    graph = model.graph
    kept = [other for other in graph.initializer if other is not tensor and other.name != tensor.name]
    nodes += [node for node in graph.node if node.output[0] != gather.output[0]]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*kept, *(numpy_helper.from_array(array, name) for name, array in constants.items())])
    graph.node.extend(nodes)
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET)
    return model


def two_bit_products(model: Any) -> Any:
    """Return a model whose products with weights on the 2-bit grid are ``MatMulNBits`` of 2 bits.

    Code c stands for c - 1.5 times its block's scale: a zero point of 1.5, which onnxruntime takes as a float.

    Args:
        model: of ONNX, its weights in fp32.
    """

    def packed(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Return codes and scales of a weight that is on the grid."""
        return pack_product(weight) if is_on_grid(torch.from_numpy(weight), BLOCK, 2) else None

    return products_in(model, 2, packed, zero_point=1.5)


def pack_product(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a weight that is on the 2-bit grid as ``MatMulNBits`` reads it: four codes a byte, the first the lowest.

    Args:
        weight: shape (outputs, inputs).

    Returns:
        uint8 of shape (outputs, blocks, bytes of a block), and float32 of shape (outputs, blocks).
    """
    outputs, inputs = weight.shape
    scale, codes = two_bits(torch.from_numpy(weight.copy()).reshape(-1, BLOCK))
    quarters = (codes.numpy() + 1.5).astype(np.uint8).reshape(outputs, inputs // BLOCK, BLOCK // 4, 4)
    packed = (quarters << np.array([0, 2, 4, 6], np.uint8)).sum(3, dtype=np.uint8)
    return packed, scale.numpy().reshape(outputs, -1).astype(np.float32)
