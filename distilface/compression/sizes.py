"""How large a student's 4-bit file and tokenizer come out, part by part, and how near it comes, before it is made."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.bits import BITS, BLOCK, table_block

#: Bytes of the graph itself, its names and shapes: of the embeddings and pooling, and of each layer (measured).
GRAPH, LAYER_GRAPH = 6_000, 6_000
#: What is lost of the teacher before any training, 1 - cosine, of all-MiniLM-L6-v2: by the share of its layers, of the
#: neurons of a layer and of its vocabulary that are kept, and by the bits of the table. Measured
#: (``benchmarks/results/shapes-untrained.json``), but for the ends at 0.
LOST_LAYERS = {0.0: 1.0, 0.5: 0.292, 0.667: 0.156, 0.833: 0.068, 1.0: 0.0}
LOST_NEURONS = {0.0: 0.5, 0.313: 0.179, 0.479: 0.110, 0.729: 0.027, 1.0: 0.0}
LOST_PIECES = {0.0: 1.0, 0.115: 0.426, 0.164: 0.283, 0.229: 0.194, 0.295: 0.137, 0.374: 0.094, 0.459: 0.059, 1.0: 0.0}
LOST_BITS = {4: 0.001, 2: 0.023}
#: The share of each loss that stays after a short training, of the neurons' for each layer that is kept. Fitted by
#: least squares to five shapes of 5 MB after 200 steps, with tables of 2 bits
#: (``benchmarks/results/shapes-trained.json``): a training gives layers back, and no pieces.
STAYS_LAYERS, STAYS_NEURONS, STAYS_PIECES = 0.37, 0.68, 1.0
#: What one layer is nearer to its teacher by that starts over the token vectors of a static student: after 500 steps of
#: 128 texts (``benchmarks/results/shapes-table.json``); of more layers it was not measured.
STATIC_TABLE = 0.025
#: Bytes of ``tokenizer.json`` beside its vocabulary.
_TOKENIZER = 1_500


@dataclass(frozen=True)
class Shape:
    """A student of 4 bits, and what a user downloads to run it.

    Attributes:
        layers: of the teacher, counted from 0.
        vocabulary: the pieces that it keeps.
        of: the pieces that the teacher has.
        feed_forward: neurons of a layer.
        of_feed_forward: neurons of a layer of the teacher.
        table_bits: bits of a weight of the token table.
        lost: an estimate of what a short training leaves of 1 - cosine to the teacher: the sum of what each step loses
            alone, of which a share stays.
        work: multiplications of a token with the weights of the layers, as a share of the teacher's; the time of short
            texts goes about with it.
        parts: bytes of each part: ``table``, ``layers``, ``positions``, ``graph``, ``tokenizer``.
        static_table: whether it starts over the token vectors of a static student, which a distillation trains first:
            so does one layer of several.
    """

    layers: tuple[int, ...]
    vocabulary: int
    of: int
    feed_forward: int
    of_feed_forward: int
    table_bits: int
    lost: float
    work: float
    parts: dict[str, int]
    static_table: bool = False

    @property
    def megabytes(self) -> float:
        """Of the 4-bit file and ``tokenizer.json``, in 10^6 bytes."""
        return sum(self.parts.values()) / 1e6


def _bytes_of(rows: int, width: int, block: int) -> int:
    """Return the bytes of a matrix: codes of 4 bits and a scale in fp16 for each block, else int8."""
    return rows * -(-width // block) * (block // 2 + 2) if block else rows * width


def _table_bytes(rows: int, width: int, bits: int) -> int:
    """Return the bytes of a token table; where a row is no whole blocks, it is in int8."""
    block = table_block(width)
    return _bytes_of(rows, width, block) if bits == BITS or not block else rows * (width // 4 + 2 * (width // block))


def neurons_of(config: Any) -> int:
    """Return the neurons of a layer of a BERT or a DistilBERT."""
    return int(config.hidden_dim if config.model_type == "distilbert" else config.intermediate_size)


def _inner(encoder: PreTrainedModel) -> list[nn.Module]:
    """Return the modules of the layers."""
    return [module for name, module in encoder.named_modules() if ".layer." in f".{name}."]


def _narrowed(encoder: PreTrainedModel, size: int, neurons: int) -> int:
    """Return a size of a layer whose neurons are ``neurons`` now."""
    return neurons if size == neurons_of(encoder.config) else size


def _matrices(encoder: PreTrainedModel, neurons: int) -> list[tuple[int, int]]:
    """Return the rows and columns of the linear maps of all layers, with so many neurons."""
    linears = {id(module): module for module in _inner(encoder) if isinstance(module, nn.Linear)}
    return [
        (_narrowed(encoder, each.out_features, neurons), _narrowed(encoder, each.in_features, neurons))
        for each in linears.values()
    ]


def _layer_bytes(encoder: PreTrainedModel, neurons: int) -> float:
    """Return the bytes of a layer of so many neurons; biases and norms are in fp32."""
    matrices = sum(_bytes_of(rows, columns, BLOCK) for rows, columns in _matrices(encoder, neurons))
    small = {
        id(weight): _narrowed(encoder, weight.numel(), neurons)
        for module in _inner(encoder)
        for weight in module.parameters()
        if weight.ndim == 1
    }
    config: Any = encoder.config
    return (matrices + 4 * sum(small.values())) / config.num_hidden_layers


def _work(encoder: PreTrainedModel, neurons: int) -> int:
    """Return the weights that a token is multiplied with in all layers, of so many neurons."""
    return sum(rows * columns for rows, columns in _matrices(encoder, neurons))


@lru_cache(maxsize=1)  # a budget asks a hundred times, and each takes a tenth of a second
def _piece_bytes(tokenizer: PreTrainedTokenizerBase, pieces: int) -> float:
    """Return the bytes of a piece in ``tokenizer.json``, on average; ``pieces`` are the tokenizer's."""
    vocabulary = json.dumps(tokenizer.get_vocab(), ensure_ascii=False, separators=(",", ":")).encode()
    return len(vocabulary) / pieces


