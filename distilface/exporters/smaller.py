"""How the ONNX files in fp16 and int8 are made of the one in fp32."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distilface.runtimes.base import INPUTS


def to_fp16(source: Path, target: Path) -> None:
    """Write an ONNX file with fp16 weights, fp32 at its ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


@contextlib.contextmanager
def root_logger_kept() -> Iterator[None]:
    """Keep the quantisers from configuring logging for the whole program, which their ``logging.warning`` does."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


@contextlib.contextmanager
def optimised(source: Path) -> Iterator[Path]:
    """Yield the file after onnxruntime's optimiser; without it, weights that layers share would stay in fp32."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder, root_logger_kept():
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

    with optimised(source) as clean:
        if not _has_products(clean):  # nothing to compute in int8: the file of int8 weights is all there can be
            to_int8_weights(source, target)
            return
        kind = QuantType.QInt8 if signed else QuantType.QUInt8
        quantize_dynamic(clean, target, per_channel=True, weight_type=kind)


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


def int8_tables(source: Path, *excluded: Any) -> Any:
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

    with optimised(source) as clean:
        model = int8_tables(clean) if _has_products(clean) else _int8_rows(clean)
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
