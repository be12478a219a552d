"""A file as another, which is kept: of few bits in fp32, or with products in int8. Small to fetch, fast to run."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from distilface.light.files import digest
from distilface.light.session import OUTPUT, PRODUCT

#: Part of the name of what is kept, and of what is remembered of it: another way of writing it takes another.
VERSION = 5
#: onnxruntime's word for products that round what goes in to int8, each block of a row by its own largest number.
ACCURACY, IN_INT8 = "accuracy_level", 4
#: The token ids, as exported files name them.
IDS = "input_ids"
#: What looks tokens up in a table of bits; a lookup of ours in 2 bits ends in these numbers.
LOOKUP, LOOKED_UP = "GatherBlockQuantized", "rows_scaled"


def expand(file: Path, target: Path) -> None:
    """Write a file whose weights and whose table of tokens are of 2, 4 or 8 bits as one of fp32.

    Args:
        file: an ONNX file that ``distilface export --formats q4`` wrote.
        target: the file to write, whole or not at all.
    """
    import onnx

    model = onnx.load(file)
    put_in_fp32(model)
    write_model(model, target)


def put_in_fp32(model: Any) -> None:
    """Put the weights and the table of tokens of an ONNX model in fp32, and leave what leads to its embeddings alone.

    The numbers are those that onnxruntime itself works with: a weight is what the product gives for the unit matrix,
    the table what the lookup gives for every token.

    Args:
        model: it is changed; in one of fp32 no number is.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    rows = {tensor.name: tensor.dims[0] for tensor in graph.initializer if tensor.dims}
    nodes, weights = [], []
    for node in graph.node:
        output, weight = node.output[0], f"{node.output[0]}_fp32"
        if node.op_type == PRODUCT:
            size = next(each.i for each in node.attribute if each.name == "K")
            numbers = _computed(model, {node.input[0]: np.eye(size, dtype=np.float32)}, output)
            node = helper.make_node("MatMul", [node.input[0], weight], [output])
        elif node.op_type == LOOKUP or LOOKED_UP in node.input:
            table = next(name for each in _leading_to(graph.node, output) for name in each.input if name in rows)
            numbers = _computed(model, {IDS: np.arange(rows[table])[None]}, output)[0]
            node = helper.make_node("Gather", [weight, IDS], [output])
        else:
            nodes.append(node)
            continue
        weights.append(numpy_helper.from_array(numbers, weight))
        nodes.append(node)
    put(graph, _leading_to(nodes, OUTPUT), [*graph.initializer, *weights])
    given = {name for node in graph.node for name in node.output}
    outputs = [output for output in graph.output if output.name in given]
    del graph.output[:]
    graph.output.extend(outputs)


def multiply_in_int8(file: Path, target: Path) -> None:
    """Write a file whose products of few bits take whole numbers: what goes into them is rounded to int8.

    Each block of a text's own numbers has its own scale, so a text has one vector in every batch. Where the processor
    has no such kernel, onnxruntime multiplies as before.

    Args:
        file: an ONNX file that ``distilface export --formats q4`` wrote.
        target: the file to write, whole or not at all.
    """
    import onnx
    from onnx import helper

    model = onnx.load(file)
    for node in model.graph.node:
        if node.op_type == PRODUCT:
            others = [each for each in node.attribute if each.name != ACCURACY]
            del node.attribute[:]
            node.attribute.extend([*others, helper.make_attribute(ACCURACY, IN_INT8)])
    write_model(model, target)


def write_model(model: Any, target: Path) -> None:
    """Write an ONNX model, whole or not at all."""
    from distilface.storage import whole_file  # its import takes a while

    with whole_file(target) as stream:
        stream.write(model.SerializeToString())


def kept(file: Path, home: Path, write: Callable[[Path, Path], None]) -> Path:
    """Return a file of a cache folder that is made of another; if it is not there, one process makes it, others wait.

    When it is made, what earlier versions of this package made of the same file goes.

    Args:
        file: an ONNX file.
        home: the cache folder.
        write: :func:`expand`, :func:`multiply_in_int8`, or :func:`distilface.light.row_products.multiply_by_rows`.
    """
    name = digest(file)[:32]
    target = home / f"{name}-{VERSION}.onnx"
    if not target.is_file():
        from filelock import FileLock  # its import takes a while

        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_suffix(".lock")):
            if not target.is_file():
                write(file, target)
                for version in range(1, VERSION):
                    _remove(home / f"{name}-{version}.onnx")
    return target


def _remove(file: Path) -> None:
    """Remove a file and its lock; leave what cannot be removed, as on Windows a file that is open."""
    with suppress(OSError):
        file.unlink(missing_ok=True)
        file.with_suffix(".lock").unlink()


def _leading_to(nodes: Iterable[Any], output: str, given: Iterable[str] = ()) -> list[Any]:
    """Return the nodes, in their order, that an output is computed from, where others are given."""
    needed, found = {output}, []
    for node in reversed(list(nodes)):
        if needed.intersection(node.output):
            needed.update(set(node.input).difference(given))
            found.append(node)
    return found[::-1]


def put(graph: Any, nodes: Iterable[Any], constants: Iterable[Any]) -> None:
    """Give a graph its nodes, and those constants that they read."""
    nodes = list(nodes)
    read = {name for node in nodes for name in node.input}
    constants = [tensor for tensor in constants if tensor.name in read]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _computed(model: Any, given: Mapping[str, np.ndarray], output: str) -> np.ndarray:
    """Return what onnxruntime computes for one tensor of a graph, where others have the values that are given."""
    import onnxruntime
    from onnx import helper

    nodes = _leading_to(model.graph.node, output, given)
    read = {name for node in nodes for name in node.input}
    kinds = {name: helper.np_dtype_to_tensor_dtype(array.dtype) for name, array in given.items()}
    inputs = [helper.make_tensor_value_info(name, kinds[name], array.shape) for name, array in given.items()]
    constants = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, "part", inputs, [helper.make_empty_tensor_value_info(output)], constants)
    part = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = onnxruntime.InferenceSession(part.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([output], dict(given))[0])
