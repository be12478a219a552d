"""The protocol of a method: its paper, its settings, the data that its loss reads, its loss.

A method is one file or one folder here. :mod:`distilface.methods` finds it by itself, ``distilface train NAME`` runs
it, the tests run over all of them and the card cites it: nothing else knows its name.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback, set_seed

from distilface.compression.bits import BITS, Rounding
from distilface.compression.gptq import round_weights
from distilface.compression.positions import cut_positions
from distilface.compression.sizes import shape_lines, shapes_for
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.settings import InputError, warn_unused
from distilface.training.alike import drop_alike
from distilface.training.batches import check_batch
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.evaluators import AgreementEvaluator, DevEvaluator
from distilface.training.fitting import encoder_trainer, fit, make_student, read_length
from distilface.training.run_folder import check_settings, claimed
from distilface.training.settings import StudentSettings, TrainSettings, warn_unread
from distilface.training.teacher import load_teacher
from distilface.training.verdict import Measure

logger = logging.getLogger(__name__)

#: Texts that set the rounding of a student before it is trained.
CALIBRATION = 300


@dataclass(frozen=True)
class Paper:
    """What a model card says of a method.

    Attributes:
        name: the method, as it is called in a sentence.
        summary: what it does, in one line.
        links: each paper's short name and its address.
        bibtex: the papers, as BibTeX entries.
        limits: what a user must know of every model that was made so.
    """

    name: str
    summary: str
    links: dict[str, str]
    bibtex: str
    limits: tuple[str, ...] = ()


@dataclass
class Task:
    """What one training works on.

    Attributes:
        settings: how to train.
        texts: the sentences, in a column ``text``. Where the loss compares sentences, only the first of those that the
            student reads as the same tokens is kept.
        data: the columns that the loss reads; :meth:`EncoderMethod.trainer` sets it to what ``prepare`` returns.
        compression: the steps that made the student smaller, for ``run.json``.
        agreement: what measures the student against its teacher, if the method has it do so.
    """

    settings: Any
    texts: Dataset
    data: Dataset = field(init=False)
    compression: list[dict[str, Any]] = field(init=False, default_factory=list)
    agreement: AgreementEvaluator | None = field(init=False, default=None)

    @cached_property
    def dev(self) -> Dataset:
        """The scored pairs that choose the checkpoint.

        Raises:
            InputError: if the settings name none, and the method can choose by nothing else.
        """
        if self.settings.dev is None:
            raise InputError("--dev none leaves nothing to choose the checkpoint by; give scored pairs, or 'sample'")
        return read_sts(self.settings.dev)

    @property
    def teacher_names(self) -> list[str]:
        """The ids or folders of the teachers: none, one, or several."""
        several = getattr(self.settings, "teachers", None)
        one = getattr(self.settings, "teacher", None)
        return list(several or ([one] if one else []))

    @cached_property
    def teachers(self) -> list[SentenceTransformer]:
        """The teachers, frozen, loaded where they are first asked for."""
        return [load_teacher(name) for name in self.teacher_names]

    @property
    def teacher(self) -> SentenceTransformer:
        """The only teacher."""
        return self.teachers[0]

    @cached_property
    def counted_texts(self) -> Dataset:
        """The text whose pieces the student's vocabulary keeps."""
        sources = getattr(self.settings, "vocabulary_data", [])
        return read_texts(sources, None, self.settings.text_column) if sources else self.texts

    @property
    def source(self) -> str:
        """The id or folder of what the student is made of: the backbone, or else the teacher."""
        return str(self.settings.backbone or self.teacher_names[0])


class Method(ABC):
    """One way to train an encoder.

    Attributes:
        name: on the command line and in ``run.json``.
        aliases: other names on the command line.
        paper: what the card says and cites.
        Settings: a dataclass of :func:`distilface.settings.setting` fields.
        least_batch: the texts of a batch that the loss compares with each other; 1 where it reads each alone.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[Paper]
    Settings: ClassVar[type[TrainSettings]]
    least_batch: ClassVar[int] = 1

    def check(self, settings: Any) -> None:
        """Refuse, before anything is read or written, settings that cannot be followed.

        Raises:
            InputError: naming the setting, its value and the remedy.
        """
        check_settings(settings)
        check_batch(settings.batch_size, self.least_batch, self.name)

    def cites(self, settings: Mapping[str, Any]) -> list[Paper]:
        """Return the papers of a run with these settings."""
        return [self.paper]

    @abstractmethod
    def trainer(self, task: Task) -> tuple[WholeCheckpoints, Measure]:
        """Return a trainer, and the measure that chooses its checkpoint."""

    def outcome(self, trainer: WholeCheckpoints, task: Task) -> dict[str, Any]:
        """Return what only the finished training knows, for ``run.json``."""
        return {}

    def train(self, settings: Any, texts: Dataset | None = None) -> dict[str, Any]:
        """Train, write the folder, score it as reloaded from disk; return what stands in its ``run.json``.

        Args:
            settings: of :attr:`Settings`.
            texts: sentences in a column ``text``; ``None`` reads ``settings.data``.

        Raises:
            InputError: on settings, data or models that cannot be used, an output folder that another process trains
                into, a collapse, or a NaN loss.
            KeyboardInterrupt: after Ctrl-C, with the checkpoint saved and the words to go on.
        """
        with claimed(settings):
            return self._train_alone(settings, texts)

    def _train_alone(self, settings: Any, texts: Dataset | None) -> dict[str, Any]:
        self.check(settings)
        warn_unused(settings)
        warn_unread(settings, texts is not None, ".txt", "text_column")
        set_seed(settings.seed)
        if texts is None:
            texts = read_texts(settings.data, settings.max_sentences, settings.text_column)
        task = Task(settings, texts)
        settings = task.settings = fill_budget(task)
        trainer, measure = self.trainer(task)
        scores = [measure.score(teacher) for teacher in task.teachers]
        run = {
            "method": self.name,
            "baseline_model": task.source,
            "layers": settings.layers,
            "compression": task.compression,
            "teacher": task.teacher_names[0] if len(scores) == 1 else task.teacher_names or None,
        }
        if scores:
            run["teacher_scores"] = dict(zip(task.teacher_names, scores, strict=True))
        if loss := getattr(trainer, "loss", None):
            run["loss_settings"] = loss.get_config_dict()
        best = max(scores, default=None)
        return fit(trainer, measure, settings, task.texts, run, best, lambda: self.outcome(trainer, task))


def fill_budget(task: Task) -> Any:
    """Return the settings of a task, with the layers, pieces and bits that fill its megabytes, if it has any."""
    settings = task.settings
    if getattr(settings, "megabytes", None) is None:
        return settings
    found = shapes_for(task.source, settings.megabytes, settings.max_seq_length)
    for line in shape_lines(found[:1]):
        logger.info(line)
    return replace(settings, layers=list(found[0].layers), vocabulary=found[0].vocabulary, bits=BITS)


def start_rounding(student: SentenceTransformer, task: Task) -> Rounding:
    """Put a student on the grid of its 4-bit file, cut its positions to its length, and have it train there."""
    length = read_length(task.settings, student)
    rows = np.linspace(0, len(task.texts) - 1, min(CALIBRATION, len(task.texts))).astype(int)
    sample = task.texts.select(rows)["text"][:]
    logger.info(f"{task.settings.bits} bits: rounded by what {len(sample)} texts of at most {length} tokens give")
    cut_positions(student)
    round_weights(student, lambda: student.encode(sample, batch_size=32, show_progress_bar=False))
    task.compression.append({"step": "bits", "bits": task.settings.bits})
    return Rounding(student)


def rounded(measure: Measure, rounding: Rounding) -> Measure:
    """Return a measure that saves a model with its weights rounded, as its passes compute with them."""

    def save(model: SentenceTransformer, folder: Path) -> None:
        """Round the weights, then save them."""
        rounding.write()
        measure.save(model, folder)

    return replace(measure, save=save)


class EncoderMethod(Method):
    """A method that is one loss on one student: a subclass writes :meth:`prepare` and :meth:`loss`.

    The rest it overrides where it differs.
    """

    Settings: ClassVar[type[TrainSettings]] = StudentSettings
    #: Whether the agreement with the teacher can choose the checkpoint.
    needs_no_dev: ClassVar[bool] = False

    def student(self, task: Task) -> SentenceTransformer:
        """Return the untrained student."""
        return make_student(task.settings, task.source, task.counted_texts, task.compression)

    @abstractmethod
    def prepare(self, task: Task) -> Dataset:
        """Return the columns that the loss reads: texts first, and ``label`` for what is not tokenised."""

    @abstractmethod
    def loss(self, student: SentenceTransformer, task: Task) -> nn.Module:
        """Return a sentence-transformers loss on the student, for ``task.data``."""

    def evaluator(self, task: Task) -> DevEvaluator | AgreementEvaluator:
        """Return what chooses the checkpoint: the Spearman correlation on ``task.dev``, or else the agreement."""
        return DevEvaluator(task.dev) if task.agreement is None or task.settings.dev else task.agreement

    def agreement(self, task: Task) -> AgreementEvaluator | None:
        """Return what measures the student against its teacher, the texts for it taken out of ``task.data``.

        ``None`` where no loss asks the student to have its teacher's embeddings.
        """
        return None

    def callbacks(self, loss: nn.Module, task: Task) -> Sequence[TrainerCallback]:
        """Return what is done between steps; a callback that must outlive a stop keeps its state in the loss."""
        return ()

    def trainer(self, task: Task) -> tuple[WholeCheckpoints, Measure]:
        """Return the trainer of the student, and the measure that chooses its checkpoint."""
        # Read first: a mistake in it must show before the teacher's pass of hours.
        dev = None if self.needs_no_dev and task.settings.dev is None else task.dev
        student = self.student(task)
        if self.least_batch > 1:  # of two texts that are the same to the student, one would be a false negative
            task.texts = drop_alike(task.texts, student, read_length(task.settings, student))
        rounding = start_rounding(student, task) if getattr(task.settings, "bits", None) else None
        task.data = self.prepare(task)
        task.agreement = self.agreement(task)
        loss = self.loss(student, task)
        callbacks, evaluator = self.callbacks(loss, task), self.evaluator(task)
        trainer, measure = encoder_trainer(student, loss, task.data, dev, task.settings, callbacks, evaluator)
        if task.agreement is not None:
            measure = replace(measure, agreement=task.agreement.agreement)
        return trainer, measure if rounding is None else rounded(measure, rounding)
