"""How the ONNX file in 4 bits, with a table in 4 or 2, and with parts in 8, is made of the one in fp32."""

from pathlib import Path
from typing import Any

import numpy as np

from distilface.compression.bits import BLOCK, table_block
from distilface.exporters.eight_bits import eight_bit_products, eight_bit_table, in_eight_bits
from distilface.exporters.smaller import int8_tables, optimised, root_logger_kept
from distilface.exporters.two_bits import on_two_bits, two_bit_products, two_bit_table
from distilface.runtimes.base import INPUTS

#: The opset of ONNX that knows numbers of 4 bits.
OPSET_OF_4_BITS = 21


def _q4_table(model: Any) -> Any:
    """Return a model with its table of token embeddings in 4 bits, or in 8, if a row of it is whole blocks."""
    from onnx import numpy_helper
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    tensors = {tensor.name: tensor for tensor in model.graph.initializer if tensor.dims}
    widths = {name: tensor.dims[-1] for name, tensor in tensors.items()}
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    table = [node for node in gathers if node.input[1] == INPUTS[0] and table_block(widths[node.input[0]])]
    if not table:
        return model
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET_OF_4_BITS)  # as the quantiser would, with a warning of its own
    weight = numpy_helper.to_array(tensors[table[0].input[0]]).copy()
    block = table_block(weight.shape[1])
    if in_eight_bits(weight, block):
        return eight_bit_table(model, table[0])
    others = [node.name for node in gathers if node not in table]
    config = DefaultWeightOnlyQuantConfig(
        block_size=block, is_symmetric=True, op_types_to_quantize=("Gather",), quant_axes={"Gather": 1}
    )
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
    with np.errstate(invalid="ignore"):  # it divides a block of zeros by its scale, and then takes zeros
        quantizer.process()
    return quantizer.model.model


def to_q4(source: Path, target: Path) -> None:
    """Write an ONNX file with its weights and its table of token embeddings in 4 bits, or the table in 2.

    Weights are ``MatMulNBits``, the table is ``GatherBlockQuantized``, both ``scale * code`` with a scale in fp16
    for each block: the grid of :func:`distilface.compression.bits.on_grid`, so that weights which are on it are
    written as they are. What was trained in 2 bits is written so (:mod:`~distilface.exporters.two_bits`), and what is
    on the grid of 8 bits, where 4 would lose too much (:mod:`distilface.compression.mixed`), in 8. The small tables of
    positions and types are in int8. The activations stay in fp32, so that a sentence has one embedding in every batch;
    the gain is the size of the file.

    Args:
        source: in fp32, of a model whose weights are on the grid (:func:`distilface.compression.gptq.round_weights`);
            others are rounded to it.
        target: the file to write.
    """
    import onnx

    with root_logger_kept():  # its import configures logging
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    with optimised(source) as clean:
        model = onnx.load(clean)
        if table := on_two_bits(model):
            small = two_bit_table(int8_tables(clean, table))
        else:
            file = clean.with_name("table.onnx")
            onnx.save(_q4_table(model), file)
            small = int8_tables(file)
        small = two_bit_products(small)  # which leaves no product of theirs to the quantiser
        small = eight_bit_products(small)
        quantizer = MatMulNBitsQuantizer(small, bits=4, block_size=BLOCK, is_symmetric=True)
        quantizer.process()
    graph = quantizer.model.model.graph
    # A weight that layers share is added for each of its products, under one name, which onnxruntime refuses.
    once = {tensor.name: tensor for tensor in graph.initializer}
    del graph.initializer[:]
    graph.initializer.extend(once.values())
    _halve_scales(graph)
    del graph.value_info[:]  # shapes that onnxruntime infers itself
    onnx.save(quantizer.model.model, target)


def _halve_scales(graph: Any) -> None:
    """Store the scales of weights in 4 and 8 bits in fp16; onnxruntime casts them once, as it opens the file."""
    import onnx
    from onnx import helper, numpy_helper

    scales = {node.input[2] for node in graph.node if node.op_type in ("MatMulNBits", "GatherBlockQuantized")}
    kept, casts = [], []
    for tensor in graph.initializer:
        if tensor.name not in scales:
            kept.append(tensor)
            continue
        half = numpy_helper.to_array(tensor).astype(np.float16)
        kept.append(numpy_helper.from_array(half, f"{tensor.name}_half"))
        casts.append(helper.make_node("Cast", [f"{tensor.name}_half"], [tensor.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
