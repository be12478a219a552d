"""Weights on the grid of their quantised file: 4, 2 or 8 bits in blocks that share a scale, in training as in the file.

A student that is trained on the grid loses nothing when it is written so: the file holds the codes it was trained with.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

#: Bits of a weight, and those that it may have to be smaller still.
BITS = 4
WEIGHT_BITS = (4, 2)
#: Bits of a weight where 4 lose too much (:mod:`distilface.compression.mixed`).
MORE_BITS = 8
#: Bits of a weight of the token table, where it is to be smaller still.
TABLE_BITS = (4, 2)
#: Scales of a block of 2 bits that are tried, as shares of the one that holds its largest weight.
SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
#: Weights of a linear map, along its input, that share a scale.
BLOCK = 32
#: Weights of a row of an embedding table that share a scale: as many as fit its width.
TABLE_BLOCKS = (64, 32)


def lowest(bits: int = BITS) -> int:
    """Return the least code of a weight of 4 or 8 bits, which sets the scale of a block."""
    return -(2 ** (bits - 1))


def scale_of(largest: Tensor, bits: int = BITS) -> Tensor:
    """Return the scales of blocks by their values of largest magnitude: those over the least code, as in fp16."""
    return (largest / lowest(bits)).half().to(largest.dtype)


def codes_of(weight: Tensor, scale: Tensor, bits: int = BITS) -> Tensor:
    """Return the nearest codes of weights: of 4 bits from -8 to 7, of 8 from -128 to 127; of 2 -1.5, -0.5, 0.5 and 1.5.

    Of a block of zeros, whose scale is 0, codes of 4 and 8 bits are 0, and those of 2 bits stand for 0 too.
    """
    steps = weight / torch.where(scale == 0, 1, scale)
    if bits == 2:
        return steps.floor_().clamp_(-2, 1) + 0.5
    return steps.round_().clamp_(lowest(bits), -lowest(bits) - 1)


def two_bits(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Round blocks to 2 bits: codes -1.5, -0.5, 0.5 and 1.5 times the scale of a block.

    Of :data:`SHARES` that scale is taken which leaves the least squared error. Weights that are on this grid already
    have none at the first of them. A scale has the 8 bits of bf16, so that fp16 holds 1.5 times it exactly.

    Args:
        blocks: shape (blocks, width of a block).

    Returns:
        The scales, shape (blocks, 1), and the codes, shape (blocks, width of a block).
    """
    largest = blocks.abs().amax(1, keepdim=True)
    scale = codes = least = torch.empty(0)
    for share in SHARES:
        tried = (largest * (share / 1.5)).half().bfloat16().to(blocks.dtype)
        nearest = codes_of(blocks, tried, 2)
        error = (nearest * tried - blocks).square_().sum(1, keepdim=True)
        if not len(least):
            scale, codes, least = tried, nearest, error
            continue
        better = error < least
        scale, codes = torch.where(better, tried, scale), torch.where(better, nearest, codes)
        least = torch.where(better, error, least)
    return scale, codes


def on_grid(weight: Tensor, block: int, bits: int = BITS) -> Tensor:
    """Round weights to 4, 2 or 8 bits, symmetric, in blocks along their last dimension.

    In 4 bits a block's scale is its value of largest magnitude, with its sign, over -8, in fp16; the codes are from -8
    to 7: the rule of onnxruntime's quantisers. In 8 bits it is over -128. In 2 bits see :func:`two_bits`. What is on
    the grid stays as it is, also after it was stored in fp16.

    Args:
        weight: shape (rows, width), width a multiple of ``block``.
        block: how many weights share a scale.
        bits: 4, 2 or 8.

    Returns:
        ``scale * code``, of the same shape.

    >>> on_grid(torch.tensor([[-0.8, 0.31, 0.0, 0.75]]), 4)
    tensor([[-0.7998,  0.2999,  0.0000,  0.6998]])
    """
    blocks = weight.reshape(-1, block)
    if bits == 2:
        scale, codes = two_bits(blocks)
        return (codes * scale).view_as(weight)
    largest = blocks.gather(1, blocks.abs().argmax(1, keepdim=True))
    scale = scale_of(largest, bits)
    return (codes_of(blocks, scale, bits) * scale).view_as(weight)


class _Straight(torch.autograd.Function):
    """Rounding whose gradient is that of the identity (straight-through estimator, arXiv 1308.3432)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, block: int, bits: int, rows: Tensor | None) -> Tensor:
        """Return the weight on the grid; where rows are given, only these are rounded."""
        if rows is None:
            return on_grid(weight, block, bits)
        rounded = weight.clone()
        rounded[rows] = on_grid(weight[rows], block, bits)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient as it is; the grid and the rows have none."""
        return gradients[0], None, None, None


def table_block(width: int) -> int:
    """Return how many weights of a table's row share a scale; 0 if a row is not whole blocks."""
    return next((block for block in TABLE_BLOCKS if width % block == 0), 0)


def table_bits(table: nn.Module) -> int:
    """Return the bits of the grid that a token table is on: 2, or else 4."""
    weight: Any = table.weight
    return 2 if is_on_grid(weight, table_block(weight.shape[1]), 2) else BITS


def weight_bits(linear: nn.Module) -> int:
    """Return the bits of the grid that a linear map is on: 2, or else 4."""
    weight: Any = linear.weight
    return 2 if is_on_grid(weight, BLOCK, 2) else BITS


def is_on_grid(weight: Tensor, block: int, bits: int = BITS) -> bool:
    """Return whether a weight is on a grid (:func:`on_grid`), but for the rounding of a folder stored in fp16."""
    return bool(torch.allclose(weight, on_grid(weight, block, bits), rtol=2**-10, atol=0))


def rounded_modules(model: nn.Module) -> Iterator[tuple[Any, int]]:
    """Yield the modules of a model whose weights the small file rounds, each with its block.

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
        table: bits of its token table.
        weights: bits of its linear maps.
    """

    def __init__(self, model: nn.Module, table: int = BITS, weights: int = BITS) -> None:
        self._modules = [
            (module, block, weights if isinstance(module, nn.Linear) else table)
            for module, block in rounded_modules(model)
        ]
        self._kept: dict[int, nn.Parameter] = {}
        self._handles = [
            handle
            for module, block, bits in self._modules
            for handle in (
                module.register_forward_pre_hook(self._enter(block, bits)),
                module.register_forward_hook(self._leave, always_call=True),
            )
        ]

    def _enter(self, block: int, bits: int) -> Callable[..., None]:
        def round_weight(module: Any, inputs: Any) -> None:
            """Put the rounded weight in the place of the weight; of a table, the rows that are looked up."""
            weight = self._kept[id(module)] = module._parameters["weight"]
            # A batch looks up a few thousand of a table's 30,000 rows: to round all took longer than all else.
            rows = None if isinstance(module, nn.Linear) or not inputs else inputs[0].unique()
            module._parameters["weight"] = _Straight.apply(weight, block, bits, rows)

        return round_weight

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        """Put the weight back."""
        module._parameters["weight"] = self._kept.pop(id(module))

    @torch.no_grad()
    def write(self) -> None:
        """Round the weights themselves, for good."""
        for module, block, bits in self._modules:
            module.weight.copy_(on_grid(module.weight, block, bits))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
