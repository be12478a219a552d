"""The shapes of a student that fill a budget in megabytes, the best first."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.bits import BLOCK, TABLE_BITS
from distilface.compression.layers import check_foldable
from distilface.compression.sizes import Shape, neurons_of, shape_of
from distilface.compression.student import load_backbone
from distilface.model.loading import load_model
from distilface.settings import InputError

#: Shares of the neurons of a layer that are tried.
NEURONS = (1.0, 0.75, 0.5, 0.375)
#: A vocabulary of fewer pieces is not proposed: with little more than its characters, a word takes many tokens.
LEAST_PIECES = 1_000


#: The cuts of six layers that lose least, of all-MiniLM-L6-v2, where they are no even spread
#: (``benchmarks/results/cuts-untrained.json``); what a share of the layers loses is of these.
CUTS = {(6, 5): (0, 1, 3, 4, 5), (6, 3): (0, 4, 5)}


def cut(layers: int, count: int) -> tuple[int, ...]:
    """Return the ``count`` of ``layers`` that are proposed: a measured cut (:data:`CUTS`), or an even spread."""
    return CUTS.get((layers, count)) or spread(layers, count)


def spread(layers: int, count: int) -> tuple[int, ...]:
    """Return ``count`` layers from the first to the last, evenly spread, of two as near the later one; of one the last.

    The later layers of a sentence encoder are needed more: all-MiniLM-L6-v2 without its layer 1 loses less than half of
    what it loses without its layer 4.

    >>> spread(6, 5), spread(6, 4), spread(6, 2), spread(12, 1)
    ((0, 2, 3, 4, 5), (0, 2, 4, 5), (0, 5), (11,))
    """
    first = 0 if count > 1 else layers - 1
    return tuple(np.ceil(np.linspace(first, layers - 1, count) - 1e-9).astype(int).tolist())


def shapes(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    megabytes: float,
    length: int,
    static_table: bool = True,
) -> list[Shape]:
    """Return the shapes that fill a budget, for each number of layers the best: of least :attr:`Shape.lost`.

    Tried are the shares :data:`NEURONS` of the neurons and a table of 4 or 2 bits, each with as many pieces as fit.
    What each loses, what a training wins back of it, and which cut of six layers is the best, was measured on one
    model: of others it is an estimate.

    Args:
        encoder: the teacher's, a BERT or a DistilBERT.
        tokenizer: the teacher's.
        megabytes: of the 4-bit file and the tokenizer, 10^6 bytes.
        length: the tokens that the student reads.
        static_table: whether one layer starts over the token vectors of a static student, as in a distillation.

    Raises:
        InputError: if the encoder is of another family, or nothing fits.
    """
    check_foldable(encoder.config)
    config: Any = encoder.config
    widths = {max(int(neurons_of(config) * share) // BLOCK * BLOCK, BLOCK) for share in NEURONS}

    def filled(layers: Sequence[int], width: int, bits: int) -> Shape | None:
        """Return the shape of as many pieces as fit, if they are enough."""
        empty, one = (
            shape_of(encoder, tokenizer, layers, pieces, length, width, bits).megabytes for pieces in (0, 1000)
        )
        pieces = min(int(1000 * (megabytes - empty) / (one - empty)), len(tokenizer))
        pieces -= pieces % 100 if pieces < len(tokenizer) else 0
        enough = pieces >= min(LEAST_PIECES, len(tokenizer))  # a small vocabulary may stay whole
        return shape_of(encoder, tokenizer, layers, pieces, length, width, bits, static_table) if enough else None

    found = []
    for count in range(config.num_hidden_layers, 0, -1):
        layers = cut(config.num_hidden_layers, count)
        tried = [filled(layers, width, bits) for width in sorted(widths) for bits in TABLE_BITS]
        if fitting := [shape for shape in tried if shape is not None]:
            found.append(min(fitting, key=lambda shape: shape.lost))
    if not found:
        least = shape_of(encoder, tokenizer, (0,), LEAST_PIECES, length, min(widths), 2).megabytes
        raise InputError(
            f"--megabytes {megabytes:g} is too small: one layer with {LEAST_PIECES:,} pieces takes {least:.1f}"
        )
    return sorted(found, key=lambda shape: shape.lost)


def shapes_for(
    teacher: str, megabytes: float, max_seq_length: int | None = None, static_table: bool = True
) -> list[Shape]:
    """Return the shapes that fill a budget, the best first (:func:`shapes`), of a teacher by its Hub id or folder.

    Raises:
        InputError: if it is not a model, is of another family, reads fewer tokens, or nothing fits.
    """
    encoder, tokenizer = load_backbone(teacher)
    limit = load_model(teacher).max_seq_length or 0
    length = max_seq_length or limit
    if not 2 <= length <= limit:
        raise InputError(f"--max_seq_length {length} is out of range; {teacher} reads {limit} tokens")
    return shapes(encoder, tokenizer, megabytes, length, static_table)


#: What two columns of :func:`shape_lines` are, and its first line.
LEGEND = (
    "lost: 1 - cosine to the teacher, an estimate of what stays lost after a training",
    "work: multiplications for a token, as a share of the teacher's",
    "train --megabytes makes the first",
)


def shape_lines(found: Sequence[Shape]) -> list[str]:
    """Return a table of shapes: layers, pieces, and the megabytes of each part."""
    parts = list(found[0].parts)
    head = f"{'layers':18}{'neurons':>8}{'pieces':>17}{'table':>8}{'lost':>7}{'work':>7}{'MB':>7}"
    lines = [head + "".join(f"{part:>10}" for part in parts)]
    for shape in found:
        numbers = "".join(f"{shape.parts[part] / 1e6:>10.2f}" for part in parts)
        pieces = f"{shape.vocabulary:,} of {shape.of:,}"
        begin = f"{' '.join(map(str, shape.layers)):18}{shape.feed_forward:>8,}{pieces:>17}{shape.table_bits:>3} bits"
        lines.append(f"{begin}{shape.lost:>7.2f}{shape.work:>7.0%}{shape.megabytes:>7.2f}{numbers}")
    if found[0].static_table:
        lines.append("the first starts over the token vectors of a static student, which distill trains before it")
    return lines
