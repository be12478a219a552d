"""How large a student's 4-bit file and tokenizer come out, part by part, before it is made; the shapes for a budget."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.bits import BLOCK, table_block
from distilface.compression.layers import check_foldable
from distilface.compression.student import load_backbone
from distilface.model.loading import load_model
from distilface.settings import InputError

#: Bytes of the graph itself, its names and shapes: of the embeddings and pooling, and of each layer (measured).
GRAPH, LAYER_GRAPH = 6_000, 6_000
#: The least share of the vocabulary that a shape keeps while there are fewer layers to cut. Of all-MiniLM-L6-v2, 3
#: layers with a quarter of the pieces keep more than 4 with a tenth (docs/sizes.md).
LEAST_SHARE = 0.2
#: A vocabulary of fewer pieces is not proposed: with little more than its characters, a word takes many tokens.
LEAST_PIECES = 1_000
#: Bytes of ``tokenizer.json`` beside its vocabulary.
_TOKENIZER = 1_500


@dataclass(frozen=True)
class Shape:
    """A student of 4 bits, and what a user downloads to run it.

    Attributes:
        layers: of the teacher, counted from 0.
        vocabulary: the pieces that it keeps.
        of: the pieces that the teacher has.
        parts: bytes of each part: ``table``, ``layers``, ``positions``, ``graph``, ``tokenizer``.
    """

    layers: tuple[int, ...]
    vocabulary: int
    of: int
    parts: dict[str, int]

    @property
    def megabytes(self) -> float:
        """Of the 4-bit file and ``tokenizer.json``, in 10^6 bytes."""
        return sum(self.parts.values()) / 1e6


def _bytes_of(rows: int, width: int, block: int) -> int:
    """Return the bytes of a matrix: codes of 4 bits and a scale in fp16 for each block, else int8."""
    return rows * -(-width // block) * (block // 2 + 2) if block else rows * width


def _layer_bytes(encoder: PreTrainedModel) -> float:
    """Return the bytes of a layer, of those that hold a linear map; biases and norms are in fp32."""
    config: Any = encoder.config
    inner = [module for name, module in encoder.named_modules() if ".layer." in f".{name}."]
    linears = {id(module): module for module in inner if isinstance(module, nn.Linear)}
    matrices = sum(_bytes_of(each.out_features, each.in_features, BLOCK) for each in linears.values())
    small = {id(weight): weight.numel() for module in inner for weight in module.parameters() if weight.ndim == 1}
    return (matrices + 4 * sum(small.values())) / config.num_hidden_layers


def _piece_bytes(tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the bytes of a piece in ``tokenizer.json``, on average."""
    vocabulary = json.dumps(tokenizer.get_vocab(), ensure_ascii=False, separators=(",", ":")).encode()
    return len(vocabulary) / len(tokenizer)


def shape_of(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: Sequence[int], vocabulary: int, length: int
) -> Shape:
    """Return the shape of a student of chosen layers and pieces.

    Args:
        encoder: the teacher's, a BERT or a DistilBERT.
        tokenizer: the teacher's.
        layers: of the encoder, counted from 0.
        vocabulary: the pieces that are kept.
        length: the tokens that the student reads, and so its positions.
    """
    config: Any = encoder.config
    width = config.hidden_size
    parts = {
        "table": _bytes_of(vocabulary, width, table_block(width)),
        "layers": round(len(layers) * _layer_bytes(encoder)),
        "positions": length * width + 8 * width,
        "graph": GRAPH + LAYER_GRAPH * len(layers),
        "tokenizer": round(_TOKENIZER + vocabulary * _piece_bytes(tokenizer)),
    }
    return Shape(tuple(layers), vocabulary, len(tokenizer), parts)


def spread(layers: int, count: int) -> tuple[int, ...]:
    """Return ``count`` layers from the first to the last, evenly spread.

    >>> spread(6, 3), spread(6, 2), spread(12, 1)
    ((0, 2, 5), (0, 5), (0,))
    """
    return tuple(np.linspace(0, layers - 1, count).astype(int).tolist())


def shapes(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, megabytes: float, length: int) -> list[Shape]:
    """Return the shapes that fill a budget: for each number of layers, as many pieces as still fit; the best first.

    The best has most layers of those that keep :data:`LEAST_SHARE` of the vocabulary.

    Args:
        encoder: the teacher's, a BERT or a DistilBERT.
        tokenizer: the teacher's.
        megabytes: of the 4-bit file and the tokenizer, 10^6 bytes.
        length: the tokens that the student reads.

    Raises:
        InputError: if the encoder is of another family, or nothing fits.
    """
    check_foldable(encoder.config)
    config: Any = encoder.config
    found = []
    for count in range(config.num_hidden_layers, 0, -1):
        layers = spread(config.num_hidden_layers, count)
        empty, one = (shape_of(encoder, tokenizer, layers, pieces, length).megabytes for pieces in (0, 1000))
        pieces = min(int(1000 * (megabytes - empty) / (one - empty)), len(tokenizer))
        pieces -= pieces % 100 if pieces < len(tokenizer) else 0
        if pieces >= LEAST_PIECES:
            found.append(shape_of(encoder, tokenizer, layers, pieces, length))
    if not found:
        least = shape_of(encoder, tokenizer, (0,), LEAST_PIECES, length).megabytes
        raise InputError(
            f"--megabytes {megabytes:g} is too small: one layer with {LEAST_PIECES:,} pieces takes {least:.1f}"
        )
    return sorted(found, key=lambda shape: (shape.vocabulary < LEAST_SHARE * shape.of, -len(shape.layers)))


def shapes_for(teacher: str, megabytes: float, max_seq_length: int | None = None) -> list[Shape]:
    """Return the shapes that fill a budget, the best first (:func:`shapes`), of a teacher by its Hub id or folder.

    Raises:
        InputError: if it is not a model, is of another family, reads fewer tokens, or nothing fits.
    """
    encoder, tokenizer = load_backbone(teacher)
    limit = load_model(teacher).max_seq_length or 0
    length = max_seq_length or limit
    if not 2 <= length <= limit:
        raise InputError(f"--max_seq_length {length} is out of range; {teacher} reads {limit} tokens")
    return shapes(encoder, tokenizer, megabytes, length)


def shape_lines(found: Sequence[Shape]) -> list[str]:
    """Return a table of shapes: layers, pieces, and the megabytes of each part."""
    parts = list(found[0].parts)
    lines = [f"{'layers':24}{'pieces':>16}{'MB':>8}" + "".join(f"{part:>11}" for part in parts)]
    for shape in found:
        numbers = "".join(f"{shape.parts[part] / 1e6:>11.2f}" for part in parts)
        pieces = f"{shape.vocabulary:,} of {shape.of:,}"
        lines.append(f"{' '.join(map(str, shape.layers)):24}{pieces:>16}{shape.megabytes:>8.2f}{numbers}")
    return lines