def shape_of(
    encoder: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layers: Sequence[int],
    vocabulary: int,
    length: int,
    feed_forward: int | None = None,
    table_bits: int = BITS,
    static_table: bool = False,
) -> Shape:
    """Return the shape of a student of chosen layers and pieces.

    Args:
        encoder: the teacher's, a BERT or a DistilBERT.
        tokenizer: the teacher's.
        layers: of the encoder, counted from 0.
        vocabulary: the pieces that are kept.
        length: the tokens that the student reads, and so its positions.
        feed_forward: neurons of a layer; ``None``: the teacher's.
        table_bits: 4 or 2.
        static_table: whether one layer of several starts over the token vectors of a static student.
    """
    config: Any = encoder.config
    static_table = static_table and len(layers) == 1 < config.num_hidden_layers
    width, neurons = config.hidden_size, feed_forward or neurons_of(config)
    parts = {
        "table": _table_bytes(vocabulary, width, table_bits),
        "layers": round(len(layers) * _layer_bytes(encoder, neurons)),
        "positions": length * width + 8 * width,
        "graph": GRAPH + LAYER_GRAPH * len(layers),
        "tokenizer": round(_TOKENIZER + vocabulary * _piece_bytes(tokenizer, len(tokenizer))),
    }
    kept = len(layers) / config.num_hidden_layers
    lost = (
        STAYS_LAYERS * _interpolated(LOST_LAYERS, kept)
        + STAYS_NEURONS * kept * _interpolated(LOST_NEURONS, neurons / neurons_of(config))
        + STAYS_PIECES * _interpolated(LOST_PIECES, vocabulary / len(tokenizer))
        + LOST_BITS[table_bits]
        - (STATIC_TABLE if static_table else 0)
    )
    return Shape(
        layers=tuple(layers),
        vocabulary=vocabulary,
        of=len(tokenizer),
        feed_forward=neurons,
        of_feed_forward=neurons_of(config),
        table_bits=table_bits,
        lost=round(lost, 3),
        work=kept * _work(encoder, neurons) / _work(encoder, neurons_of(config)),
        parts=parts,
        static_table=static_table,
    )


def _interpolated(points: dict[float, float], share: float) -> float:
    return float(np.interp(share, list(points), list(points.values())))
