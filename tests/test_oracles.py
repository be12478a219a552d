"""Every loss against :mod:`oracles`, whose author had the papers and not the code: values and gradients in float64."""

import math

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from torch import nn

from benchmarks.glue.models import kd_loss, task_loss
from distilface.methods import simcse
from distilface.methods.codir.banks import MemoryBanks
from distilface.methods.codir.loss import CoDIRLoss
from distilface.methods.codir.summary import Summary
from distilface.methods.multistage import losses as multistage
from distilface.methods.online import relations as relation

pytestmark = pytest.mark.usefixtures("one_thread")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def assert_same(ours, theirs, at: np.ndarray) -> None:
    """Compare the value and the gradient of our function (of a tensor) and of the oracle (of an array) in one place."""
    given = torch.tensor(at, requires_grad=True)
    value = ours(given)
    value.backward()
    assert value.item() == pytest.approx(theirs(at), rel=1e-9)
    expected = oracles.gradient(theirs, at)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(given.grad.numpy(), expected, atol=1e-6)


class Given(nn.Module):
    """A student whose embeddings are what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.1)

    def get_embedding_dimension(self) -> int:
        return 6

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["given"]}


@pytest.mark.parametrize("first", [True, False])
def test_simcse(first):
    views, loss = numbers(2, 5, 6), simcse.SimCSELoss(Given())

    def both(moved, other):
        return (moved, other) if first else (other, moved)

    fixed = torch.tensor(views[1])
    assert_same(
        lambda x: loss([{"given": view} for view in both(x, fixed)], None),
        lambda x: oracles.simcse(*both(x, views[1]), 0.05),
        views[0],
    )


@pytest.mark.parametrize("count", [1, 3])
def test_the_relations_of_one_teacher_and_of_several(count):
    student, teachers = numbers(6, 5), [numbers(6, 4 + k, seed=k + 1) for k in range(count)]
    theirs = torch.stack([relation.relations(torch.tensor(teacher)) for teacher in teachers]).mean(0)
    assert_same(
        lambda x: relation.relation_loss(relation.relations(x), theirs, 0.2, 0.1),
        lambda x: oracles.relation_loss(x, teachers, 0.2, 0.1),
        student,
    )


@pytest.mark.parametrize("p", [0.1, 0.15, 0.3, 0.7, 1.0])
def test_group_p(p):
    """The groups are the oracle's, and what is shuffled is inside them."""
    cosines = np.clip(numbers(20, 31) / 3, -1, 1)
    ranked, order = torch.tensor(cosines).sort(dim=-1, descending=True)
    found = relation.group_numbers(ranked, p)
    shuffled = relation.shuffle_in_groups(torch.tensor(cosines), p, np.random.default_rng(0)).numpy()
    for row, numbered, places, after in zip(cosines, found, order, shuffled, strict=True):
        expected = oracles.groups(row, p)
        assert [places[numbered == k].tolist() for k in numbered.unique()] == expected
        for group in expected:
            assert sorted(row[group]) == sorted(after[group])


def codir(objective: str) -> tuple[CoDIRLoss, dict[str, np.ndarray]]:
    """Make the contrast of five of nine examples with four negatives each, one of which does not count."""
    banks = MemoryBanks(9, 7).double()
    rows = unit(numbers(2, 9, 7, seed=3))
    banks.rows.copy_(torch.tensor(rows))
    banks.owners.copy_(torch.arange(9))
    loss = CoDIRLoss(Summary([0], 7, 7), Summary([0], 7, 7), banks, 4, objective, 0.3)
    places, negative = np.random.default_rng(4).integers(9, size=(5, 4)), np.ones((5, 4), bool)
    negative[2, 1] = False
    banks.draw = lambda *_: (torch.tensor(places), torch.tensor(negative))
    for side in (loss.student, loss.teacher):
        nn.init.eye_(side.linear.weight)
        nn.init.zeros_(side.linear.bias)
    known = {"student_bank": rows[0], "teacher_bank": rows[1], "places": places, "negative": negative}
    return loss.double(), {**known, "temperature": 0.3}


