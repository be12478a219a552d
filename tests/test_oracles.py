"""The losses against :mod:`oracles`, whose author had the papers and not the code: values and gradients in float64."""

import math

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from students import Emitter, Reader, as_features, assert_same, labels, mean_cosines, numbers

from benchmarks.glue.models import kd_loss, task_loss
from distilface.methods import embedding, simcse
from distilface.methods import relations as relation
from distilface.methods.multistage.losses import MatchLoss, MultilingualContrastiveLoss
from distilface.methods.online.loss import DistillCSELoss

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_simcse(temperature, head):
    loss, views = simcse.SimCSELoss(Emitter(5), scale=1 / temperature, mlp_head=head).double(), numbers(2, 4, 5)

    def expected(x):
        if head:
            weight, bias = (p.detach().numpy() for p in loss.head[0].parameters())
            x = np.tanh(x @ weight.T + bias)
        return oracles.simcse(*x, temperature)

    assert_same(lambda x: loss(as_features(x), None), expected, views)
    assert expected(views) != pytest.approx(expected(views[::-1]), rel=1e-6), "one direction only"


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("metric", ["mse", "cosine", "l2"])
def test_embedding(metric, projected):
    at, target = numbers(4, 5, seed=1), numbers(4, 7 if projected else 5, seed=2)
    loss = embedding.EmbeddingLoss(Emitter(5), metric, numbers(20, 7, seed=3) if projected else None).double()
    weight, bias = (p.detach().numpy() for p in loss.parameters()) if projected else (np.eye(5), np.zeros(5))

    def expected(x, weight=weight):
        return oracles.distance(metric, x @ weight.T + bias, target)

    fixed = torch.tensor(target, requires_grad=True)
    assert_same(lambda x: loss(as_features([x]), fixed), expected, at)
    assert fixed.grad is None, "the teacher's embeddings are fixed"
    if projected:
        by_weight = oracles.gradient(lambda w: expected(at, w), weight)
        np.testing.assert_allclose(loss.projection.weight.grad, by_weight, atol=1e-6)


@pytest.mark.parametrize("projected", [False, True])
def test_embedding_with_relations(projected):
    """The student's own vectors are related, not their projection; the teacher's are fixed."""
    at, target = numbers(5, 5, seed=1), numbers(5, 7 if projected else 5, seed=2)
    sample = numbers(20, 7, seed=3) if projected else None
    loss = embedding.EmbeddingLoss(Emitter(5), "cosine", sample, relation_weight=0.7, relation_temperature=0.3)
    weight, bias = (p.double().detach().numpy() for p in loss.parameters()) if projected else (np.eye(5), np.zeros(5))
    cosines = oracles.off_diagonal_cosines(target)

    def expected(x):
        related = [oracles.relation_loss(x, cosines, 0.3, 0.3)]
        if not projected:
            related.append(oracles.index_loss(x, target, 0.3))
        return oracles.distance("cosine", x @ weight.T + bias, target) + 0.7 * np.mean(related)

    assert_same(lambda x: loss.double()(as_features([x]), torch.tensor(target)), expected, at)


def test_embedding_with_relations_to_a_bank():
    """It holds the last six of the teacher's vectors before the batch, without the one that is of a text of it."""
    earlier, target, at = numbers(8, 5, seed=4), numbers(5, 5, seed=2), numbers(5, 5, seed=1)
    loss = embedding.EmbeddingLoss(Emitter(5), "cosine", relation_weight=0.7, relation_temperature=0.3, relation_bank=6)
    loss = loss.double()
    earlier[6] = target[3] * 2  # the same direction
    for batch in (earlier[:3], earlier[3:]):
        loss(as_features([torch.tensor(numbers(len(batch), 5, seed=9))]), torch.tensor(batch))
    left = np.delete(earlier[2:], 4, axis=0)
    cosines = oracles.off_diagonal_cosines(target)

    def expected(x):
        related = [oracles.relation_loss(x, cosines, 0.3, 0.3), oracles.index_loss(x, target, 0.3, left)]
        return oracles.distance("cosine", x, target) + 0.7 * np.mean(related)

    loss.eval()  # what is measured is not kept
    assert_same(lambda x: loss(as_features([x]), torch.tensor(target)), expected, at)
    assert expected(at) != pytest.approx(oracles.distance("cosine", at, target), rel=0.1)
    assert (int(loss.seen), loss.state_dict()["bank"].shape) == (8, (6, 5))
    loss.train()
    loss(as_features([torch.tensor(numbers(7, 5))]), torch.tensor(numbers(7, 5, seed=5)))
    last = oracles.unit(numbers(7, 5, seed=5))[1:]  # of a batch that is larger than it
    np.testing.assert_allclose(sorted(loss.bank.tolist()), sorted(last.tolist()), atol=1e-6)


