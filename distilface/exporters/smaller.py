"""How the smaller ONNX files are made of the one in fp32: fp16, int8 and 4 bits."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distilface.compression.bits import BLOCK, table_block
from distilface.exporters.two_bits import on_two_bits, two_bit_products, two_bit_table
from distilface.runtimes.base import INPUTS

#: The opset of ONNX that knows numbers of 4 bits.
OPSET_OF_4_BITS = 21


def to_fp16(source: Path, target: Path) -> None:
    """Write an ONNX file with fp16 weights, fp32 at its ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Keep the quantisers from configuring logging for the whole program, which their ``logging.warning`` does."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@contextlib.contextmanager
def _optimised(source: Path) -> Iterator[Path]:
    """Yield the file after onnxruntime's optimiser; without it, weights that layers share would stay in fp32."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, _root_logger_kept():
        file = Path(folder) / "optimised.onnx"
        quant_pre_process(source, file, skip_symbolic_shape=True)
        yield file


def to_int8(source: Path, target: Path, signed: bool) -> None:
    """Write an ONNX file with int8 weights, the embedding table among them, a scale for each channel.

    A model without products of matrices gets the file of :func:`to_int8_weights`.

    Args:
        source: in fp32.
        target: the file to write.
        signed: weights from -128; without VNNI, x86 adds their products in 16 bits, which can overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _optimised(source) as optimised:
        if not _has_products(optimised):  # nothing to compute in int8: the file of int8 weights is all there can be
            to_int8_weights(source, target)
            return
        kind = QuantType.QInt8 if signed else QuantType.QUInt8
        quantize_dynamic(optimised, target, per_channel=True, weight_type=kind)


def _has_products(file: Path) -> bool:
    """Return whether an ONNX file multiplies matrices; that of a static model does not."""
    import onnx

    return any(node.op_type in ("MatMul", "Gemm") for node in onnx.load(file, load_external_data=False).graph.node)


