"""Products in int8 of a file in fp32: the rows that go in are whole numbers, on scales without a part of other texts.

onnxruntime's own dynamic int8 takes one scale for all rows, so a text's vector depends on what it is embedded with.
Here it depends on the text alone, but for the last bits, and the whole numbers are multiplied as fast: a row's scale is
taken out before the product and put back after it, or it is the same for whatever text.
"""

from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from distilface.light.expanding import put, put_in_fp32, write_model
from distilface.light.graphs import Emitted, allow_own_operators
from distilface.light.lookups import LARGEST, FirstRows, first_rows, saves_enough
from distilface.light.products import Product, Products, joined
from distilface.light.samples import DRAWN
from distilface.light.whole_numbers import MARGINS, TINY, WIDE_MARGINS, one_grid, smoothing, to_int8

#: What a GELU gives is never below this.
LEAST_GELU = -0.1701
#: The whole number of 8 bits that stands for a 0 of a GELU: those below it are enough for what it gives below 0.
ZERO_OF_GELU = 24
#: The operators that are written are of this version of ONNX, or later.
OPSET = 18


def multiply_by_rows(file: Path, target: Path, in_pairs: bool = False) -> None:
    """Write a file with its products by weights in int8.

    Rows have one scale, with what makes their columns large moved to the weights, where that is nearly as good
    (:func:`distilface.light.whole_numbers.one_grid`). Otherwise each row has its own, and is so smoothed where it pays
    (:func:`distilface.light.whole_numbers.smoothing`). Both are found on the rows of
    :func:`distilface.light.samples.token_rows`. What a GELU gives, rows of all sizes, has a scale for each; where only
    products read it, it is computed with a tanh, which differs by 0.0005 at most. Products that read the same rows are
    one; the first of them become lookups where that saves much (:mod:`distilface.light.lookups`).

    Args:
        file: an ONNX file in fp32, or one that ``distilface export --formats q4`` wrote.
        target: the file to write, whole or not at all.
        in_pairs: round weights so that two products fit into 16 bits (:func:`distilface.light.whole_numbers.to_int8`).

    Raises:
        ValueError: if it has no product by a weight, keeps weights in another file (which what is kept of it would not
            follow), is of an ONNX version before :data:`OPSET`, or does not look tokens up in a table. What onnxruntime
            cannot run for other reasons raises its own errors.
    """
    import onnx

    model = onnx.load(file, load_external_data=False)
    _check(model)
    put_in_fp32(model)
    _Rewriting(model, in_pairs).rewrite(file)
    write_model(model, target)


def _check(model: Any) -> None:
    """Refuse a model that cannot be rewritten."""
    from onnx.external_data_helper import uses_external_data

    if any(map(uses_external_data, model.graph.initializer)):
        raise ValueError("its weights lie in another file")
    version = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if version < OPSET:
        raise ValueError(f"it is of ONNX's operators {version}, and {OPSET} are needed")


