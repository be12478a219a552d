"""The protocol of a method: its paper, its settings, the data that its loss reads, its loss.

A method is one file or one folder here. :mod:`distilface.methods` finds it by itself, ``distilface train NAME`` runs
it, the tests run over all of them and the card cites it: nothing else knows its name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback, set_seed

from distilface import processes
from distilface.data.texts import read_texts
from distilface.methods.shaping import cut_dimensions, fill_budget, hold_out, rounded, search_layers, start_rounding
from distilface.methods.task import Paper, Task
from distilface.settings import InputError, warn_unused
from distilface.training.batches import check_batch, check_processes
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.evaluators import AgreementEvaluator, DevAndAgreementEvaluator, DevEvaluator
from distilface.training.fitting import encoder_trainer, fit, read_length
from distilface.training.history import history_of
from distilface.training.run_folder import check_settings, claimed
from distilface.training.settings import NEW, OWN, StudentSettings, TrainSettings, warn_unread
from distilface.training.student import make_student
from distilface.training.trainer import EncoderTrainer
from distilface.training.verdict import Measure

__all__ = ["EncoderMethod", "Method", "Paper", "Task"]


class Method(ABC):
    """One way to train an encoder.

    Attributes:
        name: on the command line and in ``run.json``.
        aliases: other names on the command line.
        paper: what the card says and cites.
        Settings: a dataclass of :func:`distilface.settings.setting` fields.
        least_batch: the texts of a batch that the loss compares with each other; 1 where it reads each alone. Where the
            settings decide it, :meth:`compares` does.
        alone: why several processes cannot train it together; empty where they can.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    paper: ClassVar[Paper]
    Settings: ClassVar[type[TrainSettings]]
    least_batch: ClassVar[int] = 1
    alone: ClassVar[str] = ""
    #: Whether it can train a static student first, whose token vectors its student starts with.
    trains_table: ClassVar[bool] = False

    def check(self, settings: Any) -> None:
        """Refuse, before anything is read or written, settings that cannot be followed.

        Raises:
            InputError: naming the setting, its value and the remedy.
        """
        self.check_processes()
        check_settings(settings)
        if not self.trains_table and (word := getattr(settings, "table_from", None)) in (NEW, OWN):
            raise InputError(f"--table_from {word} is of distill; name a static student's folder, or leave it out")
        if getattr(settings, "batch_tokens", None) is None:
            check_batch(settings.batch_size, self.compares(settings), self.name)

    def compares(self, settings: Any) -> int:
        """Return how many texts of a batch the loss compares with each other."""
        return self.least_batch

    def starts_static(self, task: Task) -> bool:
        """Return whether a student of one layer, if a budget chooses one, starts over a static student's table."""
        return False

    def check_processes(self) -> None:
        """Refuse several processes for a method that they cannot train together.

        Raises:
            InputError: saying why.
        """
        if self.alone:
            check_processes(self.name, self.alone)

    def cites(self, settings: Mapping[str, Any]) -> list[Paper]:
        """Return the papers of a run with these settings."""
        return [self.paper]

    def learns_space(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the student of a run with these settings is to have its only teacher's own embeddings."""
        return False

    def read(self, settings: Any, texts: Dataset | None) -> Dataset:
        """Return the sentences to train on, in a column ``text``: those that are given, or those of ``settings.data``.

        Raises:
            InputError: as :func:`distilface.data.texts.read_texts` does.
        """
        if texts is not None:
            return texts
        return processes.first_then_others(
            lambda: read_texts(settings.data, settings.max_sentences, settings.text_column)
        )

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
        processes.from_first(lambda: self.check(settings))
        warn_unused(settings)
        warn_unread(settings, texts is not None, ".txt", "text_column")
        set_seed(settings.seed)
        task = Task(settings, self.read(settings, texts))
        task.settings = fill_budget(task, self.starts_static)
        settings = task.settings = search_layers(task)
        before = history_of(task.source, *(getattr(settings, "average_with", None) or []))
        trainer, measure = self.trainer(task)
        scores = processes.from_first(lambda: [measure.score(teacher) for teacher in task.teachers])
        run = {
            "method": self.name,
            "baseline_model": task.source,
            "layers": settings.layers,
            "compression": task.compression,
            "history": before,
            "teacher": task.teacher_names[0] if len(scores) == 1 else task.teacher_names or None,
        }
        if scores:
            run["teacher_scores"] = dict(zip(task.teacher_names, scores, strict=True))
        if space := getattr(task, "space", None):
            run |= {"space": space.as_dict(), "origin": space.origin}
        if loss := getattr(trainer, "loss", None):
            run["loss_settings"] = loss.get_config_dict()
        best = max(scores, default=None)
        return fit(trainer, measure, settings, task.texts, run, best, lambda: self.outcome(trainer, task))


class EncoderMethod(Method):
    """A method that is one loss on one student: a subclass writes :meth:`prepare` and :meth:`loss`.

    The rest it overrides where it differs.
    """

    Settings: ClassVar[type[TrainSettings]] = StudentSettings
    #: Whether the student is to have its teacher's own embeddings, which stand in the column ``label``: then its
    #: agreement with the teacher is measured, and can choose the checkpoint.
    imitates: ClassVar[bool] = False

    def learns_space(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the student is to have its teacher's embeddings, and not a projection of it."""
        return self.imitates and not settings.get("projection")

    def student(self, task: Task) -> SentenceTransformer:
        """Return the untrained student."""
        return make_student(task.settings, task.source, task.texts, task.compression, counted=task.counted_texts)

    @abstractmethod
    def prepare(self, task: Task) -> Dataset:
        """Return the columns that the loss reads: texts first, and ``label`` for what is not tokenised."""

    @abstractmethod
    def loss(self, student: SentenceTransformer, task: Task) -> nn.Module:
        """Return a sentence-transformers loss on the student, for ``task.data``."""

    def evaluator(self, task: Task) -> DevEvaluator | AgreementEvaluator:
        """Return what chooses the checkpoint.

        It is the Spearman correlation on ``task.dev``; the agreement where there is no such; the mean of both where
        texts are held out for it.
        """
        if task.agreement is None or not task.settings.dev:
            return task.agreement or DevEvaluator(task.dev)
        return DevAndAgreementEvaluator(task.dev, task.agreement) if task.settings.held_out else DevEvaluator(task.dev)

    def callbacks(self, loss: nn.Module, task: Task) -> Sequence[TrainerCallback]:
        """Return what is done between steps; a callback that must outlive a stop keeps its state in the loss."""
        return ()

    def trainer(self, task: Task) -> tuple[EncoderTrainer, Measure]:
        """Return the trainer of the student, and the measure that chooses its checkpoint."""
        # Read first: a mistake in it must show before the teacher's pass of hours.
        dev = None if self.imitates and task.settings.dev is None else task.dev
        student = self.student(task)
        if self.compares(task.settings) > 1:  # two texts that are the same to the student would be false negatives
            task.drop_alike(student, read_length(task.settings, student))
        rounding = start_rounding(student, task) if getattr(task.settings, "bits", None) else None
        task.data = self.prepare(task)
        task.agreement = hold_out(task) if self.imitates else None
        loss = self.loss(student, task)
        callbacks, evaluator = self.callbacks(loss, task), self.evaluator(task)
        shorter = cut_dimensions(student, task)  # before the first score, which is of the model as it is published
        trainer, measure = encoder_trainer(student, loss, task.data, dev, task.settings, callbacks, evaluator)
        measure = replace(measure, shorter=shorter)
        if task.agreement is not None:
            measure = replace(measure, agreement=task.agreement.agreement)
        return trainer, measure if rounding is None else rounded(measure, rounding)
