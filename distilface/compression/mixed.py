"""8 bits where 4 lose: the parts of a rounded model that take twice the bits, chosen by what its vectors lose."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from distilface.compression.bits import MORE_BITS, on_grid, rounded_modules
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: The name of the map that transformers puts behind a BERT, and no embedding reads.
POOLER = "pooler"


def check_most_lost(most_lost: float | None) -> None:
    """Raise InputError if what vectors may lose is not a share of what they have."""
    if most_lost is not None and not 0 < most_lost < 1:
        raise InputError(f"--most_lost {most_lost:g} is out of range; it must be above 0 and below 1")


def lost(embeddings: np.ndarray, exact: np.ndarray) -> float:
    """Return what embeddings have lost: 1 - their mean cosine to the exact ones; both of shape (texts, dimension)."""
    lengths = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(exact, axis=1)
    return 1 - float(np.mean((embeddings * exact).sum(1) / np.maximum(lengths, 1e-12)))


@torch.no_grad()
def more_bits(
    model: nn.Module, rounded: nn.Module, embed: Callable[[Any], np.ndarray], most_lost: float
) -> dict[str, float]:
    """Put parts of a rounded model in 8 bits until its vectors lose no more than they may.

    A part is a linear map or the token table. With all of them in 8 bits, each is put in 4 alone. Ordered by what the
    vectors lose for the bytes that are saved, the first ones stay in 4: as many as a bisection finds, which measures
    what they lose together.

    Args:
        model: with its own weights.
        rounded: the same with weights on the 4-bit grid, of which some are replaced.
        embed: returns a model's embeddings of some texts, of shape (texts, dimension).
        most_lost: 1 - the mean cosine of the rounded model's embeddings to the model's, at most.

    Returns:
        What the vectors lose by each part in 8 bits, if it alone were in 4; without any, 4 bits are enough for all.

    Raises:
        InputError: if they lose more even with all parts in 8 bits.
    """
    began = time.perf_counter()
    exact = embed(model)
    if lost(embed(rounded), exact) <= most_lost:
        return {}
    seconds = (time.perf_counter() - began) / 2
    own, blocks = dict(model.named_modules()), {id(module): block for module, block in rounded_modules(rounded)}
    parts: dict[str, Any] = {
        name: module
        for name, module in rounded.named_modules()
        if POOLER not in name.split(".")
        and id(module) in blocks
        and not torch.equal(cast("torch.Tensor", own[name].weight), module.weight)
    }
    four = {name: part.weight.detach().clone() for name, part in parts.items()}
    eight: dict[str, torch.Tensor] = {}
    for name, part in parts.items():
        weight: Any = own[name].weight
        eight[name] = on_grid(weight.detach(), blocks[id(part)], MORE_BITS)
        part.weight.copy_(eight[name])
    least = lost(embed(rounded), exact)
    if least > most_lost:
        raise InputError(
            f"with all {len(parts)} parts in {MORE_BITS} bits the vectors lose {least:.2g}, more than --most_lost "
            f"{most_lost:g}; let them lose more, or take the format int8 or fp16"
        )
    passes = len(parts) + math.ceil(math.log2(len(parts) + 1))
    logger.info(f"{len(parts)} parts, each put in 4 bits alone, then several: about {seconds * passes:.0f} s")
    alone = {}
    for name, part in tqdm(parts.items(), "parts"):
        part.weight.copy_(four[name])
        alone[name] = lost(embed(rounded), exact) - least
        part.weight.copy_(eight[name])
    order = sorted(parts, key=lambda name: alone[name] / four[name].numel())

    def lost_with(count: int) -> float:
        """Put the first parts in 4 bits and the others in 8; return what the vectors lose."""
        for place, name in enumerate(order):
            parts[name].weight.copy_((four if place < count else eight)[name])
        return lost(embed(rounded), exact)

    kept, tried = 0, len(order)  # with as many in 4 bits they lose no more than they may; with as many, they do
    while tried - kept > 1:
        middle = (kept + tried) // 2
        kept, tried = (middle, tried) if lost_with(middle) <= most_lost else (kept, middle)
    lost_with(kept)
    return {name: round(alone[name], 6) for name in order[kept:]}
