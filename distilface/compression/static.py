"""A student without a transformer: each piece of the vocabulary has one vector, and a text is the mean of its pieces'.

sentence-transformers holds it as ``StaticEmbedding``. Its vectors start from what the teacher gives for each piece
alone, so that they lie in the teacher's space.
"""

import logging
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.pruning import count_pieces
from distilface.model.static import plain_tokenizer
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: The constant a of a piece's weight a / (a + p), p its share of the text (SIF, Arora et al. 2017, who took 1e-3). Of
#: 1e-2 to 1e-5, all-MiniLM-L6-v2's student agreed most with its teacher at this one, untrained (docs/sizes.md).
SMOOTHING = 3e-4
#: Pieces that the teacher embeds at once.
BATCH = 512


def check_teacher(teacher: SentenceTransformer, name: str, option: str = "--static true") -> None:
    """Refuse a teacher that a static student cannot be made of.

    Args:
        teacher: as it was loaded.
        name: its own, for messages.
        option: what asks for a static student.

    Raises:
        InputError: if it has no transformer inside, or no fast tokenizer.
    """
    if not isinstance(getattr(teacher[0], "model", None), PreTrainedModel):
        raise InputError(f"{option} needs a teacher with a transformer inside, and {name} has none; name another")
    if not teacher.tokenizer.is_fast:
        raise InputError(f"{option} needs a fast tokenizer, and {name} has a slow one; name another teacher")


def _frame(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the special tokens before a text and those after it."""
    tokens = tokenizer("a", return_special_tokens_mask=True)
    ids, special = tokens["input_ids"], tokens["special_tokens_mask"]
    first, last = special.index(0), len(special) - special[::-1].index(0)
    return list(ids[:first]), list(ids[last:])


@torch.no_grad()
def piece_embeddings(teacher: SentenceTransformer, pieces: Tensor) -> np.ndarray:
    """Embed pieces of a teacher's vocabulary, each alone between the special tokens of a text.

    Args:
        teacher: a model with a transformer inside.
        pieces: their ids, shape (pieces,).

    Returns:
        Its sentence embeddings: float32 of shape (pieces, width).
    """
    tokenizer: Any = teacher.tokenizer
    before, after = (torch.tensor(ids, dtype=torch.long) for ids in _frame(tokenizer))
    rows = []
    for batch in pieces.split(BATCH):
        ids = torch.cat([before.expand(len(batch), -1), batch[:, None], after.expand(len(batch), -1)], 1)
        features = {"input_ids": ids.to(teacher.device), "attention_mask": torch.ones_like(ids).to(teacher.device)}
        rows.append(teacher(features)["sentence_embedding"].float().cpu().numpy())
    return np.concatenate(rows)


def weighted_rows(rows: np.ndarray, counts: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Weight the vectors of pieces by how rare they are, without what all texts have in common.

    A piece of the share p of the text has the weight a / (a + p), and what is taken off every vector before is their
    mean by p a / (a + p): the mean of all texts is then 0. Without that every two texts are alike, for a word alone is
    nearer to another word than one text to another.

    Args:
        rows: shape (pieces, width).
        counts: of each piece in the text, shape (pieces,).
        smoothing: a.

    Returns:
        float32 of shape (pieces, width).
    """
    share = counts / max(counts.sum(), 1)
    weights = smoothing / (smoothing + share)
    parts = share * weights
    common = parts @ rows / max(parts.sum(), np.finfo(np.float32).tiny)
    return np.asarray((rows - common) * weights[:, None], np.float32)


def static_student(
    teacher: SentenceTransformer,
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    normalize: bool = False,
) -> SentenceTransformer:
    """Make a static student in its teacher's space and width.

    A text that has no piece, as an empty one, gets zeros. Special tokens have zeros too, for a text holds none of them;
    the unknown token, which it may hold, has a vector as any piece.

    Args:
        teacher: a model with a transformer inside (:func:`check_teacher`).
        texts: a column ``text``, on which the pieces are counted.
        tokenizer: the teacher's, or that of :func:`~distilface.compression.pruning.prune_vocabulary`, of fewer pieces.
        normalize: end in unit length.
    """
    whole: Any = teacher.tokenizer
    own: Any = tokenizer or whole
    pieces = torch.tensor(whole.convert_tokens_to_ids(own.convert_ids_to_tokens(range(len(own)))))
    logger.info(f"static: the teacher embeds {len(pieces):,} pieces, each alone")
    table = weighted_rows(piece_embeddings(teacher, pieces), count_pieces(texts, own))
    table[[number for number in own.all_special_ids if number != own.unk_token_id]] = 0
    modules: list[nn.Module] = [StaticEmbedding(plain_tokenizer(own.backend_tokenizer), torch.from_numpy(table))]
    return SentenceTransformer(modules=[*modules, Normalize()] if normalize else modules)
