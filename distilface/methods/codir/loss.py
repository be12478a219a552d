"""Contrastive distillation on intermediate representations (CoDIR, arXiv 2009.14167): the loss itself.

It asks for hidden states and knows no data: :mod:`distilface.methods.codir.text` uses it on unlabelled sentences,
``benchmarks/run_glue.py`` on labelled tasks.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from distilface.methods.base import Paper
from distilface.methods.codir.banks import MemoryBanks
from distilface.methods.codir.summary import Summary
from distilface.settings import InputError, check_known

Objective = Literal["nce", "infonce"]
Positive = Literal["current", "bank"]
PAPER = Paper(
    name="contrastive distillation on intermediate representations (CoDIR)",
    summary="from its layers the student tells which of many texts its teacher's layers have read",
    links={"codir": "https://arxiv.org/abs/2009.14167"},
    bibtex="""
@inproceedings{sun2020codir,
    title = {Contrastive Distillation on Intermediate Representations for Language Model Compression},
    author = {Sun, Siqi and Gan, Zhe and Fang, Yuwei and Cheng, Yu and Wang, Shuohang and Liu, Jingjing},
    booktitle = {Empirical Methods in Natural Language Processing (EMNLP)},
    year = {2020}
}
@inproceedings{tian2020crd,
    title = {Contrastive Representation Distillation},
    author = {Tian, Yonglong and Krishnan, Dilip and Isola, Phillip},
    booktitle = {International Conference on Learning Representations (ICLR)},
    year = {2020}
}
""",
    limits=("It imitates its teacher, and can be expected to share the teacher's errors and biases.",),
)


class CoDIRLoss(nn.Module):
    """A student's summary of an input finds the teacher's summary of it among those of other inputs, and back.

    With f(a, b) = exp(a . b / t), a student's summary is the anchor against the teacher's memory bank and a teacher's
    against the student's; the loss is the mean over both and over the batch. Anchors have gradients and bank rows are
    constants. For an anchor a, its positive p and K negatives n_k:

    - ``nce``, as published (with CRD's constants, arXiv 1910.10699): with P(x) = f(a, x) / Z and Pn = 1 / n,

        -[ log P(p) / (P(p) + K Pn) + sum_k log K Pn / (P(n_k) + K Pn) ]

      where Z = n * mean f over the first batch, positives and negatives, one Z a side, fixed from then on;
    - ``infonce``: -log( f(a, p) / (f(a, p) + sum_k f(a, n_k)) ).

    The published positive is the bank's row of the example, which before its second visit says nothing; so ``current``,
    the other side's summary in this batch, is the default here.

    Args:
        student: the map from the student's hidden states.
        teacher: the map from the teacher's. It is trained; the teacher itself is not.
        banks: as many examples as the data have, or a queue.
        negatives: K.
        objective: ``nce`` or ``infonce``.
        temperature: t.
        positive: ``current`` or ``bank``.

    Raises:
        InputError: on an unknown word, or ``bank`` with a queue: it has no row of the example.
    """

    log_z: Tensor

    def __init__(
        self,
        student: Summary,
        teacher: Summary,
        banks: MemoryBanks,
        negatives: int = 100,
        objective: Objective = "nce",
        temperature: float = 0.07,
        positive: Positive = "current",
    ) -> None:
        super().__init__()
        check_known([objective], get_args(Objective), "objective")
        check_known([positive], get_args(Positive), "positive")
        if positive == "bank" and banks.queue:
            raise InputError("a queue holds no row of the example itself; use --positive current, or no --queue")
        self.student, self.teacher, self.banks = student, teacher, banks
        self.negatives, self.objective, self.temperature = negatives, objective, temperature
        self.positive = positive
        self.register_buffer("log_z", torch.full((2,), math.nan))

    def forward(
        self,
        student_states: Sequence[Tensor] | Mapping[int, Tensor],
        student_mask: Tensor,
        teacher_states: Sequence[Tensor] | Mapping[int, Tensor],
        teacher_mask: Tensor,
        index: Tensor,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of one batch; in training mode the banks then take it in.

        Args:
            student_states: the student's hidden states, the embeddings first, each of shape (B, T, width).
            student_mask: 1 for a real token, shape (B, T).
            teacher_states: the teacher's; its tokens may be others.
            teacher_mask: 1 for a real token.
            index: the examples' own numbers, shape (B).
            labels: shape (B); negatives then come from other classes. ``None``: from any other example.
        """
        student = self.student(student_states, student_mask)
        summaries = torch.stack([student, self.teacher(teacher_states, teacher_mask)])
        fixed = summaries.detach()
        if self.training:
            self.banks.enter(index, fixed, labels)
        places, negative = self.banks.draw(index, self.negatives, labels)
        keys = fixed if self.positive == "current" else self.banks.rows[:, index]
        logits = self._logits(summaries, keys.flip(0), self.banks.rows[:, places].flip(0))
        loss = self._nce(logits, negative) if self.objective == "nce" else _infonce(logits, negative)
        if self.training:
            self.banks.update(index, fixed)
        return loss

    def _logits(self, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return a . b / t, shape (2, B, 1 + K), of the positive first."""
        with torch.autocast(anchors.device.type, enabled=False):
            alike = (anchors * positives).sum(-1, keepdim=True)
            different = torch.einsum("sbd,sbkd->sbk", anchors, negatives.to(anchors.dtype))
            return torch.cat([alike, different], dim=-1) / self.temperature

    def _nce(self, logits: Tensor, negative: Tensor) -> Tensor:
        """Return the mean NCE: log P / (P + K Pn) is the log-sigmoid of log f - log Z - log K Pn."""
        if self.training and self.log_z.isnan().any():
            self.log_z.copy_(_log_mean_exp(logits.detach(), negative) + math.log(len(self.banks)))
        odds = logits - (self.log_z + math.log(self.negatives / len(self.banks)))[:, None, None]
        others = logsigmoid(-odds[..., 1:]).masked_fill(~negative, 0.0).sum(-1)
        return -(logsigmoid(odds[..., 0]) + others).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        return {
            "objective": self.objective,
            "negatives": self.negatives,
            "temperature": self.temperature,
            "positive": self.positive,
            "momentum": self.banks.momentum,
            "queue": len(self.banks) if self.banks.queue else None,
            "summary_pooling": self.student.pooling,
            "student_layers": self.student.layers,
            "teacher_layers": self.teacher.layers,
        }

    @property
    def citation(self) -> str:
        """Return the papers, as BibTeX."""
        return PAPER.bibtex


def _with_negatives(logits: Tensor, negative: Tensor) -> Tensor:
    """Leave out of the sum over 1 + K what is not a negative."""
    return torch.cat([logits[..., :1], logits[..., 1:].masked_fill(~negative, -math.inf)], dim=-1)


def _infonce(logits: Tensor, negative: Tensor) -> Tensor:
    return (_with_negatives(logits, negative).logsumexp(-1) - logits[..., 0]).mean()


def _log_mean_exp(logits: Tensor, negative: Tensor) -> Tensor:
    """Return log mean exp of each side, shape (2), over the positives and the negatives of a batch."""
    count = negative.numel() / negative.shape[1] + negative.sum()
    return _with_negatives(logits, negative).flatten(1).logsumexp(1) - count.to(logits.dtype).log()
