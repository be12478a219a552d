"""SimCSE and the distillation of embeddings: what each must do to a model, and where its layers start."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from students import Emitter, features, mean_cosines, numbers, same, state
from tiny import sentences, tiny_backbone, tiny_model
from torch import nn

from distilface.compression.student import load_student
from distilface.methods import embedding, simcse
from distilface.model.pooling import is_normalized
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def train(loss: nn.Module, batch: Callable[[int], tuple], steps: int, rate: float) -> None:
    torch.manual_seed(0)
    loss.train()
    optimizer = torch.optim.AdamW(loss.parameters(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(*batch(step)).backward()
        optimizer.step()
    loss.eval()


@pytest.fixture
def student(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "student")


@pytest.fixture
def teacher(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "teacher", seed=7).requires_grad_(False).eval()


def test_simcse_views_differ_by_dropout_alone(student, monkeypatch):
    """Silent if broken: two equal views give a smooth loss curve and teach nothing."""
    seen = []
    monkeypatch.setattr(simcse.SimCSELoss, "compute_loss_from_embeddings", lambda self, e, labels: seen.extend(e))
    loss = simcse.SimCSELoss(student)
    rows = simcse.prepare(Dataset.from_dict({"text": sentences(6)}))
    assert rows.column_names == ["sentence1", "sentence2"]
    assert rows["sentence1"][:] == rows["sentence2"][:] == sentences(6)
    columns = [features(student, rows[name][:]) for name in rows.column_names]
    loss.train()
    loss([dict(column) for column in columns], None)
    assert (seen[0] - seen[1]).abs().max(1).values.min() > 1e-3, "every sentence has two views"
    loss.eval()
    loss([dict(column) for column in columns], None)
    torch.testing.assert_close(seen[2], seen[3])


def test_simcse_refuses_a_student_without_dropout(tmp_path):
    backbone = str(tiny_backbone(tmp_path / "backbone"))
    with pytest.raises(InputError, match=r"no dropout.*--dropout 0\.1"):
        simcse.SimCSELoss(load_student(backbone, dropout=0.0))
    simcse.SimCSELoss(load_student(backbone))


def test_simcse_spreads_the_embeddings(student):
    texts, unseen = sentences(32), sentences(64, seed=1)
    before = mean_cosines(student.encode(unseen)).mean()
    loss = simcse.SimCSELoss(student)
    tokens = features(student, texts)
    train(loss, lambda step: ([dict(tokens), dict(tokens)], None), steps=25, rate=1e-3)
    assert mean_cosines(student.encode(unseen)).mean() < before - 0.2


@pytest.mark.parametrize(
    ("rows", "teacher_width", "width", "rank"),
    [(40, 12, 5, 12), (40, 12, 5, 4), (4, 12, 8, 12), (40, 6, 8, 6)],
    ids=["narrower", "of low rank", "fewer rows than dimensions", "wider"],
)
def test_projection_starts_at_the_principal_components(rows, teacher_width, width, rank):
    target = numbers(rows, rank, seed=1) @ numbers(rank, teacher_width, seed=2) + 3
    mean, components, left_out = oracles.principal_components(target, width)
    loss = embedding.EmbeddingLoss(Emitter(width), "mse", target).double()
    weight = loss.projection.weight.detach().numpy()
    np.testing.assert_allclose(loss.projection.bias.detach().numpy(), mean, atol=1e-5)
    count = np.linalg.matrix_rank(target - mean, tol=1e-6)
    for i in range(min(count, width)):
        np.testing.assert_allclose(
            abs(components[i] @ weight[:, i]), 1, atol=1e-5, err_msg=f"component {i}, up to sign"
        )

    emitted = (target - mean) @ weight
    value = loss([{"given": torch.from_numpy(emitted)}], torch.from_numpy(target))
    value.backward()
    assert value.item() == pytest.approx(left_out, rel=1e-4, abs=1e-8)
    assert left_out < 1e-20 or rank > width
    for name, parameter in loss.named_parameters():
        assert parameter.grad.abs().max() < 1e-4, f"{name} is at its optimum"


def test_make_loss_reads_a_sample_of_the_labels(student, monkeypatch):
    labels = numbers(30, 40, seed=1) + 2
    dataset = Dataset.from_dict({"text": sentences(30), "label": labels.tolist()})
    plain = embedding.make_loss(student, dataset)
    assert plain.get_config_dict() == {"distance_metric": "mse", "projection_dim": None}
    assert plain.projection is None
    loss = embedding.make_loss(student, dataset.with_format("torch"), "l2", projection=True)
    assert loss.projection.weight.shape == (40, 32)
    np.testing.assert_allclose(loss.projection.bias.detach(), labels.mean(0), atol=1e-5)
    monkeypatch.setattr(embedding.loss, "PCA_ROWS", 2)
    loss = embedding.make_loss(student, dataset, projection=True)
    np.testing.assert_allclose(loss.projection.bias.detach(), labels[[0, -1]].mean(0), atol=1e-5)


def test_widths_that_differ_need_a_projection(student):
    wider = Emitter(48)
    embedding.check_widths(student, student, projection=False)
    embedding.check_widths(student, wider, projection=True)
    with pytest.raises(InputError, match=r"48 dimensions and the student's 32; add --projection true"):
        embedding.check_widths(student, wider, projection=False)


def test_is_normalized(student):
    assert not is_normalized(student)
    assert is_normalized(SentenceTransformer(modules=[*student.children(), Normalize()], device="cpu"))


@pytest.mark.parametrize("metric", ["mse", "cosine", "l2"])
def test_distillation_brings_the_student_to_its_teacher(student, teacher, tmp_path, metric):
    texts, unseen = sentences(64), sentences(64, seed=1)

    def closeness():
        return 1 - oracles.distance("cosine", student.encode(unseen), teacher.encode(unseen))

    before = closeness()
    untouched = state(teacher)
    rows = embedding.prepare(Dataset.from_dict({"text": texts}), teacher, tmp_path / "cache")
    assert rows.column_names == ["text", "label"]
    labels = rows["label"][:]
    assert labels.dtype == torch.float32, "read as tensors: lists of Python floats cost a part of every step"
    assert isinstance(rows[0]["text"], str)
    assert nn.functional.cosine_similarity(labels, torch.tensor(teacher.encode(texts))).min() > 0.999

    batches = [(features(student, texts[i : i + 16]), labels[i : i + 16]) for i in range(0, 64, 16)]

    def batch(step):
        tokens, target = batches[step % 4]
        return [dict(tokens)], target

    train(embedding.make_loss(student, rows, metric), batch, steps=40, rate=3e-3)
    assert before < 0.3
    assert closeness() > before + 0.5
    assert same(state(teacher), untouched)
