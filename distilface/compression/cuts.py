"""A search over layer cuts: which layers, without any training, stay nearest to the whole encoder."""

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations
from math import comb
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.layers import cut_layers
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: All cuts are tried where there are no more; else one layer at a time is left out of the best :data:`KEPT` so far.
ALL, KEPT = 100, 4
#: Texts of a batch.
_BATCH = 32

#: The layers of a cut, in their order, and what is lost: 1 - mean cosine to the whole encoder.
Cut = tuple[tuple[int, ...], float]


def best_cuts(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    texts: Sequence[str],
    length: int = 64,
    pooling: str = "mean",
) -> list[Cut]:
    """Return cuts of an encoder, the nearest first: by the mean cosine of their vectors to its own.

    Args:
        encoder: a BERT or a DistilBERT; it is not changed.
        tokenizer: its own.
        count: layers to keep.
        texts: on which they are compared.
        length: tokens of a text that are read.
        pooling: of the token vectors: ``mean``, or ``cls`` for the first.

    Returns:
        All cuts of so many layers, or, where these are more than :data:`ALL`, those of a search.

    Raises:
        InputError: if it has fewer layers, is of another family, the pooling is another, or there are no texts.
    """
    layers: int = encoder.config.num_hidden_layers
    if not 1 <= count <= layers:
        raise InputError(f"--best_layers {count} is out of range; the encoder has {layers} layers")
    if pooling not in ("mean", "cls"):
        raise InputError(f"--best_layers compares means or first tokens, not --pooling {pooling}; set --layers")
    if not texts:
        raise InputError("layers are chosen on texts, and there are none")
    compared = _Compared(cut_layers(encoder, range(layers)), tokenizer, texts, length, pooling)
    if comb(layers, count) <= ALL:
        return compared.sorted(combinations(range(layers), count))
    found: list[Cut] = [(tuple(range(layers)), 0.0)]
    for _ in range(layers - count):
        smaller = {cut[:at] + cut[at + 1 :] for cut, _ in found[:KEPT] for at in range(len(cut))}
        found = compared.sorted(smaller)
    return found


class _Compared:
    """The cuts of an encoder beside it.

    Args:
        whole: the encoder; its layers are exchanged.
        tokenizer: its own.
        texts: on which they are compared.
        length: tokens of a text that are read.
        pooling: ``mean`` or ``cls``.
    """

    def __init__(self, whole: Any, tokenizer: Any, texts: Sequence[str], length: int, pooling: str) -> None:
        self._whole, self._layers, self._pooling = whole.eval(), list(whole.transformer.layer), pooling
        length = min(length, whole.config.max_position_embeddings)
        ordered = sorted(texts, key=len)
        self._batches = [
            tokenizer(ordered[at : at + _BATCH], padding=True, truncation=True, max_length=length, return_tensors="pt")
            for at in range(0, len(ordered), _BATCH)
        ]
        self._own = self._vectors(range(len(self._layers)))

    @torch.no_grad()
    def _vectors(self, cut: Iterable[int]) -> torch.Tensor:
        """Return the vectors that some layers give, each of unit length: shape (n, width)."""
        self._whole.transformer.layer = nn.ModuleList(self._layers[layer] for layer in cut)
        vectors = []
        for batch in self._batches:
            mask = batch["attention_mask"].unsqueeze(-1)
            states = self._whole(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            vectors.append(states[:, 0] if self._pooling == "cls" else (states * mask).sum(1) / mask.sum(1))
        return nn.functional.normalize(torch.cat(vectors), dim=-1)

    def sorted(self, cuts: Iterable[tuple[int, ...]]) -> list[Cut]:
        """Return cuts with what each loses, the least first."""
        cuts = list(cuts)
        logger.info(f"{len(cuts)} cuts of {len(cuts[0])} of {len(self._layers)} layers are compared")
        losses = [1 - float((self._vectors(cut) * self._own).sum(-1).mean()) for cut in cuts]
        return sorted(zip(cuts, losses, strict=True), key=lambda each: (each[1], each[0]))
