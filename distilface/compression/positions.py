"""Positions cut to the length that a model reads: what follows is never looked up."""

from typing import Any

from sentence_transformers import SentenceTransformer
from torch import nn

from distilface.model.families import padding_position
from distilface.model.static import is_static


def cut_positions(model: SentenceTransformer) -> int | None:
    """Cut the table of absolute positions of a BERT or a DistilBERT to ``max_seq_length`` rows, in place.

    Returns:
        The rows that are left, or ``None`` where nothing is cut: there is no such table, it is as long already, or the
        positions are counted from the padding, as RoBERTa's.
    """
    if is_static(model):
        return None
    encoder: Any = model[0].model
    length = model.max_seq_length
    tables = [module for module in encoder.modules() if position_table(module)]
    if not tables or padding_position(encoder) is not None or length is None:
        return None
    for owner in tables:
        table: Any = position_table(owner)
        if table.num_embeddings <= length:
            return None
        owner.position_embeddings = nn.Embedding.from_pretrained(table.weight.detach()[:length].clone(), freeze=False)
        ids: Any = getattr(owner, "position_ids", None)
        if ids is not None:
            owner.position_ids = ids[:, :length]
    encoder.config.max_position_embeddings = length
    return length


def position_table(module: nn.Module) -> nn.Embedding | None:
    """Return the table of absolute positions that a module holds itself, or ``None``."""
    table = getattr(module, "position_embeddings", None)
    return table if isinstance(table, nn.Embedding) else None
