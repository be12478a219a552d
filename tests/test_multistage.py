"""The losses and the scores of the four stages against equations in float64, and what never gets a gradient."""

import json
from functools import partial

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sklearn.metrics.pairwise import cosine_similarity
from students import labels
from torch import nn

from distilface.compression.recurrent import recurrent_student
from distilface.methods.multistage.evaluators import BottleneckEvaluator, CrossLingualEvaluator
from distilface.methods.multistage.losses import BottleneckLoss, MatchLoss, MultilingualContrastiveLoss
from distilface.settings import InputError
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
ROWS, WIDTH = 5, 6


class Table(nn.Module):
    """A student whose embeddings are the rows of a parameter."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.from_numpy(rows))

    def forward(self, features):
        return {"sentence_embedding": self.rows[features["input_ids"][:, 0]]}


def columns(rows: list[int]) -> list[dict[str, torch.Tensor]]:
    """Give the two columns of a batch: row i of a :class:`Table` is English, row ROWS + i the other side."""
    ids = [torch.tensor(rows), ROWS + torch.tensor(rows)]
    return [{"input_ids": i[:, None], "attention_mask": torch.ones(len(rows), 1)} for i in ids]


@pytest.mark.parametrize(
    "kind",
    [MatchLoss, MultilingualContrastiveLoss, partial(MultilingualContrastiveLoss, weight=0.0)],
    ids=["embeddings", "both", "cosines"],
)
def test_it_teaches_a_student_to_find_translations(kind):
    """Both sides say nothing at first; the embeddings, the cosines, or both are all there is to learn.

    A student that learned the English side alone would find its translations no better than before.
    """
    draw, rows = np.random.default_rng(1), list(range(ROWS))
    model, teacher = Table(draw.normal(size=(2 * ROWS, WIDTH))), draw.normal(size=(ROWS, WIDTH))
    loss = kind(model, labels(teacher))

    def cosines() -> np.ndarray:
        return cosine_similarity(*model.rows.detach().numpy().reshape(2, ROWS, WIDTH))

    def accuracy() -> float:
        return float((cosines().argmax(0) == np.arange(ROWS)).mean())

    before, optimizer = accuracy(), torch.optim.Adam([model.rows], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(columns(rows), torch.tensor(rows)).backward()
        optimizer.step()
    assert before < 0.5
    assert accuracy() == 1.0
    np.testing.assert_allclose(cosines(), cosine_similarity(teacher), atol=0.01)


@pytest.fixture
def pair(materials) -> tuple[SentenceTransformer, SentenceTransformer]:
    """Make an assistant, and its recurrent student with an embedding layer that is off."""
    assistant = load_teacher(str(materials.teacher), device="cpu")
    student = recurrent_student(assistant, 2, 2, 8)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        student[0].model.embeddings.word_embeddings.weight.normal_()
    return assistant, student


def embedded(encoder, ids: list[int]) -> np.ndarray:
    """Compute an embedding layer's output, mean over tokens, in float64."""
    w = {name: tensor.double().numpy() for name, tensor in encoder.state_dict().items() if "mbedding" in name}
    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    if "embeddings.token_type_embeddings.weight" in w:
        x = x + w["embeddings.token_type_embeddings.weight"][0]
    x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-12)
    x = x * w["embeddings.LayerNorm.weight"] + w["embeddings.LayerNorm.bias"]
    if "encoder.embedding_hidden_mapping_in.weight" in w:
        x = x @ w["encoder.embedding_hidden_mapping_in.weight"].T + w["encoder.embedding_hidden_mapping_in.bias"]
    return x.mean(0)


