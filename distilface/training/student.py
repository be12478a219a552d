"""The student of a training, made smaller by the steps that its settings name."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.averaging import average
from distilface.compression.low_rank import factor_table
from distilface.compression.pruning import prune_vocabulary
from distilface.compression.student import Step, load_student
from distilface.compression.table import take_table
from distilface.compression.width import narrow_feed_forward
from distilface.model.families import dropouts_of
from distilface.model.folder import load
from distilface.training.settings import StudentSettings

logger = logging.getLogger(__name__)

#: A step of compression that also gives its figures.
Changed = tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]
Change = Callable[[PreTrainedModel, PreTrainedTokenizerBase], Changed]
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


def _average(
    texts: Dataset, others: list[str], encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Changed:
    """Start from the mean of the weights of several students."""
    return encoder, tokenizer, average(encoder, tokenizer, others)


def _prune(texts: Dataset, size: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep the pieces that the texts use."""
    smaller, pruning = prune_vocabulary(encoder, tokenizer, texts, size)
    return encoder, smaller, pruning.as_dict()


def _take(texts: Dataset, folder: str, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Start from the token vectors of a static student."""
    return encoder, tokenizer, {"from": folder, **take_table(encoder, tokenizer, load(folder), folder)}


def _narrow(texts: Dataset, width: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep the neurons that the texts use."""
    return encoder, tokenizer, narrow_feed_forward(encoder, tokenizer, _sample(texts), width)


def _factor(texts: Dataset, rank: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep so many numbers of each piece."""
    electra, lost = factor_table(encoder, tokenizer, _sample(texts), rank)
    return electra, tokenizer, lost


#: The changes in their order: the setting that asks for each, its name in ``run.json``, and what makes it.
CHANGES: dict[str, tuple[str, Callable[..., Changed]]] = {
    "average_with": ("average", _average),
    "vocabulary": ("vocabulary", _prune),
    "table_from": ("table", _take),
    "feed_forward": ("width", _narrow),
    "table_rank": ("low rank", _factor),
}


def _changes(settings: StudentSettings, texts: Dataset) -> list[tuple[str, Change]]:
    """Return the changes that settings ask for, in their order, each with its name in ``run.json``."""
    asked = {setting: getattr(settings, setting, None) for setting in CHANGES}
    return [
        (name, partial(change, texts, asked[setting]))
        for setting, (name, change) in CHANGES.items()
        if asked[setting] not in (None, [])
    ]


def _noted(name: str, change: Change, record: list[dict[str, Any]]) -> Step:
    """Return a change as a step that adds its figures to a record."""

    def step(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Make the change."""
        encoder, tokenizer, figures = change(encoder, tokenizer)
        record.append({"step": name, **figures})
        return encoder, tokenizer

    return step


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
    changes = [] if texts is None else _changes(settings, texts)
    noted = [] if record is None else record
    student = load_student(
        source,
        settings.layers,
        settings.pooling,  # type: ignore[arg-type]
        normalize=normalize,
        max_seq_length=settings.max_seq_length,
        dropout=settings.dropout,
        steps=[_noted(name, change, noted) for name, change in changes],
    )
    check_dropout(student, settings.dropout)
    return student
