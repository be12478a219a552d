"""A narrower hidden state: the channels that the layers need most, and maps that make good for the others.

A BERT's hidden state is scaled channel by channel where it is normalised, so it cannot be turned onto principal axes
without changing what is computed: channels are chosen. Every map is then fitted by least squares, from the first layer
to the last, to what the whole encoder computes at its place, from what the narrow one has there. Of the attention heads
as many stay as fill the narrower state at their old size. A last map gives the whole width back, so that the
embeddings lie in the old space.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DistilBertConfig, DistilBertModel, PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.bits import BLOCK
from distilface.compression.layers import cut_layers
from distilface.compression.least_squares import fit, fit_norm
from distilface.compression.width import least_neurons
from distilface.model.families import usual_length
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Tokens of a text that are read: of 600 texts at most 38,400, of which 1,536 neurons take a quarter of a gigabyte.
LENGTH = 64


def check_hidden_size(config: Any, size: int) -> None:
    """Refuse a hidden size that is not smaller, or not of whole heads and of whole blocks of 4 bits.

    Args:
        config: of a DistilBERT.
        size: channels.

    Raises:
        InputError: with the rule, and the greatest size that can be.
    """
    head = config.dim // config.n_heads
    whole = math.lcm(BLOCK, head)
    greatest = (config.dim - 1) // whole * whole
    if not 0 < size <= greatest or size % whole:
        most = f"at most {greatest}" if greatest else "and there is none; leave it out"
        raise InputError(
            f"--hidden_size {size} must be a multiple of {whole} below the encoder's {config.dim}, of whole heads of "
            f"{head} channels: {most}"
        )


def _norms(encoder: Any) -> list[nn.LayerNorm]:
    """Return what normalises the hidden state: after the embeddings, and twice in each layer."""
    inside = [norm for layer in encoder.transformer.layer for norm in (layer.sa_layer_norm, layer.output_layer_norm)]
    return [encoder.embeddings.LayerNorm, *inside]


def _readers(encoder: Any) -> list[Tensor]:
    """Return the weights that read each normalised state, shape (outputs, width); the last is the embedding itself."""
    maps = []
    for layer in encoder.transformer.layer:
        attention = layer.attention
        maps.append(torch.cat([attention.q_lin.weight, attention.k_lin.weight, attention.v_lin.weight]))
        maps.append(layer.ffn.lin1.weight)
    return [*maps, torch.eye(encoder.config.dim)]


@torch.no_grad()
def needed_channels(encoder: Any, rows: Sequence[Tensor], size: int) -> Tensor:
    """Return the channels of the hidden state that the maps which read it need most, in their order.

    :func:`~distilface.compression.width.least_neurons` of all these maps together: channels go for which the others can
    make good. Each map weighs as much as another: its weight is divided by the root of what its outputs vary in all.

    Args:
        encoder: a DistilBERT.
        rows: token ids of texts, each of shape (1, tokens).
        size: how many.
    """
    sums: list[Any] = [0.0 for _ in _norms(encoder)]

    def add(place: int) -> Any:
        """Return a hook that adds the moments of what a norm gives for a text."""

        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            """Add those of one text, and its sums."""
            state = torch.cat([output[0].double(), torch.ones(output.shape[1], 1, dtype=torch.double)], 1)
            sums[place] += state.T @ state

        return hook

    handles = [norm.register_forward_hook(add(place)) for place, norm in enumerate(_norms(encoder))]
    try:
        for ids in rows:
            encoder(input_ids=ids)
    finally:
        for handle in handles:
            handle.remove()
    # About their means, for a bias makes good for a channel that is always the same.
    moments = [each[:-1, :-1] - torch.outer(each[-1, :-1], each[-1, :-1]) / each[-1, -1] for each in sums]
    weights = [weight.double() for weight in _readers(encoder)]
    varied = [(weight @ each * weight).sum() for weight, each in zip(weights, moments, strict=True)]
    scaled = [weight / total.sqrt() for weight, total in zip(weights, varied, strict=True)]
    together = torch.stack([each / each.trace() for each in moments]).sum(0)
    return least_neurons(torch.cat(scaled), together, size)[0]


def _context(maps: Sequence[Tensor], lengths: Sequence[int], heads: int) -> Tensor:
    """Return the attention to each text before it is mapped out, shape (tokens, channels).

    Args:
        maps: queries, keys and values of all tokens, each of shape (tokens, channels).
        lengths: tokens of each text.
        heads: how many there are.
    """
    split = [rows.unflatten(1, (heads, -1)).transpose(0, 1).split(list(lengths), dim=1) for rows in maps]
    attended = [functional.scaled_dot_product_attention(*text) for text in zip(*split, strict=True)]
    return torch.cat(attended, dim=1).transpose(0, 1).flatten(1)


def needed_heads(context: Tensor, weight: Tensor, heads: int, count: int) -> Tensor:
    """Return the channels of the heads whose mapped attention varies most, in their order.

    Args:
        context: the attention, shape (tokens, channels).
        weight: that maps it out, shape (outputs, channels).
        heads: how many there are.
        count: how many stay.
    """
    size = context.shape[1] // heads
    parts = zip(context.split(size, dim=1), weight.split(size, dim=1), strict=True)
    varied = torch.stack([((out @ given.T.cov()) * out).sum() for given, out in parts])
    kept = varied.topk(count).indices.sort().values
    return (kept[:, None] * size + torch.arange(size)).flatten()


def _fit_layer(
    whole: Any,
    narrow: Any,
    wide: Tensor,
    state: Tensor,
    lengths: Sequence[int],
    heads: tuple[int, int],
    channels: Tensor,
) -> tuple[Tensor, Tensor]:
    """Fit a narrow layer to a whole one, and return the states of both behind it, shape (tokens, channels)."""
    old, new = whole.attention, narrow.attention
    maps = [(getattr(old, name), getattr(new, name)) for name in ("q_lin", "k_lin", "v_lin")]
    given = [linear(wide) for linear, _ in maps]
    context = _context(given, lengths, heads[0])
    kept = needed_heads(context, old.out_lin.weight[channels], *heads)
    for (linear, own), target in zip(maps, given, strict=True):
        fit(own, state, linear.weight[kept][:, channels], linear.bias[kept], target[:, kept])
    # The states of both are added to what the maps give: the target makes good for what the narrow one has lost so far.
    mixed, read = wide + old.out_lin(context), _context([own(state) for _, own in maps], lengths, heads[1])
    start = old.out_lin.weight[channels][:, kept], old.out_lin.bias[channels]
    fit(new.out_lin, read, *start, mixed[:, channels] - state)
    wide = whole.sa_layer_norm(mixed)
    state = fit_norm(narrow.sa_layer_norm, state + new.out_lin(read), wide[:, channels])
    first, second = whole.ffn.lin1, whole.ffn.lin2
    fit(narrow.ffn.lin1, state, first.weight[:, channels], first.bias, first(wide))
    mixed, read = wide + second(whole.ffn.activation(first(wide))), whole.ffn.activation(narrow.ffn.lin1(state))
    fit(narrow.ffn.lin2, read, second.weight[channels], second.bias[channels], mixed[:, channels] - state)
    wide = whole.output_layer_norm(mixed)
    return wide, fit_norm(narrow.output_layer_norm, state + narrow.ffn.lin2(read), wide[:, channels])


@torch.no_grad()
def narrow_hidden(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], size: int
) -> tuple[DistilBertModel, nn.Linear, dict[str, Any]]:
    """Return a BERT or DistilBERT as a DistilBERT of a narrower hidden state, and the map to the old width.

    Args:
        encoder: it is not changed.
        tokenizer: its own.
        texts: like those that it will read.
        size: channels of the hidden state.

    Returns:
        The narrow encoder; the map from its states, and so from their means, to those of the encoder; and ``size``,
        ``of``, the channels before, and ``missed``, the share of the squared length about their mean of the last states
        on the texts that is lost, for ``run.json``.

    Raises:
        InputError: if the family is another, or as :func:`check_hidden_size`.
    """
    whole: Any = cut_layers(encoder, range(encoder.config.num_hidden_layers)).eval()
    config = whole.config
    check_hidden_size(config, size)
    heads = config.n_heads, size * config.n_heads // config.dim
    narrow: Any = DistilBertModel(DistilBertConfig(**{**config.to_dict(), "dim": size, "n_heads": heads[1]})).eval()
    length = min(LENGTH, usual_length(encoder, tokenizer))
    rows = [torch.tensor([ids]) for ids in tokenizer(list(texts), truncation=True, max_length=length)["input_ids"]]
    channels = needed_channels(whole, rows, size)
    for name in ("word_embeddings", "position_embeddings"):
        table, chosen = (getattr(each.embeddings, name) for each in (whole, narrow))
        chosen.weight.copy_(table.weight[:, channels])
    lengths = [ids.shape[1] for ids in rows]
    wide = torch.cat([whole.embeddings(ids)[0] for ids in rows])
    own = narrow.embeddings
    places = torch.cat([torch.arange(length) for length in lengths])
    read = own.word_embeddings(torch.cat(rows, 1)[0]) + own.position_embeddings(places)
    state = fit_norm(own.LayerNorm, read, wide[:, channels])
    for old, new in zip(whole.transformer.layer, narrow.transformer.layer, strict=True):
        wide, state = _fit_layer(old, new, wide, state, lengths, heads, channels)
    widening = nn.Linear(size, config.dim)
    start = torch.eye(config.dim)[:, channels]
    missed = fit(widening, state, start, torch.zeros(config.dim), wide)
    logger.info(f"hidden state: {size} of {config.dim} channels, {heads[1]} of {heads[0]} heads, {missed:.1%} is lost")
    return narrow, widening, {"size": size, "of": config.dim, "missed": round(missed, 4)}
