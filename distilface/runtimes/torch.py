"""A model in torch, as sentence-transformers computes it."""

import copy
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from distilface.model.dimensions import needs_length
from distilface.model.folder import load
from distilface.model.identity import fingerprint
from distilface.runtimes.base import Encoder


def _in_fp32(model: SentenceTransformer) -> SentenceTransformer:
    """Return a model as it is, or a copy of it if a weight is not in fp32."""
    weights = (weight for weight in model.parameters() if weight.is_floating_point())
    return model if all(weight.dtype == torch.float32 for weight in weights) else copy.deepcopy(model).float()


class TorchEncoder(Encoder):
    """A model in torch.

    Args:
        source: a model folder, or a model that is loaded, with its own device; weights that are not in fp32, as a
            library may have loaded them, are copied into it.
        precision: ``fp32``, or ``bf16`` for autocast.
        device: that a folder is loaded onto.

    Raises:
        InputError: if ``source`` is not a whole model folder.
    """

    name = "torch"

    def __init__(self, source: str | Path | SentenceTransformer, precision: str = "fp32", device: str = "cpu") -> None:
        self.model = _in_fp32(source) if isinstance(source, SentenceTransformer) else load(source, device)
        self.precision = precision

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of everything that decides the embeddings; in fp32 that of the model itself."""
        model = fingerprint(self.model)
        return model if self.precision == "fp32" else hashlib.sha256(f"{model} {self.precision}".encode()).hexdigest()

    @property
    def megabytes(self) -> float:
        """Size of the weights in fp32, in 10^6 bytes."""
        return round(sum(weight.numel() for weight in self.model.parameters()) * 4 / 1e6, 2)

    def autocast(self) -> torch.autocast:
        """Return the context in which the model computes in this precision."""
        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def encode(self, texts: Sequence[str], batch_size: int = 32, prompt: str = "") -> np.ndarray:
        """Embed texts, each with the prompt before it: float32 of shape (n, dimension), in the order given."""
        with self.autocast():
            embeddings = self.model.encode(
                list(texts),
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=False,
                normalize_embeddings=needs_length(self.model),
            )
        return np.asarray(embeddings, np.float32).reshape(len(texts), self.dimension)
