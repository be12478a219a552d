"""The losses of the four stages against plain float64 numpy, and what never gets a gradient."""

import copy

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn

from distilface.compression.recurrent import recurrent_student
from distilface.methods.multistage import losses as multistage
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


def kept(rows: np.ndarray) -> Dataset:
    return Dataset.from_dict({"label": rows.tolist()}).with_format("torch", dtype=torch.float64)


def columns(labels: list[int]) -> list[dict[str, torch.Tensor]]:
    """Give the two columns of a batch: row i of a :class:`Table` is English, row ROWS + i the other side."""
    ids = [torch.tensor(labels), ROWS + torch.tensor(labels)]
    return [{"input_ids": i[:, None], "attention_mask": torch.ones(len(labels), 1)} for i in ids]


def mse(first: np.ndarray, second: np.ndarray) -> float:
    total = 0.0
    for a, b in zip(first.ravel(), second.ravel(), strict=True):
        total += (a - b) ** 2
    return total / first.size


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.array([[a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for b in second] for a in first])


def slope(loss, at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Differentiate by central differences."""
    found = np.zeros_like(at)
    for place in np.ndindex(*at.shape):
        moved = [at.copy(), at.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (loss(moved[0]) - loss(moved[1])) / (2 * step)
    return found


STAGES = {
    "assistant": lambda s, x, t, a: mse(s, t) + mse(x, t),
    "recurrent": lambda s, x, t, a: mse(s, t) + mse(x, a),
    "contrastive": lambda s, x, t, a: mse(cosines(t, t), cosines(s, x)) + mse(s, t) + mse(x, t),
    "weighted": lambda s, x, t, a: mse(cosines(t, t), cosines(s, x)) + 7 * (mse(s, t) + mse(x, t)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_each_loss_is_the_equation(stage):
    """The batch comes in another order than the targets stand in."""
    draw, labels = np.random.default_rng(0), [3, 0, 4]
    rows = draw.normal(size=(2 * ROWS, WIDTH))
    english, other = draw.normal(size=(2, ROWS, WIDTH))
    model, t, a = Table(rows), kept(english), kept(other)
    loss = {
        "assistant": lambda: multistage.MatchLoss(model, t, t),
        "recurrent": lambda: multistage.MatchLoss(model, t, a),
        "contrastive": lambda: multistage.MultilingualContrastiveLoss(model, t),
        "weighted": lambda: multistage.MultilingualContrastiveLoss(model, t, weight=7.0),
    }[stage]()

    def plain(at: np.ndarray) -> float:
        return STAGES[stage](at[labels], at[ROWS:][labels], english[labels], other[labels])

    value = loss(columns(labels), torch.tensor(labels))
    value.backward()
    assert value.item() == pytest.approx(plain(rows), abs=1e-12)
    np.testing.assert_allclose(model.rows.grad.numpy(), slope(plain, rows), atol=1e-8)
    assert not set(loss.state_dict()) - {"model.rows"}
    assert loss.get_config_dict() == {"weight": 7.0 if stage == "weighted" else 1.0}
    assert "Multi-stage Distillation" in loss.citation


@pytest.mark.parametrize("weight", [None, 1.0, 0.0])
def test_it_teaches_a_student_to_find_translations(weight):
    """Both sides say nothing at first; the embeddings (``None``), the cosines (0), or both are all there is to learn.

    A student that learned the English side alone would find its translations no better than before.
    """
    draw, labels = np.random.default_rng(1), list(range(ROWS))
    model, teacher = Table(draw.normal(size=(2 * ROWS, WIDTH))), kept(draw.normal(size=(ROWS, WIDTH)))
    match, contrastive = multistage.MatchLoss, multistage.MultilingualContrastiveLoss
    loss = match(model, teacher, teacher) if weight is None else contrastive(model, teacher, weight)

    def found() -> float:
        rows = model.rows.detach().numpy()
        return float((cosines(rows[ROWS:], rows[:ROWS]).argmax(1) == np.arange(ROWS)).mean())

    before, optimizer = found(), torch.optim.Adam([model.rows], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(columns(labels), torch.tensor(labels)).backward()
        optimizer.step()
    wanted = teacher["label"][:].numpy()
    assert before < 0.5
    assert found() == 1.0
    rows = model.rows.detach().numpy()
    np.testing.assert_allclose(cosines(rows[:ROWS], rows[ROWS:]), cosines(wanted, wanted), atol=0.01)


@pytest.fixture
def pair(materials, tmp_path) -> tuple[SentenceTransformer, SentenceTransformer]:
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
    found = []
    for place, token in enumerate(ids):
        x = w["embeddings.word_embeddings.weight"][token] + w["embeddings.position_embeddings.weight"][place]
        if "embeddings.token_type_embeddings.weight" in w:
            x = x + w["embeddings.token_type_embeddings.weight"][0]
        x = (x - x.mean()) / np.sqrt(x.var() + 1e-12)
        x = x * w["embeddings.LayerNorm.weight"] + w["embeddings.LayerNorm.bias"]
        if "encoder.embedding_hidden_mapping_in.weight" in w:
            x = w["encoder.embedding_hidden_mapping_in.weight"] @ x + w["encoder.embedding_hidden_mapping_in.bias"]
        found.append(x)
    return np.mean(found, axis=0)


def test_the_bottleneck_loss_is_the_equation_and_pads_do_not_count(pair):
    assistant, student = pair
    texts = [["a dog runs in the park", "a cat"], ["the small bird sings", "a big tree near the old river road"]]
    features = [dict(student.preprocess(side)) for side in texts]
    value = multistage.BottleneckLoss(student, assistant)(features, torch.zeros(2))
    plain = 0.0
    for side in texts:
        ids = [student.tokenizer(text)["input_ids"] for text in side]
        both = [np.array([embedded(model[0].model, row) for row in ids]) for model in (student, assistant)]
        plain += mse(*both)
    assert value.item() == pytest.approx(plain, rel=1e-5)


def test_the_bottleneck_stage_moves_the_embedding_layer_alone(pair):
    assistant, student = pair
    loss = multistage.BottleneckLoss(student, assistant)
    loss.train()
    assert not assistant.training
    loss([dict(student.preprocess(["a dog runs"])) for _ in range(2)], torch.zeros(1)).backward()
    moved = {name for name, weight in student[0].model.named_parameters() if weight.grad is not None}
    assert moved == {
        *(f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")),
        *(
            f"{name}.{part}"
            for name in ("embeddings.LayerNorm", "encoder.embedding_hidden_mapping_in")
            for part in ("weight", "bias")
        ),
    }
    assert all(weight.grad is None for weight in assistant.parameters())
    assert len(list(loss.parameters())) == len(list(student.parameters()))
    assert not set(loss.state_dict()) - {f"model.{name}" for name in student.state_dict()}


def test_the_gradient_of_the_bottleneck_is_the_slope(pair):
    assistant, student = copy.deepcopy(pair)
    assistant, student = assistant.double(), student.double()
    weight = student[0].model.encoder.embedding_hidden_mapping_in.weight
    features = [dict(student.preprocess([text])) for text in ("a dog runs", "the cat sleeps on the tree")]
    loss = multistage.BottleneckLoss(student, assistant)
    wanted = [embedded(assistant[0].model, f["input_ids"][0].tolist()) for f in features]

    def plain(at: np.ndarray) -> float:
        with torch.no_grad():
            weight.copy_(torch.from_numpy(at))
        found = [embedded(student[0].model, f["input_ids"][0].tolist()) for f in features]
        return sum(mse(a, b) for a, b in zip(found, wanted, strict=True))

    at = weight.detach().numpy().copy()
    expected = slope(plain, at, 1e-5)
    plain(at)
    loss(features, torch.zeros(1)).backward()
    np.testing.assert_allclose(weight.grad.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_the_targets_are_the_teachers_embeddings_of_one_side(materials, tmp_path):
    teacher = load_teacher(str(materials.teacher), device="cpu")
    pairs = Dataset.from_dict(
        {"english": ["a dog", "the cat"], "other": ["a bird", "the fish"], "language": ["de"] * 2}
    )
    numbered = multistage.prepare(pairs)
    assert numbered.to_list()[1] == {"english": "the cat", "other": "the fish", "label": 1}
    for side in ("english", "other"):
        found = multistage.targets(pairs, teacher, side, tmp_path)
        assert found.column_names == ["label"]
        assert found[[0, 1]]["label"].dtype == torch.float32
        np.testing.assert_allclose(found[[0, 1]]["label"], teacher.encode(pairs[side][:]), atol=0.02)


def test_widths_that_differ(materials):
    teacher = load_teacher(str(materials.teacher), device="cpu")
    with pytest.raises(InputError, match="have 48 dimensions and the assistant's 32"):
        multistage.check_width(32, teacher)