def read(loss: CoDIRLoss, student: np.ndarray, teacher: np.ndarray) -> float:
    """Give summaries to the contrast as if each were one token's state."""
    mask = torch.ones(5, 1)
    states = [torch.tensor(side)[:, None] for side in (student, teacher)]
    return loss([states[0]], mask, [states[1]], mask, torch.arange(5)).item()


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_codir_and_its_z(objective):
    """A second batch has the first one's Z."""
    loss, known = codir(objective)
    batches = [unit(numbers(2, 5, 7, seed=seed)) for seed in (5, 6)]
    z = oracles.first_z(*batches[0], **known, n=9)
    for student, teacher in batches:
        rows = {name: known[name].copy() for name in ("student_bank", "teacher_bank")}
        more = {"n": 9, "z_student": z[0], "z_teacher": z[1]} if objective == "nce" else {}
        expected = getattr(oracles, objective)(student, teacher, **{**known, **rows}, **more)
        assert read(loss, student, teacher) == pytest.approx(expected, rel=1e-9)
        for example in range(5):
            for name, new in (("student_bank", student), ("teacher_bank", teacher)):
                known[name][example] = oracles.bank_update(known[name][example], new[example], 0.5)
        np.testing.assert_allclose(loss.banks.rows[0].numpy(), known["student_bank"], atol=1e-12)
        np.testing.assert_allclose(loss.banks.rows[1].numpy(), known["teacher_bank"], atol=1e-12)
    if objective == "nce":
        np.testing.assert_allclose(loss.log_z.exp().numpy(), z, rtol=1e-9)


def test_a_summary():
    states, mask, made = numbers(3, 4, 5, 6), np.ones((4, 5)), Summary([2, 0], 6, 7).double()
    mask[1, 2:] = 0
    weight, bias = (tensor.detach().numpy() for tensor in (made.linear.weight, made.linear.bias))
    direction = numbers(4, 7, seed=8)
    assert_same(
        lambda x: (made(x, torch.tensor(mask)) * torch.tensor(direction)).sum(),
        lambda x: float((oracles.summary(x, mask, [2, 0], weight, bias) * direction).sum()),
        states,
    )


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_kd_beside_the_cross_entropy(beta):
    student, teacher, labels = numbers(5, 3), numbers(5, 3, seed=1), np.array([0, 2, 1, 1, 0])

    def ours(x):
        cross = task_loss(x, torch.tensor(labels))
        return (1 - beta) * cross + beta * kd_loss(x, torch.tensor(teacher), 2.0)

    assert_same(ours, lambda x: oracles.kd(x, teacher, labels, beta, 2.0), student)


@pytest.mark.parametrize("stage", ["match", "contrastive"])
@pytest.mark.parametrize("side", [0, 1])
def test_the_stages_across_languages(stage, side):
    sides, wanted = numbers(2, 4, 6), numbers(2, 4, 6, seed=1)
    kept = [Dataset.from_dict({"label": rows.tolist()}).with_format("torch", dtype=torch.float64) for rows in wanted]
    if stage == "match":
        loss = multistage.MatchLoss(Given(), *kept)
    else:
        loss = multistage.MultilingualContrastiveLoss(Given(), kept[0], weight=3.0)

    def placed(moved, other):
        return (moved, other) if side == 0 else (other, moved)

    def expected(x):
        given = placed(x, sides[1 - side])
        match = oracles.match(*given, *wanted)
        return match if stage == "match" else oracles.multilingual_contrastive(*given, wanted[0], 3.0)

    fixed = torch.tensor(sides[1 - side])
    rows = torch.arange(4)
    assert_same(lambda x: loss([{"given": view} for view in placed(x, fixed)], rows), expected, sides[side])


def test_the_oracles_know_values_worked_by_hand():
    """Orthogonal vectors at temperature 1: each row of SimCSE is log(1 + 1/e); equal cosines share their mass."""
    axes = np.eye(2)
    assert oracles.simcse(axes, axes, 1.0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert oracles.groups(np.zeros(10), 0.5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert oracles.bank_update(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.5) == pytest.approx([0.5**0.5] * 2)
    assert oracles.match(axes, axes, axes, 0 * axes) == pytest.approx(0.5)