def _int8_rows(source: Path) -> Any:
    """Return the model of an ONNX file with its token table in int8, a scale for each row.

    The rows of a static model weight its pieces: the least is hundreds of times smaller than the greatest, and with one
    scale for all it would be rounded to nothing.
    """
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(source)
    graph = model.graph
    gather = next(node for node in graph.node if node.op_type == "Gather" and node.input[1] == INPUTS[0])
    tensor = next(tensor for tensor in graph.initializer if tensor.name == gather.input[0])
    table, output = numpy_helper.to_array(tensor), gather.output[0]
    scale = (np.abs(table).max(axis=1, keepdims=True) / 127).clip(np.finfo(np.float32).tiny)
    kept = [other for other in graph.initializer if other is not tensor]
    kept += [
        numpy_helper.from_array(np.round(table / scale).astype(np.int8), "table_int8"),
        numpy_helper.from_array(scale, "table_scale"),
    ]
    nodes = [
        helper.make_node("Gather", ["table_int8", INPUTS[0]], ["rows_int8"]),
        helper.make_node("Cast", ["rows_int8"], ["rows_float"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Gather", ["table_scale", INPUTS[0]], ["rows_scale"]),
        helper.make_node("Mul", ["rows_float", "rows_scale"], [output]),
        *(node for node in graph.node if node is not gather),
    ]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return model


def _int8_tables(source: Path, *excluded: Any) -> Any:
    """Return the model of an ONNX file with its embedding tables in int8, and its other weights as they were.

    Args:
        source: in fp32.
        excluded: nodes whose table stays as it is.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    tables = source.with_name("tables.onnx")
    quantize_dynamic(
        source,
        tables,
        op_types_to_quantize=["Gather"],
        weight_type=QuantType.QUInt8,
        nodes_to_exclude=[node.name for node in excluded],
    )
    return onnx.load(tables)


def _q4_table(model: Any) -> Any:
    """Return a model with its table of token embeddings in 4 bits, if a row of it is whole blocks."""
    from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    widths = {tensor.name: tensor.dims[-1] for tensor in model.graph.initializer if tensor.dims}
    gathers = [node for node in model.graph.node if node.op_type == "Gather"]
    table = [node for node in gathers if node.input[1] == INPUTS[0] and table_block(widths[node.input[0]])]
    if not table:
        return model
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = max(entry.version, OPSET_OF_4_BITS)  # as the quantiser would, with a warning of its own
    others = [node.name for node in gathers if node not in table]
    block = table_block(widths[table[0].input[0]])
    config = DefaultWeightOnlyQuantConfig(
        block_size=block, is_symmetric=True, op_types_to_quantize=("Gather",), quant_axes={"Gather": 1}
    )
    quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=others, algo_config=config)
    with np.errstate(invalid="ignore"):  # it divides a block of zeros by its scale, and then takes zeros
        quantizer.process()
    return quantizer.model.model


def to_int8_weights(source: Path, target: Path) -> None:
    """Write an ONNX file whose weights are int8, a scale for each channel, and whose activations are not.

    ``W = scale * int8``, rounded to nearest, of at most half a step's error. All of it is constant, so onnxruntime
    computes it once, as it opens the file, and then works in fp32, in as much time and memory; the gain is the size of
    the file. A sentence has one embedding in every batch and, to the last bits of fp32, in every runtime.

    Args:
        source: in fp32.
        target: the file to write.
    """
    import onnx
    from onnx import helper, numpy_helper

    with _optimised(source) as optimised:
        model = _int8_tables(optimised) if _has_products(optimised) else _int8_rows(optimised)
    graph = model.graph
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    weights = {node.input[1] for node in products}
    # A Gemm may hold its weight transposed: then a row belongs to an output, elsewhere a column.
    transposed = {node.input[1] for node in products for flag in node.attribute if flag.name == "transB" and flag.i}
    nodes, kept = [], []
    for tensor in graph.initializer:
        if tensor.name not in weights:
            kept.append(tensor)
            continue
        weight, name = numpy_helper.to_array(tensor), tensor.name
        largest = np.abs(weight).max(axis=int(name in transposed), keepdims=True)
        scale = (largest / 127).clip(np.finfo(np.float32).tiny)
        small = np.round(weight / scale).astype(np.int8)
        kept += [numpy_helper.from_array(small, f"{name}_int8"), numpy_helper.from_array(scale, f"{name}_scale")]
        nodes += [
            helper.make_node("Cast", [f"{name}_int8"], [f"{name}_float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [name]),
        ]
    nodes += graph.node
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    onnx.save(model, target)


def to_q4(source: Path, target: Path) -> None:
    """Write an ONNX file with its weights and its table of token embeddings in 4 bits, or the table in 2.

    Weights are ``MatMulNBits``, the table is ``GatherBlockQuantized``, both ``scale * code`` with a scale in fp16
    for each block: the grid of :func:`distilface.compression.bits.on_grid`, so that weights which are on it are
    written as they are. What was trained in 2 bits is written so (:mod:`~distilface.exporters.two_bits`).
    The small tables of positions and types are in int8. The activations stay in fp32, so that a sentence has one
    embedding in every batch; the gain is the size of the file.

    Args:
        source: in fp32, of a model whose weights are on the grid (:func:`distilface.compression.gptq.round_weights`);
            others are rounded to it.
        target: the file to write.
    """
    import onnx

    with _root_logger_kept():  # its import configures logging
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
    with _optimised(source) as optimised:
        model = onnx.load(optimised)
        if table := on_two_bits(model):
            small = two_bit_table(_int8_tables(optimised, table))
        else:
            file = optimised.with_name("table.onnx")
            onnx.save(_q4_table(model), file)
            small = _int8_tables(file)
        small = two_bit_products(small)  # which leaves no product of theirs to the quantiser
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
    """Store the scales of 4-bit weights in fp16; onnxruntime casts them once, as it opens the file."""
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