class _Rewriting:
    """The products of a graph by weights, which are rewritten.

    Args:
        model: in fp32; it is changed.
        in_pairs: round weights so that two products fit into 16 bits.
    """

    def __init__(self, model: Any, in_pairs: bool) -> None:
        self._model, self._graph, self._in_pairs = model, model.graph, in_pairs
        self._products, self._new = Products(model), Emitted()

    def rewrite(self, file: Path) -> None:
        """Put the products in int8 in the place of those in fp32.

        Args:
            file: of the model, near which its tokenizer lies.
        """
        groups = self._products.groups
        self._use_tanh()
        rows, looked_up = self._products.recorded(file), self._looked_up()
        places = {group[0].node.output[0]: (name, group) for name, group in groups.items()}
        gone = {output for group in groups.values() for each in group for output in (each.node.output[0], each.output)}
        for node in self._graph.node:
            if place := places.get(node.output[0]):
                name, group = place
                if looked_up is not None and name == looked_up.name:
                    self._look_up(looked_up, group)
                else:
                    self._multiply(name, group, rows[name])
            elif node.output[0] not in gone:
                self._new.nodes.append(node)
        put(self._graph, self._new.nodes, [*self._graph.initializer, *self._new.tensors])
        allow_own_operators(self._model)

    def _multiply(self, name: str, group: Sequence[Product], rows: np.ndarray) -> None:
        """Emit the products of the same rows, as one.

        Args:
            name: of the rows.
            group: the products.
            rows: what they are for a few texts, shape (n, K).
        """
        emit, constant, key = self._new.emit, self._new.constant, self._new.key(name)
        weight, bias = joined(group)
        of_gelu = name in self._products.gelus
        moved = None if of_gelu else smoothing(rows[: prod(DRAWN)], weight, self._in_pairs)
        margins = MARGINS if name in self._products.normalized else WIDE_MARGINS
        grid = None if of_gelu else one_grid(rows, weight, moved, self._in_pairs, margins)
        shares, smoothed = moved if grid is None else grid.shares, name
        if shares is not None:
            weight, smoothed = weight * shares[:, None], f"{key}_smoothed"
            emit("Mul", [name, constant(f"{key}_shares", 1 / shares)], smoothed)
        codes, steps = to_int8(weight, self._in_pairs)
        kept = constant(f"{key}_codes", codes)
        if grid is not None:
            one, zero, scales = f"{key}_step", f"{key}_zero", constant(f"{key}_steps", steps)
            constants = [constant(one, grid.step), constant(zero, grid.zero)]
            emit("QuantizeLinear", [smoothed, *constants], f"{key}_rounded")
            product = [f"{key}_rounded", kept, one, scales, zero, "", constant(f"{key}_bias", bias)]
            self._emit_last(key, group, "MatMulIntegerToFloat", product, "com.microsoft")
            return
        size, zero, step = self._round_by_row(name, smoothed)
        one, scales = constant("int8_one", np.float32(1)), constant(f"{key}_steps", steps * step)
        product = [f"{key}_rounded", kept, one, scales, zero]
        emit("MatMulIntegerToFloat", product, f"{key}_whole", domain="com.microsoft")
        emit("Mul", [f"{key}_whole", size], f"{key}_scaled")
        self._emit_last(key, group, "Add", [f"{key}_scaled", constant(f"{key}_bias", bias)])

    def _emit_last(
        self, key: str, group: Sequence[Product], kind: str, inputs: Sequence[str], domain: str = ""
    ) -> None:
        """Emit the last node of the products of the same rows, and give each product its own.

        Args:
            key: with which the names begin that belong to the rows.
            group: the products.
            kind: of the node.
            inputs: of the node.
            domain: of the node.
        """
        last = group[0].output if len(group) == 1 else f"{key}_all"
        self._new.emit(kind, inputs, last, domain=domain)
        if len(group) > 1:
            sizes = self._new.constant(f"{key}_widths", np.array([len(each.bias) for each in group]))
            self._new.emit("Split", [last, sizes], *(each.output for each in group), axis=-1)

    def _round_by_row(self, name: str, smoothed: str) -> tuple[str, str, np.float32]:
        """Emit the rounding of rows, each on a scale of its own.

        Args:
            name: of the rows.
            smoothed: their name where large columns have been moved to the weights.

        Returns:
            The name of each row's size, that of the code of 0, and the step of a code in a row of size 1.
        """
        emit, constant, key = self._new.emit, self._new.constant, self._new.key(name)
        if name in self._products.gelus:
            greatest, zero, sizes = 255 - ZERO_OF_GELU, constant("int8_zero_of_gelu", np.uint8(ZERO_OF_GELU)), name
            least = constant("int8_least_of_gelu", np.float32(-LEAST_GELU / ZERO_OF_GELU * greatest))
        else:
            greatest, zero, sizes = 127, constant("int8_middle", np.uint8(128)), f"{key}_sizes"
            least = constant("int8_tiny", np.float32(TINY))
            emit("Abs", [smoothed], sizes)
        emit("ReduceMax", [sizes, constant("int8_last_axis", np.array([-1]))], f"{key}_largest", keepdims=1)
        emit("Max", [f"{key}_largest", least], f"{key}_size")
        emit("Div", [smoothed, f"{key}_size"], f"{key}_of_it")
        step = np.float32(1 / greatest)
        emit("QuantizeLinear", [f"{key}_of_it", constant(f"int8_step_{greatest}", step), zero], f"{key}_rounded")
        return f"{key}_size", zero, step

    def _use_tanh(self) -> None:
        """Have a GELU computed with a tanh where nothing but products reads it."""
        from onnx import helper

        for name, gelu in self._products.gelus.items():
            if not gelu.domain and self._products.alone_read(name):
                del gelu.attribute[:]
                gelu.attribute.append(helper.make_attribute("approximate", "tanh"))

    def _looked_up(self) -> FirstRows | None:
        """Return the rows whose products are looked up, if that saves enough."""
        groups = self._products.groups
        first = first_rows(self._graph.node, self._products.constants)
        if first is None or first.name not in groups:
            return None
        multiplied = sum(each.weight.size for group in groups.values() for each in group)
        return first if saves_enough(first, sum(len(each.bias) for each in groups[first.name]), multiplied) else None

    def _look_up(self, first: FirstRows, group: Sequence[Product]) -> None:
        """Emit the products of the first rows: rows of tables, over the deviation that the normalization gives."""
        from onnx import TensorProto

        emit, constant, key = self._new.emit, self._new.constant, self._new.key(first.name)
        weight, bias = joined(group)
        (tokens, *others), added = first.times(weight)
        first.normalization.output.extend(["", f"{key}_inverse"])
        tokens = tokens if np.abs(tokens).max() > LARGEST else tokens.astype(np.float16)
        emit("Gather", [constant(f"{key}_tokens", tokens), first.parts[0].index], f"{key}_kept")
        emit("Cast", [f"{key}_kept"], f"{key}_sum_0", to=TensorProto.FLOAT)
        for number, (part, table) in enumerate(zip(first.parts[1:], others, strict=True), 1):
            emit("Gather", [constant(f"{key}_table_{number}", table), part.index], f"{key}_rows_{number}")
            emit("Add", [f"{key}_sum_{number - 1}", f"{key}_rows_{number}"], f"{key}_sum_{number}")
        emit("Mul", [f"{key}_sum_{len(others)}", f"{key}_inverse"], f"{key}_scaled")
        self._emit_last(key, group, "Add", [f"{key}_scaled", constant(f"{key}_bias", added + bias)])
