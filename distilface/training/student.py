"""The student of a training, made smaller by the steps that its settings name."""

import logging
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.low_rank import factor_table
from distilface.compression.pruning import prune_vocabulary
from distilface.compression.student import Step, load_student
from distilface.compression.width import narrow_feed_forward
from distilface.model.families import dropouts_of
from distilface.training.settings import StudentSettings

logger = logging.getLogger(__name__)

#: Texts by which the neurons are chosen that a narrower feed-forward keeps, and the directions of a token table.
NARROWING_TEXTS = 600


def check_dropout(model: SentenceTransformer, dropout: float | None) -> None:
    """Log a warning where a student has another dropout than was asked for: its family may name it otherwise."""
    own = dropouts_of(model)
    if dropout is not None and (own - {0.0} if dropout == 0 else dropout not in own):
        kind = getattr(getattr(model[0], "config", None), "model_type", type(model[0]).__name__)
        has = f"it has {', '.join(map(str, sorted(own)))}" if own else "it has none"
        logger.warning(f"--dropout {dropout} has no effect on this {kind} encoder: {has}")


def _sample(texts: Dataset) -> list[str]:
    """Return texts, evenly taken, by which a step chooses what it keeps."""
    rows = np.linspace(0, len(texts) - 1, min(NARROWING_TEXTS, len(texts))).astype(int)
    return list(texts.select(rows)["text"][:])


def make_student(
    settings: StudentSettings,
    source: str,
    texts: Dataset | None = None,
    record: list[dict[str, Any]] | None = None,
    *,
    normalize: bool = False,
) -> SentenceTransformer:
    """Make the student of the settings from ``source`` (:func:`distilface.compression.student.load_student`).

    Args:
        settings: with the steps that make it smaller.
        source: a Hub id or a folder.
        texts: which pieces of the vocabulary are kept is counted on these, in a column ``text``.
        record: each step is added, for ``run.json``.
        normalize: end in unit length.
    """
    steps: list[Step] = []
    noted = [] if record is None else record
    size, width, rank = (getattr(settings, name, None) for name in ("vocabulary", "feed_forward", "table_rank"))
    if size is not None and texts is not None:

        def prune(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
            """Keep the pieces that the texts use."""
            tokenizer, pruning = prune_vocabulary(encoder, tokenizer, texts, size)
            noted.append({"step": "vocabulary", **pruning.as_dict()})
            return encoder, tokenizer

        steps.append(prune)
    if width is not None and texts is not None:

        def narrow(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
            """Keep the neurons that the texts use."""
            lost = narrow_feed_forward(encoder, tokenizer, _sample(texts), width)
            noted.append({"step": "width", **lost})
            return encoder, tokenizer

        steps.append(narrow)
    if rank is not None and texts is not None:

        def factor(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
            """Keep so many numbers of each piece."""
            student, lost = factor_table(encoder, tokenizer, _sample(texts), rank)
            noted.append({"step": "low rank", **lost})
            return student, tokenizer

        steps.append(factor)
    student = load_student(
        source,
        settings.layers,
        settings.pooling,  # type: ignore[arg-type]
        normalize=normalize,
        max_seq_length=settings.max_seq_length,
        dropout=settings.dropout,
        steps=steps,
    )
    check_dropout(student, settings.dropout)
    return student
