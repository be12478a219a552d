"""Maps and norms fitted by least squares to what an encoder computes, from what a smaller one has at its place."""

import torch
from torch import Tensor, nn
from torch.nn import functional

#: What holds the corrected matrix near where it starts, as a share of the mean square of what it reads.
DAMPING = 1e-3


def corrected(read: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> tuple[Tensor, Tensor, float]:
    """Change a linear map by least squares, so that it gives the target of what it reads (ridge about its start).

    Args:
        read: shape (n, inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,).
        target: shape (n, outputs).

    Returns:
        The weight, the bias, and the share of the target's squared length about its mean that it misses.
    """
    inputs = torch.cat([read, torch.ones(len(read), 1).to(read)], 1)
    damping = DAMPING * read.square().mean() * len(read) * torch.eye(inputs.shape[1]).to(read)
    moments, left = inputs.T @ inputs + damping, inputs.T @ (target - read @ weight.T - bias)
    change = torch.linalg.solve(moments.double(), left.double()).to(read)
    weight, bias = weight + change[:-1].T, bias + change[-1]
    missed = (read @ weight.T + bias - target).square().sum() / (target - target.mean(0)).square().sum()
    return weight, bias, float(missed)


def fit(linear: nn.Linear, read: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> float:
    """Give a map the weight and bias that come nearest to a target by what is read; return the share that is missed."""
    weight, bias, missed = corrected(read, weight, bias, target)
    linear.weight.copy_(weight)
    linear.bias.copy_(bias)
    return missed


def fit_norm(norm: nn.LayerNorm, read: Tensor, target: Tensor) -> Tensor:
    """Give a norm the scale and shift of each channel that come nearest to a target; return what it gives then."""
    plain = functional.layer_norm(read, norm.normalized_shape, eps=norm.eps)
    about = plain - plain.mean(0)
    scale = (about * target).sum(0) / about.square().sum(0).clamp(min=1e-12)
    norm.weight.copy_(scale)
    norm.bias.copy_(target.mean(0) - scale * plain.mean(0))
    return norm(read)
