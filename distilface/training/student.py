"""The student of a training, made smaller by the steps that its settings name."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.averaging import average
from distilface.compression.hidden import narrow_hidden
from distilface.compression.low_rank import factor_table
from distilface.compression.pruning import prune_vocabulary
from distilface.compression.sharing import share_layers
from distilface.compression.student import Step, load_student
from distilface.compression.table import take_table
from distilface.compression.width import narrow_feed_forward
from distilface.data.drawn import drawn
from distilface.model.families import dropouts_of
from distilface.model.folder import load
from distilface.model.pooling import is_normalized
from distilface.settings import InputError
from distilface.training.settings import StudentSettings

logger = logging.getLogger(__name__)

#: A step of compression that also gives its figures.
Changed = tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, Any]]
Change = Callable[[PreTrainedModel, PreTrainedTokenizerBase], Changed]
#: Texts by which a narrower student's channels and neurons are chosen, and the directions of its table.
NARROWING_TEXTS = 600


def check_dropout(model: SentenceTransformer, dropout: float | None) -> None:
    """Log a warning where a student has another dropout than was asked for: its family may name it otherwise."""
    own = dropouts_of(model)
    if dropout is not None and (own - {0.0} if dropout == 0 else dropout not in own):
        kind = getattr(getattr(model[0], "config", None), "model_type", type(model[0]).__name__)
        has = f"it has {', '.join(map(str, sorted(own)))}" if own else "it has none"
        logger.warning(f"--dropout {dropout} has no effect on this {kind} encoder: {has}")


@dataclass
class Making:
    """What the changes of a student read and leave.

    Attributes:
        texts: by which they choose what is kept, in a column ``text``.
        counted: on which the pieces of the vocabulary are counted.
        behind: modules that follow the student's pooling.
    """

    texts: Dataset
    counted: Dataset
    behind: list[nn.Module] = field(default_factory=list)

    def sample(self) -> list[str]:
        """Return some of the texts."""
        return drawn(self.texts, NARROWING_TEXTS)


def _average(
    making: Making, others: list[str], encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> Changed:
    """Start from the mean of the weights of several students."""
    return encoder, tokenizer, average(encoder, tokenizer, others)


def _prune(making: Making, size: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep the pieces that the texts use."""
    smaller, pruning = prune_vocabulary(encoder, tokenizer, making.counted, size)
    return encoder, smaller, pruning.as_dict()


def _take(making: Making, folder: str, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Start from the token vectors of a static student."""
    return encoder, tokenizer, {"from": folder, **take_table(encoder, tokenizer, load(folder), folder)}


def _narrow_state(making: Making, size: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep the channels of the hidden state that the layers need."""
    narrow, widening, lost = narrow_hidden(encoder, tokenizer, making.sample(), size)
    dense = Dense(widening.in_features, widening.out_features, activation_function=nn.Identity())
    dense.linear = widening
    making.behind.append(dense)
    return narrow, tokenizer, lost


def _narrow(making: Making, width: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep the neurons that the texts use."""
    return encoder, tokenizer, narrow_feed_forward(encoder, tokenizer, making.sample(), width)


def _factor(making: Making, rank: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Keep so many numbers of each piece."""
    electra, lost = factor_table(encoder, tokenizer, making.sample(), rank)
    return electra, tokenizer, lost


def _share(making: Making, runs: int, encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Changed:
    """Run each layer so often."""
    albert, figures = share_layers(encoder, runs)
    return albert, tokenizer, figures


#: The changes in their order: the setting that asks for each, its name in ``run.json``, and what makes it.
CHANGES: dict[str, tuple[str, Callable[..., Changed]]] = {
    "average_with": ("average", _average),
    "vocabulary": ("vocabulary", _prune),
    "table_from": ("table", _take),
    "hidden_size": ("hidden state", _narrow_state),
    "feed_forward": ("width", _narrow),
    "table_rank": ("low rank", _factor),
    "layer_runs": ("shared layers", _share),
}


def check_steps(settings: StudentSettings) -> None:
    """Refuse steps that cannot be together.

    Raises:
        InputError: naming both settings and the remedy.
    """
    size = getattr(settings, "hidden_size", None)
    if size and settings.pooling == "last4":
        raise InputError(
            f"--hidden_size {size} fits a map to the last layer's states, and --pooling last4 takes those of the last "
            "four; set --pooling mean"
        )
    runs, rank = getattr(settings, "layer_runs", None), getattr(settings, "table_rank", None)
    if runs and rank is None and getattr(settings, "bits", None) == 2:
        raise InputError(
            f"--layer_runs {runs} puts a map behind the token table, at first the identity, which 2 bits cannot hold; "
            "set --bits 4 --table_bits 2, or add --table_rank"
        )


def _changes(settings: StudentSettings, making: Making) -> list[tuple[str, Change]]:
    """Return the changes that settings ask for, in their order, each with its name in ``run.json``."""
    asked = {setting: getattr(settings, setting, None) for setting in CHANGES}
    return [
        (name, partial(change, making, asked[setting]))
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
    counted: Dataset | None = None,
    normalize: bool = False,
) -> SentenceTransformer:
    """Make the student of the settings from ``source`` (:func:`distilface.compression.student.load_student`).

    Args:
        settings: with the steps that make it smaller.
        source: a Hub id or a folder.
        texts: by which the steps choose what is kept, in a column ``text``; ``None`` makes none of them.
        record: each step is added, for ``run.json``.
        counted: which pieces of the vocabulary are kept is counted on these; ``None``: on ``texts``.
        normalize: end in unit length.

    Raises:
        InputError: as the steps, or if settings of the student exclude each other.
    """
    check_steps(settings)
    making = None if texts is None else Making(texts, texts if counted is None else counted)
    changes = [] if making is None else _changes(settings, making)
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
    if making is not None and making.behind:
        modules = list(student.children())
        end = len(modules) - is_normalized(student)
        student = SentenceTransformer(modules=[*modules[:end], *making.behind, *modules[end:]])
    check_dropout(student, settings.dropout)
    return student
