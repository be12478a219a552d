"""8 bits in an ONNX file: of linear maps by ``MatMulNBits``, of the token table by ``GatherBlockQuantized``."""

from typing import Any

import numpy as np
import torch

from distilface.compression.bits import BLOCK, MORE_BITS, codes_of, is_on_grid, lowest, scale_of, table_block
from distilface.exporters.products import products_in
from distilface.light.graphs import allow_own_operators


def in_eight_bits(weight: np.ndarray, block: int) -> bool:
    """Return whether a weight is on the grid of 8 bits, and not on that of 4, all of which is on it too."""
    values = torch.from_numpy(weight)
    return is_on_grid(values, block, MORE_BITS) and not is_on_grid(values, block)


def pack(weight: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a weight that is on the 8-bit grid as codes, of which 128 stands for 0, and scales.

    Args:
        weight: shape (rows, width).
        block: how many weights of a row share a scale.

    Returns:
        uint8 of shape (rows, blocks of a row, block), and float32 of shape (rows, blocks of a row).
    """
    blocks = torch.from_numpy(weight.copy()).reshape(-1, block)
    scales = scale_of(blocks.gather(1, blocks.abs().argmax(1, keepdim=True)), MORE_BITS)
    codes = (codes_of(blocks, scales, MORE_BITS) - lowest(MORE_BITS)).numpy().astype(np.uint8)
    return codes.reshape(len(weight), -1, block), scales.numpy().reshape(len(weight), -1).astype(np.float32)


def eight_bit_products(model: Any) -> Any:
    """Return a model whose products with weights on the 8-bit grid are ``MatMulNBits`` of 8 bits.

    Args:
        model: of ONNX, its weights in fp32.
    """
    return products_in(model, MORE_BITS, lambda weight: pack(weight, BLOCK) if in_eight_bits(weight, BLOCK) else None)


def eight_bit_table(model: Any, gather: Any) -> Any:
    """Return a model with its token table in 8 bits.

    Args:
        model: of ONNX, its table in fp32 on the 8-bit grid.
        gather: its node that looks tokens up.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == gather.input[0])
    table = numpy_helper.to_array(tensor)
    block = table_block(table.shape[1])
    codes, scales = pack(table, block)
    arrays = {"table_8bit": codes.reshape(table.shape), "table_8bit_scale": scales}
    flags: dict[str, Any] = {"bits": MORE_BITS, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    inputs = ["table_8bit", gather.input[1], "table_8bit_scale"]
    node = helper.make_node("GatherBlockQuantized", inputs, list(gather.output), domain="com.microsoft", **flags)
    others = [other for other in graph.initializer if other is not tensor and other.name != tensor.name]
    nodes = [node if other.output[0] == gather.output[0] else other for other in graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend([*others, *(numpy_helper.from_array(array, name) for name, array in arrays.items())])
    graph.node.extend(nodes)
    allow_own_operators(model)
    return model
