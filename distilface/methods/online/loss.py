"""DistillCSE (arXiv 2310.13499), and distillation on the fly from the student's own past (hdl 10356/174236)."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from distilface.data.texts import numbered
from distilface.methods import simcse
from distilface.methods.base import Paper
from distilface.methods.relations import PAPER as RELATIONS
from distilface.methods.relations import relation_loss, relations, shuffle_in_groups
from distilface.model.prompts import tokens_of
from distilface.settings import InputError

Keep = Literal["last", "best_dev"]
PAPER = Paper(
    name="SimCSE beside teachers, or beside the student's own past (DistillCSE, distillation on the fly)",
    summary="to SimCSE comes that the relations within a batch meet those that a teacher sees",
    links=RELATIONS.links | {"simcse": "https://arxiv.org/abs/2104.08821"},
    bibtex=RELATIONS.bibtex + simcse.PAPER.bibtex,
    limits=("It has seen no label; what its teachers learned from, if it had any, is named above.",),
)


def prepare(texts: Dataset) -> Dataset:
    """Pair every sentence with itself, with its row in ``label``: the loss looks its text up for a teacher.

    Columns ``sentence1``, ``sentence2`` and ``label``; the text is not copied.
    """
    return numbered(simcse.prepare(texts))


def frozen(model: SentenceTransformer) -> SentenceTransformer:
    """Return a copy that is not trained: in eval mode, without gradients."""
    return copy.deepcopy(model).requires_grad_(False).eval()


def _check(group_p: float, weight: float, student: float, teacher: float, length: int | None) -> None:
    """Refuse values out of range."""
    if not 0 <= group_p <= 1:
        raise InputError(f"--group_p {group_p} is out of range; it is a probability, 0 (no shuffling) to 1")
    if weight < 0:
        raise InputError(f"--weight {weight} is out of range; it must be 0 or more")
    for name, value in (("student_temperature", student), ("teacher_temperature", teacher)):
        if value <= 0:
            raise InputError(f"--{name} {value} is out of range; it must be above 0")
    if length is not None and length < 1:
        raise InputError(f"--teacher_max_length {length} is out of range; it must be 1 or more")


class DistillCSELoss(simcse.SimCSELoss):
    """SimCSE, and the teacher's relations between the different sentences of a batch.

    L = L_simcse + w * CE(q || p). The second term (:func:`distilface.methods.relations.relation_loss`)
    compares the cosines of the student's first view with the mean of the teachers' cosines, which Group-P shuffles
    anew for every anchor and step, from ``seed`` and the number of the step. A teacher reads each sentence once.

    The teachers are either other encoders, which are given the text itself, or the student's own past: with ``keep``
    a frozen copy of it is kept here, and :meth:`switch` makes that copy the only teacher. Until then it has the
    teachers it was given; with none, it is SimCSE. The copy, the best weights so far, the generation and the step are
    in ``state_dict()``; other encoders are not.

    Args:
        model: the student.
        teachers: other encoders, from :func:`distilface.training.teacher.load_teacher`.
        texts: the sentences, column ``text``, where teachers are given: row i is that of ``label`` i.
        scale: 20 is SimCSE's temperature 0.05.
        mlp_head: SimCSE's, in training only; both terms are of its output, as in the published code.
        weight: w, the weight of the relations.
        student_temperature: of the relations; that of SimCSE is 1 / ``scale``.
        teacher_temperature: lower, so that the teacher's choice is the sharper one.
        group_p: the probability in one group of Group-P shuffling; 0 for none.
        teacher_max_length: tokens of a sentence that a teacher reads; ``None``: as many as it can.
        bf16: run the teachers under autocast to bf16, as the trainer runs the student.
        seed: of the shuffling.
        keep: what :meth:`switch` takes: the ``last`` student, or that which scored best so far (``best_dev``,
            told by :meth:`observe`); ``None`` where there is no switch.

    Raises:
        InputError: on a value out of its range, or a student without dropout.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        teachers: Sequence[SentenceTransformer] = (),
        texts: Dataset | None = None,
        *,
        scale: float = 20.0,
        mlp_head: bool = False,
        weight: float = 1.0,
        student_temperature: float = 0.02,
        teacher_temperature: float = 0.01,
        group_p: float = 0.1,
        teacher_max_length: int | None = None,
        bf16: bool = False,
        seed: int = 42,
        keep: Keep | None = None,
    ) -> None:
        _check(group_p, weight, student_temperature, teacher_temperature, teacher_max_length)
        super().__init__(model, scale, mlp_head)
        self.weight, self.group_p, self.seed = weight, group_p, seed
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.teacher_max_length, self.bf16, self.texts = teacher_max_length, bf16, texts
        # A tuple, which torch does not look into: what is given is neither trained, moved nor saved.
        self.teachers = tuple(teacher.requires_grad_(False).eval() for teacher in teachers)
        self.past = frozen(model) if keep else None
        self.best = frozen(model) if keep == "best_dev" else None
        self.step: Tensor
        self.generation: Tensor
        self.best_score: Tensor
        self.register_buffer("step", torch.tensor(0))
        self.register_buffer("generation", torch.tensor(0))
        self.register_buffer("best_score", torch.tensor(-torch.inf, dtype=torch.float64))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Any) -> Tensor:
        """Return the loss of one batch: two columns of the same B sentences, and their rows in the text."""
        columns = [dict(features) for features in sentence_features]
        theirs = self.teacher_relations(columns[0], labels)
        views = embed_columns(self.model, columns)
        if self.head is not None:
            views = [self.head(view) for view in views]
        loss = self.compute_loss_from_embeddings(views, labels)
        if theirs is not None:
            theirs = shuffle_in_groups(theirs, self.group_p, np.random.default_rng([self.seed, int(self.step)]))
            temperatures = self.student_temperature, self.teacher_temperature
            loss = loss + self.weight * relation_loss(relations(views[0]), theirs, *temperatures)
        if self.training:
            self.step += 1
        return loss

    @torch.no_grad()
    def teacher_relations(self, features: dict[str, Tensor], labels: Any) -> Tensor | None:
        """Return the mean of the teachers' cosines, shape (B, B - 1), or ``None`` where there is no teacher yet."""
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.bf16):
            if self.generation and self.past is not None:
                embeddings = [self.past(dict(features))["sentence_embedding"]]
            else:
                texts = self.texts[labels.tolist()]["text"] if self.teachers and self.texts is not None else []
                embeddings = [self._read(teacher, texts) for teacher in self.teachers]
        return torch.stack([relations(each) for each in embeddings]).mean(dim=0) if embeddings else None

    def _read(self, teacher: SentenceTransformer, texts: list[str]) -> Tensor:
        """Embed text as ``teacher.encode`` does, through its own tokenizer and prompt, without leaving its device."""
        limits = [limit for limit in (teacher.max_seq_length, self.teacher_max_length) if limit]
        words = {"max_length": min(limits)} if limits else {}
        embeddings: Tensor = teacher(tokens_of(teacher, texts, **words))["sentence_embedding"]
        return embeddings[:, : teacher.truncate_dim].to(self.model.device)

    def observe(self, score: float) -> None:
        """Tell what the student scores now; a score above all before it keeps the weights, for ``best_dev``."""
        if score > self.best_score:
            self.best_score.fill_(score)
            if self.best is not None:
                self.best.load_state_dict(self.model.state_dict())

    def switch(self) -> None:
        """Make the student as it is, or the best so far, the teacher of a new generation."""
        if self.past is None:
            raise ValueError("there is no copy of the student to switch to; make the loss with keep")
        source = self.model if self.best is None else self.best
        self.past.load_state_dict(source.state_dict())
        self.generation += 1

    def train(self, mode: bool = True) -> "DistillCSELoss":
        """Put the student in a mode; a teacher is never in training."""
        super().train(mode)
        for model in (self.past, self.best):
            if isinstance(model, nn.Module):
                model.eval()
        return self

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        names = ("weight", "student_temperature", "teacher_temperature", "group_p", "teacher_max_length")
        keep = None if self.past is None else "last" if self.best is None else "best_dev"
        own = {name: getattr(self, name) for name in names}
        return {**super().get_config_dict(), **own, "teachers": len(self.teachers), "keep": keep}

    @property
    def citation(self) -> str:
        """Return the papers, as BibTeX."""
        return PAPER.bibtex
