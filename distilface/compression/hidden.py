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
from dataclasses import dataclass
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


def _context(states: Sequence[Tensor], layer: Any, heads: int) -> list[Tensor]:
    """Return the attention of a layer to each text, shape (tokens, channels), before it is mapped out."""

    def split(rows: Tensor) -> Tensor:
        return rows.view(len(rows), heads, -1).transpose(0, 1)

    maps = layer.attention
    return [
        functional.scaled_dot_product_attention(
            split(maps.q_lin(state)), split(maps.k_lin(state)), split(maps.v_lin(state))
        )
        .transpose(0, 1)
        .reshape(len(state), -1)
        for state in states
    ]


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


@dataclass
class _Texts:
    """The states of the texts in the whole and in the narrow encoder, each text of shape (tokens, channels)."""

    wide: list[Tensor]
    narrow: list[Tensor]

    def move(self, wide: Tensor, narrow: Tensor) -> None:
        """Take the states of all tokens, one after another."""
        lengths = [len(state) for state in self.wide]
        self.wide, self.narrow = list(wide.split(lengths)), list(narrow.split(lengths))


def _fit_layer(whole: Any, narrow: Any, texts: _Texts, heads: tuple[int, int], channels: Tensor) -> None:
    """Fit a narrow layer to a whole one, and bring the states of both past it."""
    wide, state = torch.cat(texts.wide), torch.cat(texts.narrow)
    old, new = whole.attention, narrow.attention
    context = torch.cat(_context(texts.wide, whole, heads[0]))
    kept = needed_heads(context, old.out_lin.weight[channels], *heads)
    for name in ("q_lin", "k_lin", "v_lin"):
        linear = getattr(old, name)
        start = linear.weight[kept][:, channels], linear.bias[kept]
        fit(getattr(new, name), state, *start, linear(wide)[:, kept])
    # The states of both are added to what the maps give: the target makes good for what the narrow one has lost so far.
    mixed, read = wide + old.out_lin(context), torch.cat(_context(texts.narrow, narrow, heads[1]))
    start = old.out_lin.weight[channels][:, kept], old.out_lin.bias[channels]
    fit(new.out_lin, read, *start, mixed[:, channels] - state)
    wide = whole.sa_layer_norm(mixed)
    state = fit_norm(narrow.sa_layer_norm, state + new.out_lin(read), wide[:, channels])
    first, second = whole.ffn.lin1, whole.ffn.lin2
    fit(narrow.ffn.lin1, state, first.weight[:, channels], first.bias, first(wide))
    mixed, read = wide + second(whole.ffn.activation(first(wide))), whole.ffn.activation(narrow.ffn.lin1(state))
    fit(narrow.ffn.lin2, read, second.weight[channels], second.bias[channels], mixed[:, channels] - state)
    wide = whole.output_layer_norm(mixed)
    state = fit_norm(narrow.output_layer_norm, state + narrow.ffn.lin2(read), wide[:, channels])
    texts.move(wide, state)


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
        table, own = (getattr(each.embeddings, name) for each in (whole, narrow))
        own.weight.copy_(table.weight[:, channels])
    states = _Texts(*([each.embeddings(ids)[0] for ids in rows] for each in (whole, narrow)))
    norm = narrow.embeddings.LayerNorm
    read = [(narrow.embeddings.word_embeddings(ids) + _places(narrow, ids))[0] for ids in rows]
    states.move(torch.cat(states.wide), fit_norm(norm, torch.cat(read), torch.cat(states.wide)[:, channels]))
    for old, new in zip(whole.transformer.layer, narrow.transformer.layer, strict=True):
        _fit_layer(old, new, states, heads, channels)
    widening = nn.Linear(size, config.dim)
    start = torch.eye(config.dim)[:, channels]
    missed = fit(widening, torch.cat(states.narrow), start, torch.zeros(config.dim), torch.cat(states.wide))
    logger.info(f"hidden state: {size} of {config.dim} channels, {heads[1]} of {heads[0]} heads, {missed:.1%} is lost")
    return narrow, widening, {"size": size, "of": config.dim, "missed": round(missed, 4)}


def _places(encoder: Any, ids: Tensor) -> Tensor:
    """Return the positions of a text."""
    places: Tensor = encoder.embeddings.position_embeddings(torch.arange(ids.shape[1]))
    return places[None]
