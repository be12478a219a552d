"""The token table of an encoder, taken from a static student, which was trained in a minute."""

import logging
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.positions import position_table
from distilface.model.static import is_static, token_table
from distilface.settings import InputError

logger = logging.getLogger(__name__)


@torch.no_grad()
def take_table(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, static: SentenceTransformer, name: str
) -> dict[str, Any]:
    """Give an encoder the token vectors of a static student, and positions of zero, in place.

    A static student gives a text the mean of its tokens' vectors, in the teacher's space. An encoder of one or two
    layers comes nearer to its teacher from there than from the teacher's own table, which is made for what six layers
    do with it (docs/sizes.md). The vectors are scaled, so that their mean length is that of the encoder's own. Tokens
    that the static student does not know, and special tokens, keep their own.

    Args:
        encoder: with a table of the static student's width.
        tokenizer: its own.
        static: the static student.
        name: of its folder, for messages.

    Returns:
        ``pieces``, how many got a vector, and ``of``, how many there are, for ``run.json``.

    Raises:
        InputError: if it is not static, its width is another, or it knows none of the tokens.
    """
    if not is_static(static):
        raise InputError(f"{name} is no static student, so it has no table to take; train one with --static true")
    table: Any = encoder.get_input_embeddings()
    vectors = token_table(static).weight
    if vectors.shape[1] != table.weight.shape[1]:
        raise InputError(
            f"{name} has {vectors.shape[1]} numbers a token and the student's table {table.weight.shape[1]}; "
            "name a static student of the same teacher"
        )
    known, own = static.tokenizer.get_vocab(), tokenizer.get_vocab()
    shared = own.keys() & known.keys() - set(tokenizer.all_special_tokens)
    pairs = [(own[piece], known[piece]) for piece in shared]
    if not pairs:
        raise InputError(f"{name} knows no token of the student's; name a static student of the same teacher")
    rows, sources = torch.tensor(sorted(pairs)).T
    taken = vectors[sources]
    taken *= table.weight[rows].norm(dim=1).mean() / taken.norm(dim=1).mean()
    table.weight[rows] = taken
    for positions in filter(None, map(position_table, encoder.modules())):
        positions.weight.zero_()
    logger.info(f"table: {len(rows):,} of {len(table.weight):,} pieces have the vectors of {name}")
    return {"pieces": len(rows), "of": len(table.weight)}
