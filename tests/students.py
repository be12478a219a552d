"""Students, teachers and numbers for the tests of the losses, and how a loss is held against its oracle."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn


class Emitter(nn.Module):
    """A student whose embeddings are what it is given, in any precision."""

    device = torch.device("cpu")

    def __init__(self, width: int = 5) -> None:
        super().__init__()
        self.width, self.dropout = width, nn.Dropout(0.1)

    def get_embedding_dimension(self) -> int:
        return self.width

    def forward(self, features: dict[str, torch.Tensor], **kwargs: object) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["given"]}


class Reader(Emitter):
    """A teacher that knows the embedding of each of its texts ("0", "1", ...)."""

    max_seq_length = default_prompt_name = truncate_dim = None
    prompts: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.vectors = torch.from_numpy(vectors)

    def preprocess(self, texts: list[str], prompt: str | None = None) -> dict[str, torch.Tensor]:
        return {"given": self.vectors[[int(text) for text in texts]]}


def as_features(views: Sequence[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Give an :class:`Emitter` the embeddings of each column."""
    return [{"given": view} for view in views]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def assert_same(ours: Callable[[torch.Tensor], Any], theirs: Callable[[np.ndarray], float], at: np.ndarray) -> None:
    """Compare the value and the gradient of our function (of a tensor) and of the oracle (of an array) in one place."""
    place = torch.tensor(at, requires_grad=True)
    value = ours(place)
    value.backward()
    assert value.item() == pytest.approx(theirs(at), rel=1e-9)
    expected = oracles.gradient(theirs, at)
    assert np.abs(expected).max() > 1e-6
    np.testing.assert_allclose(place.grad, expected, atol=1e-6)


def mean_cosines(*teachers: np.ndarray) -> np.ndarray:
    """Average the teachers' cosines of each sentence with the others."""
    return np.mean([oracles.off_diagonal_cosines(teacher.astype(float)) for teacher in teachers], axis=0)


def labels(rows: np.ndarray) -> Dataset:
    """Keep a teacher's embeddings as :func:`distilface.methods.embedding.prepare` does, in float64."""
    return Dataset.from_dict({"label": rows.tolist()}).with_format("torch", dtype=torch.float64)


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy all the numbers of a model."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Return whether two states are equal to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def features(model: SentenceTransformer, texts: list[str], padding: int = 0) -> dict[str, torch.Tensor]:
    """Tokenise, with columns of padding beyond what the longest text needs."""
    return pad(model.preprocess(texts), padding)


def pad(inputs: dict[str, Any], columns: int) -> dict[str, Any]:
    """Add columns of padding to what a tokenizer gave."""
    return {
        name: nn.functional.pad(value, (0, columns)) if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }
