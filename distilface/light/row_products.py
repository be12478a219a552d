"""Products in int8 of a file in fp32: of each row that goes in, whole numbers on a scale of its own.

onnxruntime's own dynamic int8 takes one scale for all rows, so a text's vector depends on what it is embedded with.
Here it depends on the text alone, but for the last bits, and the whole numbers are multiplied as fast: a row's scale is
taken out before the product and put back after it, or it is the same for whatever text.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilface.light.expanding import IDS, put, put_in_fp32
from distilface.light.graphs import Emitted
from distilface.light.lookups import LARGEST, FirstRows, first_rows, pays
from distilface.light.session import usable_threads
from distilface.light.whole_numbers import TINY, one_grid, smoothing, to_int8
from distilface.storage import whole_file

#: What a GELU gives is never below this, so all 256 whole numbers can stand for what lies above.
LEAST_GELU = -0.1701
#: The operators that are written are of this version of ONNX, or later.
OPSET = 18
#: Texts, and tokens of each, on which the numbers that go into a product are looked at: tokens at random.
SAMPLE = (64, 24)


def multiply_by_rows(file: Path, target: Path, in_pairs: bool = False) -> None:
    """Write a file with its products by weights in int8.

    What a GELU gives is rounded to 256 numbers above its least; it is reckoned with a tanh, which differs by 0.0005 at
    most, and a step is mostly ten times that. Of other rows, where it pays, what makes a column large goes to the
    weights first (:func:`distilface.light.whole_numbers.smoothing`), as the rows of random tokens show it: which
    columns are large depends little on the text. The rows that a normalization gives have one scale, where that is
    nearly as good (:func:`distilface.light.whole_numbers.one_grid`). Products that read the same rows are one; the
    first of them become lookups where that saves much (:mod:`distilface.light.lookups`).

    Args:
        file: an ONNX file in fp32, or one that ``distilface export --formats q4`` wrote.
        target: the file to write, whole or not at all.
        in_pairs: round weights so that two products fit into 16 bits (:func:`distilface.light.whole_numbers.to_int8`).

    Raises:
        ValueError: if it has no product by a weight, keeps weights in another file (which what is kept of it would not
            follow), is of an ONNX version before :data:`OPSET`, or does not look tokens up in a table.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    _check(model)
    put_in_fp32(model)
    _Products(model, in_pairs).rewrite()
    with whole_file(target) as stream:
        stream.write(model.SerializeToString())


def _check(model: Any) -> None:
    """Refuse a model that cannot be rewritten."""
    from onnx.external_data_helper import uses_external_data

    if any(map(uses_external_data, model.graph.initializer)):
        raise ValueError("its weights lie in another file")
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version < OPSET:
        raise ValueError(f"it is of ONNX's operators {version}, and {OPSET} are needed")


@dataclass(frozen=True)
class _Product:
    """A product by a weight, with the bias that is added to it, if one is.

    Attributes:
        node: of the product.
        weight: shape (K, N).
        bias: shape (N,).
        adding: the node that adds it.
    """

    node: Any
    weight: np.ndarray
    bias: np.ndarray
    adding: Any | None

    @property
    def output(self) -> str:
        """The name of what it gives, with its bias."""
        return str((self.adding or self.node).output[0])


