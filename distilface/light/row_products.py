"""Products in int8 of a file in fp32: of each row that goes in, whole numbers on a scale of its own.

onnxruntime's own dynamic int8 takes one scale for all rows, so a text's vector depends on what it is embedded with.
Here it depends on the text alone, but for the last bits, and the whole numbers are multiplied as fast: a row's scale is
taken out before the product and put back after it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilface.light.expanding import IDS, put, put_in_fp32
from distilface.light.lookups import LARGEST, FirstRows, first_rows, pays
from distilface.light.session import usable_threads
from distilface.light.whole_numbers import TINY, smoothing, to_int8
from distilface.storage import whole_file

#: What a GELU gives is never below this, so all 256 whole numbers can stand for what lies above.
LEAST_GELU = -0.1701
#: The operators that are written are of this version of ONNX, or later.
OPSET = 18
#: Texts, and tokens of each, on which the numbers that go into a product are looked at: tokens at random.
SAMPLE = (64, 24)


def multiply_by_rows(file: Path, target: Path, in_pairs: bool = False, unsigned: bool = False) -> None:
    """Write a file with its products by weights in int8.

    What a GELU gives is rounded to 256 numbers above its least; it is reckoned with a tanh, which differs by 0.0005 at
    most, and a step is mostly ten times that. Of other rows, where it pays, what makes a column large goes to the
    weights first (:func:`distilface.light.whole_numbers.smoothing`), as the rows of random tokens show it: which
    columns are large depends little on the text. Products that read the same rows are one; the first of them become
    lookups where that saves much (:mod:`distilface.light.lookups`).

    Args:
        file: an ONNX file in fp32, or one that ``distilface export --formats q4`` wrote.
        target: the file to write, whole or not at all.
        in_pairs: round weights so that two products fit into 16 bits (:func:`distilface.light.whole_numbers.to_int8`).
        unsigned: keep the weights as numbers around 128: another instruction, the same products.

    Raises:
        ValueError: if it has no product by a weight, keeps weights in another file (which what is kept of it would not
            follow), is of an ONNX version before :data:`OPSET`, or does not look tokens up in a table.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    _check(model)
    put_in_fp32(model)
    _Products(model, in_pairs, unsigned).rewrite()
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


