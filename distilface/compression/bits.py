"""Weights on the grid of their quantised file: 4 bits in blocks that share a scale, in training as in the file.

A student that is trained on the grid loses nothing when it is written so: the file holds the codes it was trained with.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: Bits of a weight.
BITS = 4
#: Weights of a linear map, along its input, that share a scale.
BLOCK = 32
#: Weights of a row of an embedding table that share a scale: as many as fit its width.
TABLE_BLOCKS = (64, 32)
#: The codes of a weight: the least, which sets the scale of a block, and the greatest.
LOWEST, HIGHEST = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1


def scale_of(largest: Tensor) -> Tensor:
    """Return the scales of blocks by their values of largest magnitude: those over -8, as fp16 holds them."""
    return (largest / LOWEST).half().to(largest.dtype)


def codes_of(weight: Tensor, scale: Tensor) -> Tensor:
    """Return the nearest codes of weights, from -8 to 7; of a block of zeros, whose scale is 0, they are 0."""
    return (weight / torch.where(scale == 0, 1, scale)).round_().clamp_(LOWEST, HIGHEST)


def on_grid(weight: Tensor, block: int) -> Tensor:
    """Round weights to 4 bits, symmetric, in blocks along their last dimension.

    A block's scale is its value of largest magnitude, with its sign, over -8, in fp16; the codes are from -8 to 7: the
    rule of onnxruntime's quantisers. What is on the grid stays as it is, also after it was stored in fp16.

    Args:
        weight: shape (rows, width), width a multiple of ``block``.
        block: how many weights share a scale.

    Returns:
        ``scale * code``, of the same shape.

    >>> on_grid(torch.tensor([[-0.8, 0.31, 0.0, 0.75]]), 4)
    tensor([[-0.7998,  0.2999,  0.0000,  0.6998]])
    """
    blocks = weight.reshape(-1, block)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = scale_of(largest)
    return (codes_of(blocks, scale) * scale).view_as(weight)


class _Straight(torch.autograd.Function):
    """Rounding whose gradient is that of the identity (straight-through estimator, arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, block: int, rows: Tensor | None) -> Tensor:
        """Return the weight on the grid; where rows are given, only these are rounded."""
        if rows is None:
            return on_grid(weight, block)
        rounded = weight.clone()
        rounded[rows] = on_grid(weight[rows], block)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient as it is; the block and the rows have none."""
        return gradients[0], None, None


def table_block(width: int) -> int:
    """Return how many weights of a table's row share a scale; 0 if a row is not whole blocks."""
    return next((block for block in TABLE_BLOCKS if width % block == 0), 0)


def rounded_modules(model: nn.Module) -> Iterator[tuple[Any, int]]:
    """Yield the modules of a model whose weights the 4-bit file rounds, each with its block.

    These are its linear maps and its table of token embeddings, where a row is whole blocks. The small tables of
    positions and types are not among them.
    """
    module: Any
    tables = {id(table) for table in _token_tables(model)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.in_features % BLOCK == 0:
            yield module, BLOCK
        elif id(module) in tables and (block := table_block(module.weight.shape[1])):
            yield module, block


def _token_tables(model: nn.Module) -> Iterator[nn.Module]:
    module: Any
    for module in model.modules():
        if hasattr(module, "get_input_embeddings"):
            yield module.get_input_embeddings()
        elif isinstance(module, nn.EmbeddingBag):  # the table of a static model
            yield module


class Rounding:
    """Has a model compute with rounded weights, while an optimizer trains those it is made of.

    Inside a forward pass each weight is on the grid (:func:`on_grid`), and its gradient goes to the weight itself.
    Outside of one, and so in a checkpoint, the weights are what they were: a training can be resumed.

    Args:
        model: whose modules are hooked, until :meth:`remove`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(rounded_modules(model))
        self._kept: dict[int, nn.Parameter] = {}
        self._handles = [
            handle
            for module, block in self._modules
            for handle in (
                module.register_forward_pre_hook(self._enter(block)),
                module.register_forward_hook(self._leave, always_call=True),
            )
        ]

    def _enter(self, block: int) -> Callable[..., None]:
        def round_weight(module: Any, inputs: Any) -> None:
            """Put the rounded weight in the place of the weight; of a table, the rows that are looked up."""
            weight = self._kept[id(module)] = module._parameters["weight"]
            # A batch looks up a few thousand of a table's 30,000 rows: to round all took longer than all else.
            rows = None if isinstance(module, nn.Linear) or not inputs else inputs[0].unique()
            module._parameters["weight"] = _Straight.apply(weight, block, rows)

        return round_weight

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        """Put the weight back."""
        module._parameters["weight"] = self._kept.pop(id(module))

    @torch.no_grad()
    def write(self) -> None:
        """Round the weights themselves, for good."""
        for module, block in self._modules:
            module.weight.copy_(on_grid(module.weight, block))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
