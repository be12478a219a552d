"""Output dimensions: a model that gives only the first numbers of its vectors (``truncate_dim``).

sentence-transformers keeps ``truncate_dim`` in ``config_sentence_transformers.json``, cuts what the last module gives,
and leaves the length of what is left below 1. Exported files and every encoder here bring it to 1 again where the model
ends in ``Normalize``: a search that takes inner products for cosines would rank otherwise.
"""

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from distilface.model.pooling import is_normalized
from distilface.settings import InputError


def whole_width(model: SentenceTransformer) -> int:
    """Return the numbers of a model's vectors before any are cut off."""
    with model.truncate_embeddings(None):
        return model.get_embedding_dimension() or 0


def cut_to(model: SentenceTransformer) -> int | None:
    """Return how many numbers of its vectors a model gives; ``None`` where it gives all."""
    count = model.truncate_dim
    return count if count is not None and count < whole_width(model) else None


def needs_length(model: SentenceTransformer) -> bool:
    """Return whether what a model gives is to be brought to length 1 again: it ends so, and then some are cut off."""
    return cut_to(model) is not None and is_normalized(model)


def cut(model: SentenceTransformer, embeddings: Tensor) -> Tensor:
    """Return what a model gives of its whole vectors, shape (B, dimension)."""
    count = cut_to(model)
    short = embeddings if count is None else embeddings[:, :count]
    return torch.nn.functional.normalize(short, dim=1) if needs_length(model) else short


def set_dimensions(model: SentenceTransformer, count: int) -> dict[str, int]:
    """Have a model give the first numbers of its vectors; its modules, and so its training, stay as they are.

    Returns:
        ``width`` and ``of``, the numbers before, for ``run.json``.

    Raises:
        InputError: if it has no more.
    """
    whole = whole_width(model)
    if not 0 < count < whole:
        raise InputError(f"--truncate_dim {count} is out of range; the student's vectors have {whole} numbers")
    model.truncate_dim = count
    return {"width": count, "of": whole}


def with_cut(model: SentenceTransformer, code: list[str]) -> list[str]:
    """Return lines of code that spell a model's whole vectors, with the line that cuts them, if it does.

    Args:
        model: whose vectors are spelt.
        code: lines to ``embeddings``, of torch or of numpy; of a model that ends in ``Normalize``, the last does that.
    """
    count = cut_to(model)
    if count is None:
        return code
    place = len(code) - is_normalized(model)
    return [*code[:place], f"embeddings = embeddings[:, :{count}]", *code[place:]]
