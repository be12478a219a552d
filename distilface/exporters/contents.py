"""What an exported file holds, read from the file itself: its inputs, its outputs, and the types of its weights.

Vectors alone do not show that a file is what its name says: one of fp16 inside passes as fp32 beside a folder that is
stored in fp16 too.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilface.light.openvino import openvino_core
from distilface.runtimes.base import INPUTS

OUTPUTS = ("last_hidden_state", "sentence_embedding")

#: The shape of a matrix, the smaller side first: a runtime may keep it transposed.
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Contents:
    """What an exported file holds.

    Attributes:
        inputs: their types by their names, in the order of the file.
        outputs: likewise.
        opset: of ONNX's operators; ``None`` for OpenVINO.
        weight_bytes: of all constants, by their type.
        matrices: the types of its constants of two sides, by their shapes.
    """

    inputs: dict[str, str]
    outputs: dict[str, str]
    opset: int | None
    weight_bytes: dict[str, int]
    matrices: dict[Shape, frozenset[str]]


def read_contents(file: Path) -> Contents:
    """Read an exported file, of ONNX or of OpenVINO."""
    return _openvino_contents(file) if file.suffix == ".xml" else _onnx_contents(file)


def _onnx_contents(file: Path) -> Contents:
    import onnx

    model = onnx.load(file)
    onnx.checker.check_model(model)
    # The raw bytes where there are some: two numbers of 4 bits share one, and as an array they would not.
    constants = [
        (_onnx_type(t.data_type), tuple(t.dims), len(t.raw_data) or onnx.numpy_helper.to_array(t).nbytes)
        for t in _tensors(model)
    ]
    # A file of older onnx lists its weights among its inputs too.
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs, outputs = (
        {port.name: _onnx_type(port.type.tensor_type.elem_type) for port in ports if port.name not in weights}
        for ports in (model.graph.input, model.graph.output)
    )
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return _contents(inputs, outputs, opset, constants)


def _onnx_type(number: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(number)).lower()


def _tensors(model: Any) -> Iterator[Any]:
    """Yield the constants of a model, those of ``Constant`` nodes among them."""
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")


def _openvino_contents(file: Path) -> Contents:
    model: Any = openvino_core().read_model(str(file))
    constants = [
        (_openvino_type(node), tuple(node.get_output_shape(0)), int(node.get_byte_size()))
        for node in model.get_ops()
        if node.get_type_name() == "Constant"
    ]
    inputs, outputs = (
        {port.get_any_name(): _openvino_type(port) for port in ports} for ports in (model.inputs, model.outputs)
    )
    return _contents(inputs, outputs, None, constants)


#: OpenVINO's names of types, where ONNX has others.
_TYPES = {"f32": "float", "f16": "float16", "bf16": "bfloat16", "i64": "int64", "i8": "int8", "u8": "uint8"}


def _openvino_type(port: Any) -> str:
    name: str = port.get_element_type().get_type_name()
    return _TYPES.get(name, name)


def _contents(
    inputs: dict[str, str], outputs: dict[str, str], opset: int | None, constants: list[tuple[str, Shape, int]]
) -> Contents:
    sizes: Counter[str] = Counter()
    matrices: dict[Shape, set[str]] = {}
    for kind, shape, size in constants:
        sizes[kind] += size
        if len(shape) == 2 and min(shape) > 1:
            matrices.setdefault(tuple(sorted(shape)), set()).add(kind)
    return Contents(inputs, outputs, opset, dict(sizes), {shape: frozenset(kinds) for shape, kinds in matrices.items()})


def contents_refusal(contents: Contents, source: Contents, weights: frozenset[str]) -> str | None:
    """Return why a file is not what its name says, or ``None``.

    Args:
        contents: of the file.
        source: of the fp32 file that it was made from, by which a weight matrix is known by its shape.
        weights: the types in which its matrices may be stored.
    """
    if contents.inputs != dict.fromkeys(INPUTS, "int64"):
        return f"its inputs are {contents.inputs}, not {', '.join(INPUTS)} of int64"
    if contents.outputs != dict.fromkeys(OUTPUTS, "float"):
        return f"its outputs are {contents.outputs}, not {', '.join(OUTPUTS)} of fp32"
    for shape in source.matrices:
        if wrong := contents.matrices.get(shape, frozenset()) - weights:
            sides = " x ".join(map(str, shape))
            return f"it holds a weight of {sides} in {', '.join(sorted(wrong))}, not in {' or '.join(sorted(weights))}"
    if not set(contents.weight_bytes) & weights:
        return f"it holds no weight in {' or '.join(sorted(weights))}, but {', '.join(sorted(contents.weight_bytes))}"
    return None
