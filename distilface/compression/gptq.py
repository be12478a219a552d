"""Weights on the 4-bit grid with the least effect on what a layer gives (GPTQ, arXiv 2210.17323), without training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from distilface.compression.bits import (
    BITS,
    codes_of,
    is_on_grid,
    lowest,
    on_grid,
    rounded_modules,
    scale_of,
    two_bits,
    weight_bits,
)

#: What is added to the diagonal of the second moments, as a share of its mean; the paper's number.
DAMPING = 0.01


def second_moments(linears: list[nn.Linear], forward: Callable[[], Any]) -> list[Tensor]:
    """Sum ``x xᵀ`` over all inputs x of each linear map in a pass over text; each of shape (inputs, inputs).

    Args:
        linears: the maps.
        forward: runs the model over the text, without gradients.
    """
    sums = [torch.zeros(linear.in_features, linear.in_features, device=linear.weight.device) for linear in linears]

    def add(place: int) -> Callable[..., None]:
        """Return a hook that adds to one of the sums."""

        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            """Add what one call reads."""
            rows = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
            sums[place].addmm_(rows.T, rows)

        return hook

    handles = [linear.register_forward_pre_hook(add(place)) for place, linear in enumerate(linears)]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return sums


def gptq(weight: Tensor, moments: Tensor, block: int, bits: int = BITS) -> Tensor:
    """Round a weight to the grid column by column, each column's error made good by the columns that follow it.

    Algorithm 1 of the paper, with the scales of :func:`distilface.compression.bits.on_grid`. The value of a block that
    sets its scale keeps the code -8, of 2 bits 1.5 or -1.5, so that the result is on that grid: rounded again, it stays
    as it is.

    Args:
        weight: shape (outputs, inputs).
        moments: of its inputs, shape (inputs, inputs).
        block: how many weights of a row share a scale.
        bits: 4 or 2.

    Returns:
        The rounded weight.
    """
    weight, rounded = weight.clone(), torch.empty_like(weight)
    moments = moments + DAMPING * moments.diagonal().mean().clamp(min=1e-8) * torch.eye(len(moments)).to(moments)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(moments)), upper=True)
    for start in range(0, weight.shape[1], block):
        end = start + block
        columns = weight[:, start:end]
        first = columns.abs().argmax(1)
        largest = columns.gather(1, first[:, None])[:, 0]
        scale = two_bits(columns)[0][:, 0] if bits == 2 else scale_of(largest)
        outermost = 1.5 * largest.sign() if bits == 2 else torch.full_like(largest, lowest())
        errors = torch.empty_like(columns)
        for place in range(block):
            column = columns[:, place]
            code = torch.where(first == place, outermost, codes_of(column, scale, bits))
            rounded[:, start + place] = code * scale
            errors[:, place] = (column - rounded[:, start + place]) / inverse[start + place, start + place]
            columns[:, place + 1 :] -= errors[:, place : place + 1] * inverse[start + place, start + place + 1 : end]
        weight[:, end:] -= errors @ inverse[start:end, end:]
    return rounded


@torch.no_grad()
def round_weights(model: nn.Module, forward: Callable[[], Any], table: int | None = BITS, weights: int = BITS) -> bool:
    """Put the weights of a model on the grid, in place: linear maps by :func:`gptq`, its token table by rounding.

    A model whose weights are all on the grid, as one that was trained on it, stays as it is, also where some are in 2
    bits.

    Args:
        model: whose weights are rounded.
        forward: runs the model over text that is like what it will read.
        table: bits of its token table; ``None`` leaves it, for a training that rounds it.
        weights: bits of its linear maps.

    Returns:
        Whether any was not on the grid.
    """
    left = [(module, block) for module, block in rounded_modules(model) if not _stays(module, block, weights)]
    linears = [(module, block) for module, block in left if isinstance(module, nn.Linear)]
    moments = second_moments([linear for linear, _ in linears], forward) if linears else []
    for module, block in left:
        if not isinstance(module, nn.Linear) and table is not None:
            module.weight.copy_(on_grid(module.weight, block, table))
    for (linear, block), inputs in zip(linears, moments, strict=True):
        linear.weight.copy_(gptq(linear.weight, inputs, block, weights))
    return bool(left)


def _stays(module: Any, block: int, weights: int) -> bool:
    """Return whether a weight is on its grid already; a linear map of 4 bits is not, where 2 are asked for."""
    if isinstance(module, nn.Linear) and weights == 2:
        return weight_bits(module) == 2
    return is_on_grid(module.weight, block) or is_on_grid(module.weight, block, 2)
