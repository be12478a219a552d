"""Every loss against :mod:`oracles`, whose author had the papers and not the code: values and gradients in float64."""

import math

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from students import Emitter, numbers

from benchmarks.glue.models import kd_loss, task_loss
from distilface.methods.codir.summary import Summary
from distilface.methods.multistage import losses as multistage
from distilface.methods.online import relations as relation

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same(ours, theirs, at: np.ndarray) -> None:
    """Compare the value and the gradient of our function (of a tensor) and of the oracle (of an array) in one place."""
    given = torch.tensor(at, requires_grad=True)
    value = ours(given)
    value.backward()
    assert value.item() == pytest.approx(theirs(at), rel=1e-9)
    expected = oracles.gradient(theirs, at)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(given.grad.numpy(), expected, atol=1e-6)


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
        loss = multistage.MatchLoss(Emitter(6), *kept)
    else:
        loss = multistage.MultilingualContrastiveLoss(Emitter(6), kept[0], weight=3.0)

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
