"""The four stages: what each starts from, learns from, and is scored by."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface import processes
from distilface.compression.recurrent import recurrent_student
from distilface.compression.student import load_student
from distilface.compression.vocabulary import make_assistant
from distilface.data.fingerprints import fingerprint
from distilface.embedding.teacher_cache import embed
from distilface.methods.base import Task
from distilface.methods.multistage.evaluators import BottleneckEvaluator, CrossLingualEvaluator
from distilface.methods.multistage.losses import BottleneckLoss, MatchLoss, MultilingualContrastiveLoss
from distilface.methods.multistage.settings import EACH, MultistageSettings
from distilface.model import identity
from distilface.model.folder import Folder, save_folder
from distilface.model.pooling import is_normalized
from distilface.model.precision import uses_bf16
from distilface.training.checkpoints import last_whole
from distilface.training.evaluators import DevEvaluator
from distilface.training.fitting import count_steps
from distilface.training.run_folder import work_folder
from distilface.training.student import check_dropout


@dataclass
class ParallelTask(Task):
    """What all the stages share: the pairs to train on and the held-out ones; ``texts`` are the former's sentences."""

    pairs: Dataset
    held_out: Dataset

    def student(self, source: str) -> SentenceTransformer:
        """Load an encoder as a student: mean pooling, of unit length where the teacher is."""
        student = load_student(source, normalize=is_normalized(self.teacher), dropout=self.settings.dropout)
        check_dropout(student, self.settings.dropout)
        length = self.settings.max_seq_length or self.teacher.max_seq_length
        student.max_seq_length = min(filter(None, (student.max_seq_length, length)))
        return student

    def pairs_for(self, settings: MultistageSettings) -> Dataset:
        """Return the pairs for a stage: all, or as many as it reads where that is less than half of them.

        A teacher embeds all of these; of a short stage, most embeddings would never be read.
        """
        count = settings.batch_size * count_steps(settings, len(self.pairs))
        if 2 * count >= len(self.pairs):
            return self.pairs
        rows = np.random.default_rng(settings.seed).choice(len(self.pairs), count, replace=False)
        return self.pairs.select(np.sort(rows))


class Stage:
    """One stage: a training of its own, with a folder of its own.

    It starts from what :meth:`begin` names, else from its teacher. One that needs the assistant learns from it, and any
    other from the English teacher.
    """

    number: ClassVar[int]  # in --stages
    name: ClassVar[str]  # in run.json and of the folder
    needs: ClassVar[tuple[type["Stage"], ...]]  # the stages whose folders it reads
    shape: ClassVar[tuple[str, ...]]  # the settings that decide the shape and the vocabulary of its model
    Loss: ClassVar[type[MatchLoss]]
    sides: ClassVar[tuple[str, ...]]  # of a pair, those that the teacher embeds for the loss
    teacher_scored: ClassVar[bool] = True  # by the measure of the student
    least_batch: ClassVar[int] = 1  # the pairs that the loss compares with each other

    def __init__(self, task: ParallelTask) -> None:
        self.task, self.settings = task, self.own_settings(task.settings)
        self.pairs = task.pairs_for(self.settings)
        self.teacher_name, self.teacher = task.teacher_names[0], task.teacher
        if Assistant in self.needs:
            folder, assistant = Assistant.folder(task.settings.output_dir), self.settings.assistant
            self.teacher_name = assistant if assistant and not folder.is_valid() else str(folder.path)
            self.teacher = task.student(self.teacher_name).requires_grad_(False).eval()
        self.source = self.begin()
        self.start = self.teacher if self.source is None else task.student(self.source)

    @classmethod
    def folder(cls, output_dir: str) -> Folder:
        """Return where the stage writes, beside the output folder: ``<output>.stages/N-name``."""
        output = Path(output_dir)
        return Folder(output.with_name(f"{output.name}.stages") / f"{cls.number}-{cls.name}")

    @classmethod
    def own_settings(cls, settings: MultistageSettings) -> MultistageSettings:
        """Return the settings of this stage: its own folder and numbers; ``resume`` only where it has a checkpoint."""
        own: dict[str, Any] = {"output_dir": str(cls.folder(settings.output_dir).path), "stages": [cls.number]}
        for several, one in EACH.items():
            if (values := getattr(settings, several)) is not None:
                own |= {one: values[cls.number - 1], several: None}
        stage = replace(settings, **own)
        return replace(stage, resume=settings.resume and last_whole(work_folder(stage)) is not None)

    def begin(self) -> str | None:
        """Return the id or folder that the stage starts from: of the last stage that it needs."""
        return str(self.needs[-1].folder(self.task.settings.output_dir).path)

    @property
    def origin(self) -> dict[str, str]:
        """What decides the stage beside its settings."""
        start, teacher = identity.fingerprint(self.start)[:16], identity.fingerprint(self.teacher)[:16]
        return {"start": start, "teacher": teacher, "pairs": fingerprint(self.task.texts)}

    def student(self) -> SentenceTransformer:
        """Return the model to train."""
        return self.start

    def targets(self, side: str) -> Dataset:
        """Embed one side of the pairs by the teacher, once, on disk: a column ``label`` of float32 tensors."""
        cache, bf16 = self.settings.cache_dir, uses_bf16(self.settings.bf16)
        pairs = embed(self.teacher, self.pairs, cache, column=side, bf16=bf16)
        return pairs.select_columns(["label"]).with_format("torch")

    def loss(self, student: SentenceTransformer) -> MatchLoss:
        """Return the loss of the student; the teacher's embeddings are computed here."""
        return self.Loss(student, *[self.targets(side) for side in self.sides], weight=self.settings.weight)

    def evaluator(self) -> DevEvaluator:
        """Return what chooses the checkpoint."""
        return CrossLingualEvaluator(self.task.dev, self.task.held_out)


