"""Narrower feed-forward maps: the neurons that text uses are kept, and make good what the others gave."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.gptq import DAMPING, second_moments
from distilface.model.families import family_name, usual_length
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Neurons that are dropped at a time, before the effects of the others are computed again.
AT_A_TIME = 16
#: Tokens of a text that are read, and texts of a batch.
LENGTH, BATCH = 256, 32


def least_neurons(weight: Tensor, moments: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Drop the inputs of a linear map that it needs least, and have the others make good for them.

    Optimal Brain Surgeon over whole columns, as ZipLM (arXiv 2302.04089, equations 3 and 4): of the inverse G of the
    inputs' second moments, dropping column j costs ``|W_j|² / G_jj``, and the others change by ``-W_j G_j / G_jj``.

    Args:
        weight: shape (outputs, inputs).
        moments: ``Σ x xᵀ`` over inputs x, shape (inputs, inputs).
        width: how many inputs to keep.

    Returns:
        The inputs that are kept, in their order, and the weight for them, shape (outputs, width).
    """
    moments = moments.double()
    damping = DAMPING * moments.diagonal().mean().clamp(min=1e-8) * torch.eye(len(moments)).to(moments)
    inverse, changed = torch.linalg.inv(moments + damping), weight.double().clone()
    kept = torch.arange(len(moments), device=weight.device)
    while len(kept) > width:
        costs = changed.square().sum(0) / inverse.diagonal()
        dropped = costs.topk(min(AT_A_TIME, len(kept) - width), largest=False).indices
        left = torch.ones(len(kept), dtype=torch.bool, device=weight.device)
        left[dropped] = False
        effect = torch.linalg.solve(inverse[dropped][:, dropped], inverse[dropped][:, left])
        changed = changed[:, left] - changed[:, dropped] @ effect
        inverse = inverse[left][:, left] - inverse[left][:, dropped] @ effect
        kept = kept[left]
    return kept, changed.to(weight.dtype)


def _feed_forwards(encoder: PreTrainedModel) -> Iterator[tuple[nn.Linear, nn.Linear]]:
    """Yield the two maps of each layer of a BERT or DistilBERT: to its neurons, and from them."""
    names = {"distilbert": ("ffn.lin1", "ffn.lin2"), "bert": ("intermediate.dense", "output.dense")}
    kind = encoder.config.model_type
    if kind not in names:
        raise InputError(f"{family_name(encoder.config)} cannot be made narrower; bert or distilbert can")
    inner: Any = encoder.transformer if kind == "distilbert" else encoder.encoder
    for layer in inner.layer:
        first, second = (layer.get_submodule(name) for name in names[kind])
        yield first, second


@torch.no_grad()
def narrow_feed_forward(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], width: int
) -> dict[str, Any]:
    """Narrow the feed-forward maps of every layer of a BERT or DistilBERT, in place (:func:`least_neurons`).

    The layers are done from the first to the last, each by what the layers before it, narrowed, give.

    Args:
        encoder: to be narrowed.
        tokenizer: its own.
        texts: like those that it will read.
        width: neurons of a layer.

    Returns:
        ``width`` and ``of``, the neurons before, for ``run.json``.

    Raises:
        InputError: if the family is another, or the width is not from 32 to below the encoder's, in whole 32s.
    """
    maps = list(_feed_forwards(encoder))
    before = maps[0][0].out_features
    if not 32 <= width < before or width % 32:
        raise InputError(f"--feed_forward {width} must be a multiple of 32 below the encoder's {before}")
    length = min(LENGTH, usual_length(encoder, tokenizer))
    ordered = sorted(texts, key=len)
    starts = range(0, len(ordered), BATCH)
    batches = [
        tokenizer(ordered[start : start + BATCH], padding=True, truncation=True, max_length=length, return_tensors="pt")
        for start in starts
    ]
    logger.info(
        f"feed-forward maps: {width:,} of {before:,} neurons in each of {len(maps)} layers, by {len(texts)} texts"
    )
    encoder.eval()
    for first, second in maps:
        moments = second_moments([second], lambda: [encoder(**batch) for batch in batches])[0]
        kept, weight = least_neurons(second.weight, moments, width)
        first.weight, first.bias = nn.Parameter(first.weight[kept].clone()), nn.Parameter(first.bias[kept].clone())
        second.weight = nn.Parameter(weight)
        first.out_features = second.in_features = width
    setattr(encoder.config, "hidden_dim" if encoder.config.model_type == "distilbert" else "intermediate_size", width)
    return {"width": width, "of": before}
