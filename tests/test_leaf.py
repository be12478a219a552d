"""LEAF: its equation, the cycles of its learning rate, and the map that stays in the published model."""

import numpy as np
import pytest
import torch
from runs import each_step, train
from sentence_transformers.base.modules import Dense, Normalize

from distilface.methods.leaf import LeafLoss, rate_at
from distilface.model.folder import load
from distilface.settings import InputError
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def test_the_loss_is_the_squared_distance():
    """Eq. 1 of the paper in numpy: the mean over the batch of ||s - t||^2, its gradient 2 (s - t) / B."""
    random = np.random.default_rng(0)
    student, target = random.normal(size=(2, 4, 6))
    embeddings = torch.tensor(student, requires_grad=True)
    loss = LeafLoss(torch.nn.Identity(), distance_metric="mse")
    value = loss.compute_loss_from_embeddings([embeddings], [torch.tensor(target)])
    value.backward()
    assert value.item() == pytest.approx(((student - target) ** 2).sum(1).mean())
    np.testing.assert_allclose(embeddings.grad, 2 * (student - target) / 4)


def test_the_rate_falls_in_cycles(materials, tmp_path, monkeypatch):
    """Upstream's own schedules end in one fall; a scheduler that it replaced would be silent."""
    rates = []
    trainers = []
    real = WholeCheckpoints.__init__

    def noted(self, *args, **kwargs):
        real(self, *args, **kwargs)
        trainers.append(self)

    monkeypatch.setattr(WholeCheckpoints, "__init__", noted)
    with each_step(lambda step, _: rates.append(trainers[0].optimizer.param_groups[0]["lr"])):
        train("leaf", materials.words("leaf", tmp_path / "m", "--cycles", "2", "--last_rate", "0.2"))
    expected = np.tile(np.linspace(1e-3, 2e-4, 6)[:5], 2)
    np.testing.assert_allclose(rates, expected, rtol=1e-6)
    assert rate_at(0, 10, 3, 0.1) == 1


def test_the_map_to_the_teacher_is_published(materials, tmp_path):
    """The student shares its teacher's space, in the folder as it is reloaded: one can query the other's index."""
    run = train(
        "leaf",
        materials.words("leaf", tmp_path / "m", "--steps", "100", "--eval_steps", "100", "--learning_rate", "3e-3"),
    )
    student, teacher = load(tmp_path / "m"), load_teacher(str(materials.teacher))
    assert [type(module) for module in student][-2:] == [Dense, Normalize]
    assert run["method"] == "leaf"
    assert run["teacher"] == str(materials.teacher)
    texts = materials.text.read_text().splitlines()
    cosines = (student.encode(texts) * teacher.encode(texts)).sum(1)
    others = student.encode(texts) @ teacher.encode(texts).T
    assert cosines.shape == (28,)
    assert cosines.mean() > 0.9
    assert cosines.mean() > others[~np.eye(28, dtype=bool)].mean()


@pytest.mark.parametrize(("option", "value"), [("cycles", "0"), ("last_rate", "1.5")])
def test_cycles_that_cannot_be_are_refused(materials, tmp_path, option, value):
    with pytest.raises(InputError, match=f"--{option} {value} is out of range"):
        train("leaf", materials.words("leaf", tmp_path / "m", f"--{option}", value))
