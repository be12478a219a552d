"""A token table of low rank: V x rank and rank x width in the place of V x width, as an ``ElectraModel`` holds it.

BERT takes the sum e of a token's rows, centres it and brings it to length sqrt(width) (its LayerNorm), then scales it
by g and shifts it by b. An Electra does so with rows of ``rank`` numbers, without g and b here, then maps them to the
width by a matrix W and a bias. With D, ``rank - 1`` orthonormal directions of centred rows, and Q, orthonormal
directions at right angles to the ones, the rows ``Q Dᵀ e`` are centred, and ``W = diag(g) D Qᵀ sqrt(width / rank)``
gives BERT's own output wherever e lies in these directions: the layers above are the encoder's own. Elsewhere a part of
e is lost, and LayerNorm stretches what is left, so that no choice is exact in general. D is therefore taken from the
tokens of text, and W and the bias are corrected by least squares on what BERT gives for them.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import ElectraConfig, ElectraModel, PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.layers import BERT_LAYER, cut_layers
from distilface.compression.least_squares import corrected
from distilface.model.families import usual_length
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Tokens of a text that are read.
LENGTH = 256
#: A piece counts by this power of its count in the text: what text uses weighs more, what it never uses still counts.
POWER = 0.75


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(1, keepdim=True)


def _of_layer_norm(rows: Tensor) -> Tensor:
    """Return centred rows at length sqrt(width)."""
    return rows / (rows.square().mean(1, keepdim=True) + 1e-12).sqrt()


def directions(rows: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return the orthonormal directions that hold most of weighted rows, shape (width, count).

    Args:
        rows: shape (n, width); their lengths do not count, for LayerNorm takes them away.
        weights: shape (n,).
        count: how many directions.
    """
    unit = rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)
    _, vectors = torch.linalg.eigh((unit * weights[:, None]).T @ unit)
    return vectors[:, -count:]


def at_right_angles_to_ones(size: int) -> Tensor:
    """Return orthonormal directions whose numbers sum to 0, shape (size, size - 1)."""
    ones, others = torch.ones(size, 1, dtype=torch.double), torch.eye(size, size - 1, dtype=torch.double)
    return torch.linalg.qr(torch.cat([ones, others], 1)).Q[:, 1:]


def _electra(whole: Any, rank: int) -> ElectraModel:
    """Return an Electra of a DistilBERT's layers; its embeddings are still to be filled."""
    config = whole.config
    student = ElectraModel(
        ElectraConfig(
            vocab_size=config.vocab_size,
            embedding_size=rank,
            hidden_size=config.dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            intermediate_size=config.hidden_dim,
            hidden_act=config.activation,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.attention_dropout,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=1,
            layer_norm_eps=1e-12,
            pad_token_id=config.pad_token_id,
        )
    )
    weights = whole.state_dict()
    layers = {
        f"encoder.layer.{layer}.{bert}.{part}": weights[f"transformer.layer.{layer}.{own}.{part}"]
        for layer in range(config.n_layers)
        for bert, own in BERT_LAYER.items()
        for part in ("weight", "bias")
    }
    student.load_state_dict(layers, strict=False)
    return student


@torch.no_grad()
def factor_table(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], rank: int
) -> tuple[ElectraModel, dict[str, Any]]:
    """Return a BERT or DistilBERT as an Electra whose token table has ``rank`` numbers a piece.

    Args:
        encoder: it is not changed.
        tokenizer: its own.
        texts: like those that it will read.
        rank: numbers of a piece.

    Returns:
        The Electra; and ``rank``, ``of``, the numbers before, and ``missed``, the share of the squared length of what
        the embeddings give on the texts that is lost, for ``run.json``.

    Raises:
        InputError: if the family is another, or the rank is not from 32 to below the encoder's width, in whole 32s.
    """
    whole: Any = cut_layers(encoder, range(encoder.config.num_hidden_layers))
    width, embeddings = whole.config.dim, whole.embeddings
    if not 32 <= rank < width or rank % 32:
        raise InputError(f"--table_rank {rank} must be a multiple of 32 below the encoder's {width}")
    rows = tokenizer(list(texts), truncation=True, max_length=min(LENGTH, usual_length(encoder, tokenizer)))
    tokens = torch.tensor([token for row in rows["input_ids"] for token in row])
    places = torch.tensor([place for row in rows["input_ids"] for place in range(len(row))])
    # In double precision: the second moments of hundreds of thousands of tokens are added up.
    pieces, positions = (
        _centred(table.weight.double()) for table in (embeddings.word_embeddings, embeddings.position_embeddings)
    )
    mean = positions[: places.max() + 1].mean(0)
    counts = torch.bincount(tokens, minlength=len(pieces)).double()
    turned = directions(pieces + mean, (counts + 1) ** POWER, rank - 1) @ at_right_angles_to_ones(rank).T
    norm = embeddings.LayerNorm
    scale, shift = norm.weight.double(), norm.bias.double()
    weight, bias, missed = corrected(
        _of_layer_norm((pieces[tokens] + positions[places]) @ turned),
        scale[:, None] * turned * (width / rank) ** 0.5,
        shift,
        _of_layer_norm(pieces[tokens] + positions[places]) * scale + shift,
    )
    student = _electra(whole, rank)
    # What all positions share goes to the one token type, so that the small table of positions is finer in int8.
    own = {
        "word_embeddings.weight": pieces @ turned,
        "position_embeddings.weight": (positions - mean) @ turned,
        "token_type_embeddings.weight": (mean @ turned)[None],
    }
    student.load_state_dict({f"embeddings.{name}": rows.float() for name, rows in own.items()}, strict=False)
    student.embeddings_project.weight.copy_(weight)
    student.embeddings_project.bias.copy_(bias)
    logger.info(f"token table: {rank} of {width} numbers a piece, {missed:.1%} of what the embeddings give is lost")
    return student, {"rank": rank, "of": width, "missed": round(missed, 4)}