class _Products:
    """The products of a graph by weights, which are rewritten.

    Args:
        model: in fp32; it is changed.
        in_pairs: round weights so that two products fit into 16 bits.
        unsigned: keep the weights as numbers around 128.
    """

    def __init__(self, model: Any, in_pairs: bool, unsigned: bool) -> None:
        from onnx import numpy_helper

        self._model, self._graph, self._in_pairs, self._unsigned = model, model.graph, in_pairs, unsigned
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in self._graph.initializer}
        self._readers: defaultdict[str, list[Any]] = defaultdict(list)
        for node in self._graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._outputs = {output.name for output in self._graph.output}
        self._gelus = {node.output[0]: node for node in self._graph.node if node.op_type == "Gelu"}
        self._nodes: list[Any] = []
        self._added: list[Any] = []

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
                    self._look_up(firsts[name], group)
                else:
                    self._multiply(name, group, rows[name])
            elif node.output[0] not in gone:
                self._nodes.append(node)
        put(self._graph, self._nodes, [*self._graph.initializer, *self._added])
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
        weight = np.concatenate([each.weight for each in group], axis=1)
        bias = np.concatenate([each.bias for each in group])
        gelu = name in self._gelus
        moved = None if gelu else smoothing(rows, weight, self._in_pairs)
        whole, scale, top = self._rounded(name, gelu, moved)
        if moved is not None:
            weight = weight * moved[:, None]
        codes, steps = to_int8(weight, self._in_pairs)
        if gelu:  # what was added to every number that goes in comes off again
            bias = bias + np.float32(LEAST_GELU) * (codes * steps).sum(axis=0)
        key = f"{name}_product"
        kept = (codes.astype(np.int16) + 128).astype(np.uint8) if self._unsigned else codes
        product = [whole, self._constant(f"{key}_codes", kept), self._constant(f"{key}_one", np.float32(1))]
        product += [self._constant(f"{key}_steps", steps * scale), self._zero(gelu)]
        product += [self._constant("middle", np.uint8(128))] if self._unsigned else []
        self._emit("MatMulIntegerToFloat", product, f"{key}_whole", domain="com.microsoft")
        self._emit("Mul", [f"{key}_whole", top], f"{key}_scaled")
        self._finish(key, bias, group)

    def _finish(self, key: str, bias: np.ndarray, group: Sequence[_Product]) -> None:
        """Emit what is added to the products of the same rows, and give each its own."""
        last = group[0].output if len(group) == 1 else f"{key}_all"
        self._emit("Add", [f"{key}_scaled", self._constant(f"{key}_bias", bias.astype(np.float32))], last)
        if len(group) > 1:
            sizes = self._constant(f"{key}_sizes", np.array([len(each.bias) for each in group]))
            self._emit("Split", [last, sizes], *(each.output for each in group), axis=-1)

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
        return {
            name: rows
            for name, rows in found.items()
            if pays(rows, sum(len(each.bias) for each in groups.get(name, [])), multiplied)
        }

    def _look_up(self, first: FirstRows, group: Sequence[_Product]) -> None:
        """Emit the products of the first rows: rows of tables, over the deviation that the normalization gives."""
        from onnx import TensorProto

        key = f"{first.normalization.output[0]}_lookup"
        tables, constant = first.times(np.concatenate([each.weight for each in group], axis=1))
        first.normalization.output.extend(["", f"{key}_inverse"])
        ids, *others = zip(first.parts, tables, strict=True)
        table = ids[1] if np.abs(ids[1]).max() > LARGEST else ids[1].astype(np.float16)
        self._emit("Gather", [self._constant(f"{key}_0", table), ids[0].index], f"{key}_ids")
        self._emit("Cast", [f"{key}_ids"], f"{key}_sum_0", to=TensorProto.FLOAT)
        for number, (part, table) in enumerate(others, 1):
            self._emit("Gather", [self._constant(f"{key}_{number}", table), part.index], f"{key}_rows_{number}")
            self._emit("Add", [f"{key}_sum_{number - 1}", f"{key}_rows_{number}"], f"{key}_sum_{number}")
        self._emit("Mul", [f"{key}_sum_{len(others)}", f"{key}_inverse"], f"{key}_scaled")
        self._finish(key, constant + np.concatenate([each.bias for each in group]), group)

    def _rounded(self, name: str, gelu: bool, moved: np.ndarray | None) -> tuple[str, np.float32, str]:
        """Emit the rounding of rows; return the name of the codes, the step of one, and the name of each row's size."""
        key, shown, greatest = f"{name}_rows", name, 255 if gelu else 127
        if gelu:
            shown = f"{key}_above"
            self._emit("Sub", [name, self._constant("least_gelu", np.float32(LEAST_GELU))], shown)
        elif moved is not None:
            shown = f"{key}_moved"
            self._emit("Mul", [name, self._constant(f"{key}_shares", 1 / moved)], shown)
        sizes = shown if gelu else f"{key}_sizes"
        if not gelu:
            self._emit("Abs", [shown], sizes)
        self._emit("ReduceMax", [sizes, self._constant("last_axis", np.array([-1]))], f"{key}_largest", keepdims=1)
        self._emit("Max", [f"{key}_largest", self._constant("tiny", np.float32(TINY))], f"{key}_size")
        self._emit("Div", [shown, f"{key}_size"], f"{key}_of_it")
        step = np.float32(1 / greatest)
        rounding = [f"{key}_of_it", self._constant(f"step_{greatest}", step), self._zero(gelu)]
        self._emit("QuantizeLinear", rounding, f"{key}_codes")
        return f"{key}_codes", step, f"{key}_size"

    def _zero(self, gelu: bool) -> str:
        """Return the name of the code that stands for 0."""
        return self._constant("lowest", np.uint8(0)) if gelu else self._constant("middle", np.uint8(128))

    def _emit(self, kind: str, inputs: Sequence[str], *outputs: str, **settings: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, outputs, **settings))

    def _constant(self, name: str, value: Any) -> str:
        """Return the name of a constant, which is added to the graph if it is not there."""
        from onnx import numpy_helper

        name = f"int8_{name}"
        if name not in self._constants:
            self._constants[name] = np.asarray(value)
            self._added.append(numpy_helper.from_array(self._constants[name], name))
        return name
