"""How the sentences of a batch relate, passed from teachers to a student (DistillCSE, arXiv 2310.13499)."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from distilface.methods.task import Paper

#: Of two sentences each has one other: there is no relation to learn.
LEAST_BATCH = 3
#: Why several processes cannot train what compares the sentences of a batch.
ALONE = "it compares the sentences of a batch, and each would see its own part alone"
PAPER = Paper(
    name="the relations that a teacher sees within a batch (DistillCSE)",
    summary="how the sentences of a batch relate meets what the teacher sees",
    links={"distillcse": "https://arxiv.org/abs/2310.13499"},
    bibtex="""
@inproceedings{xu2023distillcse,
    title = {{DistillCSE}: Distilled Contrastive Learning for Sentence Embeddings},
    author = {Xu, Jiahao and Shao, Wei and Chen, Lihui and Liu, Lemao},
    booktitle = {Findings of the Association for Computational Linguistics: EMNLP},
    year = {2023}
}
""",
)


def relations(embeddings: Tensor, index: Tensor | None = None) -> Tensor:
    """Return the cosine of each sentence with every other one of its batch.

    Args:
        embeddings: shape (B, width), in any precision; fp32 or more is used from here on.
        index: what another encoder made of the same sentences, shape (B, width), in which the others are looked up;
            default their embeddings themselves.

    Returns:
        Shape (B, B - 1): row i has no place for sentence i itself, the others stand in their order.
    """
    count = len(embeddings)
    others = ~torch.eye(count, dtype=torch.bool, device=embeddings.device)
    own = unit(embeddings)
    rows = own if index is None else unit(index).to(own)
    return products(own, rows)[others].view(count, max(count - 1, 0))


def products(rows: Tensor, others: Tensor) -> Tensor:
    """Return the product of each of some vectors with each of others, in their own precision."""
    with torch.autocast(rows.device.type, enabled=False):  # which would multiply in bf16
        return rows @ others.T


def unit(embeddings: Tensor) -> Tensor:
    """Return vectors in unit length, in fp32 or more."""
    return nn.functional.normalize(embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), dim=-1)


def group_numbers(ranked: Tensor, p: float) -> Tensor:
    """Number the Group-P group of each rank, from 0.

    The cosines of one anchor, highest first, go through a softmax without a temperature; its cumulative sum is cut at
    every multiple of ``p``. What lies on a cut belongs to the group after it, and what rounding carries beyond the
    last cut to the last group, as in the published code.

    Args:
        ranked: cosines, shape (B, n), each row in descending order.
        p: the share of a group, above 0.

    Returns:
        Shape (B, n), never falling along a row.
    """
    mass = ranked.double().softmax(dim=-1).cumsum(dim=-1)
    return (mass / p).floor().clamp(max=math.ceil(1 / p) - 1)


def shuffle_in_groups(cosines: Tensor, p: float, draw: np.random.Generator) -> Tensor:
    """Shuffle each row inside its Group-P groups, every row anew.

    Cosines are near to each other, so a group holds about a share ``p`` of the row: a row of fewer than 1 / ``p``
    stays as it is.

    Args:
        cosines: a teacher's, shape (B, n); they are not changed.
        p: the share of a group; 0 changes nothing.
        draw: where the order comes from: on the CPU, so that every device shuffles alike.
    """
    if p == 0:
        return cosines
    ranked, order = cosines.sort(dim=-1, descending=True, stable=True)
    noise = torch.from_numpy(draw.random(tuple(cosines.shape))).to(cosines.device)
    drawn = (group_numbers(ranked, p) + noise).argsort(dim=-1)
    return torch.empty_like(cosines).scatter_(-1, order, ranked.gather(-1, drawn))


def relation_loss(student: Tensor, teacher: Tensor, student_temperature: float, teacher_temperature: float) -> Tensor:
    """Return the mean over anchors i of the cross-entropy CE(q_i || p_i) of teacher and student.

    q_i = softmax(teacher_i / its temperature) and p_i = softmax(student_i / its temperature), over the other sentences
    of the batch: 0 for a batch of one or two, where there is nothing to choose.

    Args:
        student: its cosines, from :func:`relations`.
        teacher: as many, on the same device.
        student_temperature: above 0.
        teacher_temperature: above 0.
    """
    target = (teacher / teacher_temperature).softmax(dim=-1)
    return -(target * (student / student_temperature).log_softmax(dim=-1)).sum(dim=-1).mean()