def _joined(group: Sequence[_Product]) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights of products of the same rows side by side, shape (K, N), and their biases, shape (N,)."""
    weights, biases = [each.weight for each in group], [each.bias for each in group]
    return np.concatenate(weights, axis=1), np.concatenate(biases)


class _Products:
    """The products of a graph by weights, which are rewritten.

    Args:
        model: in fp32; it is changed.
        in_pairs: round weights so that two products fit into 16 bits.
    """

    def __init__(self, model: Any, in_pairs: bool) -> None:
        from onnx import numpy_helper

        self._model, self._graph, self._in_pairs = model, model.graph, in_pairs
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.initializer}
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in self._graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {output.name for output in self._graph.output}
        self._gelus, self._normalized = (
            {node.output[0]: node for node in self._graph.node if node.op_type == kind}
            for kind in ("Gelu", "LayerNormalization")
        )
        self._new = Emitted("int8")

    def rewrite(self) -> None:
        """Put the products in int8 in the place of those in fp32."""
        groups: dict[str, list[_Product]] = {}
        for node in self._graph.node:
            if node.op_type == "MatMul" and self._constants.get(node.input[1], np.empty(0)).ndim == 2:
                groups.setdefault(node.input[0], []).append(self._product(node))
        if not groups:
            raise ValueError("it has no product by a weight")
        self._hasten(groups)
        rows, firsts = self._recorded(list(groups)), self._looked_up(groups)
        first = {group[0].node.output[0]: (name, group) for name, group in groups.items()}
        gone = {output for group in groups.values() for each in group for output in (each.node.output[0], each.output)}
        for node in self._graph.node:
            if found := first.get(node.output[0]):
                name, group = found
                if name in firsts:
                    self._look_up(name, firsts[name], group)
                else:
                    self._multiply(name, group, rows[name])
            elif node.output[0] not in gone:
                self._new.nodes.append(node)
        put(self._graph, self._new.nodes, [*self._graph.initializer, *self._new.tensors])
        if not any(each.domain == "com.microsoft" for each in self._model.opset_import):
            self._model.opset_import.add(domain="com.microsoft", version=1)

    def _product(self, node: Any) -> _Product:
        """Return a product with what is added to it, where that is a constant and all that reads it."""
        weight, readers = self._constants[node.input[1]], self._readers[node.output[0]]
        none = np.zeros(weight.shape[1], np.float32)
        if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in self._outputs:
            return _Product(node, weight, none, None)
        others = [name for name in readers[0].input if name != node.output[0]]
        bias = self._constants.get(others[0]) if len(others) == 1 else None
        if bias is None or bias.shape != none.shape:
            return _Product(node, weight, none, None)
        return _Product(node, weight, bias, readers[0])

    def _recorded(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return what some tensors hold for random tokens, each of shape (rows, K)."""
        import onnxruntime
        from onnx import ModelProto, TensorProto, helper

        watched = ModelProto()
        watched.CopyFrom(self._model)
        watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_threads()
        session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
        lookups = [node for node in self._graph.node if node.op_type == "Gather" and node.input[1] == IDS]
        if not lookups or lookups[0].input[0] not in self._constants:
            raise ValueError(f"no table is looked up by {IDS}")
        ids = np.random.default_rng(0).integers(0, len(self._constants[lookups[0].input[0]]), SAMPLE)
        given = {IDS: ids, "attention_mask": np.ones_like(ids)}
        reads = {port.name for port in session.get_inputs()}
        outputs = session.run(list(names), {name: array for name, array in given.items() if name in reads})
        return {name: rows.reshape(-1, rows.shape[-1]) for name, rows in zip(names, outputs, strict=True)}

    def _multiply(self, name: str, group: Sequence[_Product], rows: np.ndarray) -> None:
        """Emit the products of the same rows, as one."""
        weight, bias = _joined(group)
        shown, moved = name, None if name in self._gelus else smoothing(rows, weight, self._in_pairs)
        if moved is not None:
            rows, weight, shown = rows / moved, weight * moved[:, None], f"{name}_moved"
            self._new.emit("Mul", [name, self._constant(f"{name}_shares", 1 / moved)], shown)
        codes, steps = to_int8(weight, self._in_pairs)
        kept = self._constant(f"{name}_codes", codes)
        if name in self._normalized and (grid := one_grid(rows, weight, codes, steps)):
            step, zero = (
                self._constant(f"{name}_{word}", value) for word, value in zip(("step", "zero"), grid, strict=True)
            )
            self._new.emit("QuantizeLinear", [shown, step, zero], f"{name}_rounded")
            product = [f"{name}_rounded", kept, step, self._constant(f"{name}_steps", steps), zero, ""]
            self._give(
                name, group, "MatMulIntegerToFloat", [*product, self._constant(f"{name}_bias", bias)], "com.microsoft"
            )
            return
        whole, scale, size, zero = self._by_row(name, shown)
        if name in self._gelus:  # what was added to every number that goes in comes off again
            bias = bias + np.float32(LEAST_GELU) * (codes * steps).sum(axis=0)
        product = [
            whole,
            kept,
            self._constant("one", np.float32(1)),
            self._constant(f"{name}_steps", steps * scale),
            zero,
        ]
        self._new.emit("MatMulIntegerToFloat", product, f"{name}_whole", domain="com.microsoft")
        self._new.emit("Mul", [f"{name}_whole", size], f"{name}_scaled")
        self._give(name, group, "Add", [f"{name}_scaled", self._constant(f"{name}_bias", bias.astype(np.float32))])

    def _give(self, name: str, group: Sequence[_Product], kind: str, inputs: Sequence[str], domain: str = "") -> None:
        """Emit the last node of the products of the same rows, and give each product its own."""
        last = group[0].output if len(group) == 1 else f"{name}_all"
        self._new.emit(kind, inputs, last, domain=domain)
        if len(group) > 1:
            sizes = self._constant(f"{name}_widths", np.array([len(each.bias) for each in group]))
            self._new.emit("Split", [last, sizes], *(each.output for each in group), axis=-1)

    def _by_row(self, name: str, shown: str) -> tuple[str, np.float32, str, str]:
        """Emit the rounding of rows, each on a scale of its own.

        Args:
            name: of the rows.
            shown: their name where large columns have been moved to the weights.

        Returns:
            The name of the codes, the step of one, the name of each row's size, and that of the code of 0.
        """
        emit, gelu = self._new.emit, name in self._gelus
        greatest, zero = (
            (255, self._constant("lowest", np.uint8(0))) if gelu else (127, self._constant("middle", np.uint8(128)))
        )
        sizes = f"{name}_above" if gelu else f"{name}_sizes"
        if gelu:
            emit("Sub", [name, self._constant("least_gelu", np.float32(LEAST_GELU))], sizes)
            shown = sizes
        else:
            emit("Abs", [shown], sizes)
        emit("ReduceMax", [sizes, self._constant("last_axis", np.array([-1]))], f"{name}_largest", keepdims=1)
        emit("Max", [f"{name}_largest", self._constant("tiny", np.float32(TINY))], f"{name}_size")
        emit("Div", [shown, f"{name}_size"], f"{name}_of_it")
        step = np.float32(1 / greatest)
        emit("QuantizeLinear", [f"{name}_of_it", self._constant(f"step_{greatest}", step), zero], f"{name}_rounded")
        return f"{name}_rounded", step, f"{name}_size", zero

    def _hasten(self, groups: Mapping[str, Sequence[_Product]]) -> None:
        """Reckon a GELU with a tanh where only products read it."""
        from onnx import helper

        for name, gelu in self._gelus.items():
            if not gelu.domain and len(self._readers[name]) == len(groups.get(name, [])):
                del gelu.attribute[:]
                gelu.attribute.append(helper.make_attribute("approximate", "tanh"))

    def _looked_up(self, groups: Mapping[str, Sequence[_Product]]) -> dict[str, FirstRows]:
        """Return the rows whose products are looked up, by their name."""
        multiplied = sum(each.weight.size for group in groups.values() for each in group)
        found = first_rows(self._graph.node, self._constants)
        widths = {name: sum(len(each.bias) for each in groups.get(name, [])) for name in found}
        return {name: first for name, first in found.items() if pays(first, widths[name], multiplied)}

    def _look_up(self, name: str, first: FirstRows, group: Sequence[_Product]) -> None:
        """Emit the products of the first rows: rows of tables, over the deviation that the normalization gives."""
        from onnx import TensorProto

        weight, bias = _joined(group)
        tables, constant = first.times(weight)
        largest = np.abs(tables[0]).max()
        tables[0] = tables[0] if largest > LARGEST else tables[0].astype(np.float16)
        first.normalization.output.extend(["", f"{name}_inverse"])
        summed = ""
        for number, (part, table) in enumerate(zip(first.parts, tables, strict=True)):
            rows = f"{name}_rows_{number}"
            self._new.emit("Gather", [self._constant(f"{name}_table_{number}", table), part.index], f"{rows}_kept")
            self._new.emit("Cast", [f"{rows}_kept"], rows, to=TensorProto.FLOAT)
            if summed:
                self._new.emit("Add", [summed, rows], f"{name}_sum_{number}")
            summed = f"{name}_sum_{number}" if summed else rows
        self._new.emit("Mul", [summed, f"{name}_inverse"], f"{name}_scaled")
        self._give(name, group, "Add", [f"{name}_scaled", self._constant(f"{name}_bias", constant + bias)])

    def _constant(self, name: str, value: Any) -> str:
        return self._new.constant(name, value)
