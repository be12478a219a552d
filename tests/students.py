"""Students and numbers for the tests of the losses."""

import numpy as np
import torch
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


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    """Draw standard normal numbers."""
    return np.random.default_rng(seed).normal(size=shape)


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale each row to length 1."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def features(model: SentenceTransformer, texts: list[str], padding: int = 0) -> dict[str, torch.Tensor]:
    """Tokenise, with columns of padding beyond what the longest text needs."""
    return {
        name: nn.functional.pad(value, (0, padding)) if isinstance(value, torch.Tensor) else value
        for name, value in model.preprocess(texts).items()
    }