def test_the_bottleneck_loss_is_the_equation(pair):
    """Its gradient is the slope, and pads, of which the batches have some, do not count."""
    assistant, student = (model.double() for model in pair)
    sides = [["a dog runs in the park", "a cat"], ["the small bird sings", "a big tree near the old river road"]]
    features = [dict(student.preprocess(side)) for side in sides]
    ids = [[student.tokenizer(text)["input_ids"] for text in side] for side in sides]
    targets = [np.array([embedded(assistant[0].model, row) for row in side]) for side in ids]
    weight = student[0].model.encoder.embedding_hidden_mapping_in.weight

    def plain(at: np.ndarray) -> float:
        with torch.no_grad():
            weight.copy_(torch.from_numpy(at))
        return oracles.match(*[np.array([embedded(student[0].model, row) for row in side]) for side in ids], *targets)

    at = weight.detach().numpy().copy()
    slope, expected = oracles.gradient(plain, at, 1e-5), plain(at)
    loss = BottleneckLoss(student, assistant)
    value = loss(features, torch.zeros(2))
    value.backward()
    assert value.item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(weight.grad.numpy(), slope, rtol=1e-4, atol=1e-6)
    assert loss.get_config_dict() == {}


def test_the_bottleneck_stage_moves_the_embedding_layer_alone(pair):
    assistant, student = pair
    loss = BottleneckLoss(student, assistant)
    loss.train()
    assert not assistant.training
    loss([dict(student.preprocess(["a dog runs"])) for _ in range(2)], torch.zeros(1)).backward()
    moved = {name for name, weight in student[0].model.named_parameters() if weight.grad is not None}
    maps = ("embeddings.LayerNorm", "encoder.embedding_hidden_mapping_in")
    assert moved == {
        *(f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
        *(f"{name}.{part}" for name in maps for part in ("weight", "bias")),
    }
    assert all(weight.grad is None for weight in assistant.parameters())
    assert len(list(loss.parameters())) == len(list(student.parameters()))
    assert not set(loss.state_dict()) - {f"model.{name}" for name in student.state_dict()}


@pytest.fixture
def held_out() -> Dataset:
    rows = [("a dog", "a dog"), ("the cat sleeps", "the cat sleeps"), ("a red fish", "a blue river"), ("a bird", "x y")]
    english, other = zip(*rows, strict=True)
    return Dataset.from_dict({"english": english, "other": other, "language": ["de", "de", "de", "fr"]})


def test_the_cross_lingual_score(materials, held_out):
    """Spearman and the share of sentences whose English side is the nearest, against plain numpy."""
    model = load_teacher(str(materials.teacher), device="cpu")
    dev = Dataset.from_list([json.loads(line) for line in materials.pairs.read_text().splitlines()])
    scores = CrossLingualEvaluator(dev, held_out)(model)
    english, other = (model.encode(held_out[side][:3]) for side in ("english", "other"))
    accuracy = 100 * np.mean((other @ english.T).argmax(1) == np.arange(3))
    assert scores["accuracy"] == scores["accuracy_de"] == pytest.approx(accuracy)
    assert 0 < scores["accuracy"] <= 100
    assert scores["cross_lingual"] == pytest.approx((scores["spearman"] + scores["accuracy"]) / 2)
    assert "accuracy_fr" not in scores
    with pytest.raises(InputError, match="no language has two held-out pairs"):
        CrossLingualEvaluator(dev, held_out.select([0, 3]))


def test_the_bottleneck_score(pair, held_out):
    """100 for the assistant itself; for a student the share of the variance, against plain numpy."""
    assistant, student = pair
    dev = Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]})
    evaluator = BottleneckEvaluator(dev, held_out, assistant, batch_size=3)
    assert evaluator(assistant) == {"explained": pytest.approx(100)}
    ids = [student.tokenizer(text)["input_ids"] for text in [*held_out["english"], *held_out["other"]]]
    ours, theirs = (np.array([embedded(model[0].model, row) for row in ids]) for model in (student, assistant))
    expected = 1 - ((ours - theirs) ** 2).sum() / ((theirs - theirs.mean(0)) ** 2).sum()
    assert evaluator(student.train())["explained"] == pytest.approx(100 * expected, abs=1e-3)
    assert student.training