class Assistant(Stage):
    """A multilingual encoder, given or made of the teacher, learns the teacher's embeddings of the English side."""

    number, name, needs = 1, "assistant", ()
    shape = ("teacher", "assistant", "vocabulary", "assistant_layers", "seed")
    Loss, sides = MatchLoss, ("english",)

    def begin(self) -> str:
        """Return the assistant that is given; or make one, which is kept: a resume needs the same vocabulary."""
        settings, folder = self.settings, Folder(Path(self.settings.output_dir).with_name("0-start"))
        if settings.assistant:
            return settings.assistant
        origin = {"teacher": identity.fingerprint(self.teacher), "pairs": fingerprint(self.task.texts)}
        origin |= {name: getattr(settings, name) for name in ("vocabulary", "assistant_layers", "seed")}
        if not (folder.is_valid() and (run := folder.run) and run.origin == origin):
            sizes = settings.vocabulary, settings.assistant_layers

            def make() -> None:
                """Make the assistant and keep it."""
                assistant = make_assistant(settings.teacher, self.task.texts, *sizes, seed=settings.seed)
                save_folder(assistant, folder.path, {"method": "assistant", "origin": origin}, overwrite=True)

            processes.from_first(make)
        return str(folder.path)


class Bottleneck(Stage):
    """The recurrent student is made of the assistant, and its narrow embedding layer learns the assistant's."""

    number, name, needs = 2, "bottleneck", (Assistant,)
    shape = (*Assistant.shape, "keep_layers", "repeats", "embedding_size")
    teacher_scored = False  # the measure is the distance to it

    def begin(self) -> None:
        """Start from the assistant, whose folder is not the student's."""

    def student(self) -> SentenceTransformer:
        """Return the recurrent student of the assistant."""
        settings = self.settings
        sizes = settings.keep_layers, settings.repeats, settings.embedding_size
        return recurrent_student(self.start, *sizes, dropout=settings.dropout)

    def loss(self, student: SentenceTransformer) -> BottleneckLoss:
        """Return the distance between the embedding layers."""
        return BottleneckLoss(student, self.teacher)

    def evaluator(self) -> DevEvaluator:
        """Return how much of the assistant's embedding layer the student's explains."""
        return BottleneckEvaluator(self.task.dev, self.task.held_out, self.teacher)


class Recurrent(Stage):
    """The whole student learns the assistant's embeddings, each side its own."""

    number, name, needs = 3, "recurrent", (Assistant, Bottleneck)
    shape = Bottleneck.shape
    Loss, sides = MatchLoss, ("english", "other")


class Contrastive(Stage):
    """The student learns the English teacher's cosines across the languages, beside its embeddings."""

    number, name, needs = 4, "contrastive", (Recurrent,)
    shape = Recurrent.shape
    Loss, sides = MultilingualContrastiveLoss, ("english",)
    least_batch = 2

    @classmethod
    def folder(cls, output_dir: str) -> Folder:
        """Return the output folder: this stage's model is that of the whole training."""
        return Folder(Path(output_dir))


STAGES: tuple[type[Stage], ...] = (Assistant, Bottleneck, Recurrent, Contrastive)