def test_relations_to_an_index_of_another_precision():
    vectors, index = numbers(6, 8, seed=1), numbers(6, 8, seed=2)
    found = relation.relations(torch.tensor(vectors), torch.tensor(index, dtype=torch.float32))
    whole = oracles.unit(vectors) @ oracles.unit(index).T
    np.testing.assert_allclose(found, [np.delete(row, i) for i, row in enumerate(whole)], atol=1e-6)


def test_relations_under_autocast():
    """They are multiplied in fp32 where the training computes in bf16, whose cosines are off by up to 4e-3."""
    vectors = numbers(40, 384)
    with torch.autocast("cpu", torch.bfloat16):
        found = relation.relations(torch.tensor(vectors, dtype=torch.float32))
    np.testing.assert_allclose(found, oracles.off_diagonal_cosines(vectors), atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_distillcse(count, weight):
    """Several teachers are averaged as cosines; a batch comes in another order than the texts stand in."""
    teachers, rows = [numbers(9, 4 + seed, seed=seed) for seed in range(count)], [7, 0, 3, 2, 8]
    target = mean_cosines(*(teacher[rows] for teacher in teachers))
    texts = Dataset.from_dict({"text": [str(i) for i in range(9)]})
    options = {"student_temperature": 0.3, "teacher_temperature": 0.2, "weight": weight, "group_p": 0.0}
    loss = DistillCSELoss(Emitter(), [Reader(teacher) for teacher in teachers], texts, **options).double()
    assert_same(
        lambda x: loss(as_features(x), torch.tensor(rows)),
        lambda x: oracles.simcse(*x, 0.05) + weight * oracles.relation_loss(x[0], target, 0.3, 0.2),
        numbers(2, 5, 5, seed=8),
    )


@pytest.mark.parametrize("p", [0.1, 0.15, 0.3, 0.7, 1.0])
def test_group_p(p):
    """The groups are the oracle's, and what is shuffled is inside them."""
    cosines = np.clip(numbers(20, 31) / 3, -1, 1)
    ranked, order = torch.tensor(cosines).sort(dim=-1, descending=True)
    groups = relation.group_numbers(ranked, p)
    shuffled = relation.shuffle_in_groups(torch.tensor(cosines), p, np.random.default_rng(0)).numpy()
    for row, numbered, places, after in zip(cosines, groups, order, shuffled, strict=True):
        expected = oracles.groups(row, p)
        assert [places[numbered == k].tolist() for k in numbered.unique()] == expected
        for group in expected:
            assert sorted(row[group]) == sorted(after[group])


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_kd_beside_the_cross_entropy(beta):
    student, teacher, classes = numbers(5, 3), numbers(5, 3, seed=1), np.array([0, 2, 1, 1, 0])

    def ours(x):
        cross = task_loss(x, torch.tensor(classes))
        return (1 - beta) * cross + beta * kd_loss(x, torch.tensor(teacher), 2.0)

    assert_same(ours, lambda x: oracles.kd(x, teacher, classes, beta, 2.0), student)


cosines_match = oracles.multilingual_contrastive
STAGES = {
    "assistant": (MatchLoss, 1, 1.0, lambda s, x, t, a: oracles.match(s, x, t, t)),
    "recurrent": (MatchLoss, 2, 1.0, oracles.match),
    "recurrent, weighted": (MatchLoss, 2, 3.0, lambda s, x, t, a: 3 * oracles.match(s, x, t, a)),
    "contrastive": (MultilingualContrastiveLoss, 1, 1.0, lambda s, x, t, a: cosines_match(s, x, t)),
    "contrastive, weighted": (MultilingualContrastiveLoss, 1, 7.0, lambda s, x, t, a: cosines_match(s, x, t, 7.0)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_the_stages_across_languages(stage):
    """The batch comes in another order than the targets stand in, and no checkpoint holds them."""
    kind, sides, weight, oracle = STAGES[stage]
    rows, targets = [3, 0, 4], numbers(2, 5, 6)
    loss = kind(Emitter(6), *map(labels, targets[:sides]), weight=weight)
    assert_same(
        lambda x: loss(as_features(x), torch.tensor(rows)),
        lambda x: oracle(*x, *targets[:, rows]),
        numbers(2, 3, 6, seed=1),
    )
    assert not loss.state_dict()
    assert loss.get_config_dict() == {"weight": weight}


def test_the_oracles_know_values_worked_by_hand():
    """Orthogonal vectors at temperature 1: each row of SimCSE is log(1 + 1/e); equal cosines share their mass."""
    axes = np.eye(2)
    assert oracles.simcse(axes, axes, 1.0) == pytest.approx(math.log(1 + math.exp(-1)))
    assert oracles.groups(np.zeros(10), 0.5) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert oracles.bank_update(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.5) == pytest.approx([0.5**0.5] * 2)
    assert oracles.match(axes, axes, axes, 0 * axes) == pytest.approx(0.5)
