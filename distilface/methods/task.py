"""What one training works on, and what a card says of its method."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.embedding.joined import Space
from distilface.settings import InputError
from distilface.training.alike import drop_alike
from distilface.training.evaluators import AgreementEvaluator
from distilface.training.settings import teacher_names
from distilface.training.teacher import load_teacher


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
        width: of the student's embedding, where the space that it learns depends on it.
        space: that it learns, where that is not its only teacher's own.
        distinct: whether the texts that the student reads alike were dropped.
        agreement: what measures the student against its teacher, if the method has it do so.
    """

    settings: Any
    texts: Dataset
    data: Dataset = field(init=False)
    compression: list[dict[str, Any]] = field(init=False, default_factory=list)
    width: int | None = field(init=False, default=None)
    space: Space | None = field(init=False, default=None)
    distinct: bool = field(init=False, default=False)
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
        """The ids, folders or endpoints of the teachers: none, one, or several."""
        return teacher_names(self.settings)

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

    def drop_alike(self, student: SentenceTransformer, length: int) -> None:
        """Drop, once, the texts that a student reads as an earlier one (:func:`distilface.training.alike.drop_alike`).

        The pieces of a vocabulary that is counted after it are those of the texts that are left.
        """
        if not self.distinct:
            self.texts, self.distinct = drop_alike(self.texts, student, length), True
            self.__dict__.pop("counted_texts", None)

    @property
    def source(self) -> str:
        """The id or folder of what the student is made of: the backbone, or else the teacher."""
        return str(self.settings.backbone or self.teacher_names[0])
