"""The protocol of everything that embeds text, and the part that all exported files share."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from distilface.model import identity
from distilface.model.folder import load
from distilface.runtimes.extras import Extra
from distilface.runtimes.files import digest, megabytes, pieces, precision_of
from distilface.settings import InputError

#: The inputs of an exported file.
INPUTS = ("input_ids", "attention_mask")
#: A batch of :data:`INPUTS` by their names, each int64 of shape (B, T).
Batch = dict[str, np.ndarray]


class Encoder(ABC):
    """A model on a runtime: it embeds text.

    Attributes:
        name: ``torch``, or the exported file, as ``onnx/model_int8.onnx``.
        precision: in which its matrix products are computed, as ``fp32``, ``bf16`` or ``int8``.
        model: of which it has the tokenizer, the prompts and the similarity; for an exported file, its folder's.
    """

    name: str
    precision: str
    model: SentenceTransformer

    @property
    def dimension(self) -> int:
        """The width of an embedding."""
        return self.model.get_embedding_dimension() or 0

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Sha256, in hex, of everything that decides the embeddings; where it was loaded from does not count."""

    @property
    @abstractmethod
    def megabytes(self) -> float:
        """Size of the weights, in 10^6 bytes."""

    @abstractmethod
    def encode(self, texts: Sequence[str], batch_size: int = 32, prompt: str = "") -> np.ndarray:
        """Embed texts, each with the prompt before it: float32 of shape (n, dimension), in the order given."""


def token_ids(model: SentenceTransformer, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
    """Return the tokens of each text, with the prompt before it, cut to the most that the model reads."""
    prompted = [prompt + text for text in texts]
    if not prompted:  # which a tokenizer refuses
        return []
    return list(model.tokenizer(prompted, truncation=True, max_length=model.max_seq_length)["input_ids"])


def padded(model: SentenceTransformer, rows: Sequence[list[int]]) -> Batch:
    """Return rows of tokens as one batch, padded to its longest row."""
    batch = model.tokenizer.pad({"input_ids": list(rows)}, padding=True, return_tensors="np")
    return {name: batch[name].astype(np.int64) for name in INPUTS}


class FileEncoder(Encoder):
    """An exported file on its runtime: each runtime runs batches in its own way.

    Args:
        file: that :func:`distilface.exporters.exporting.export` wrote.
        source: the model folder of the file, or the model of that folder where it is loaded already.
        threads: of the computation; ``None`` takes torch's number.

    Raises:
        InputError: without the packages of the runtime, or if the file or the folder is not there.
    """

    #: The packages of the runtime.
    extra: ClassVar[Extra]

    def __init__(self, file: str | Path, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        self.extra.check()
        self.file = Path(file)
        for piece in pieces(self.file):
            if not piece.is_file():
                raise InputError(f"{piece} does not exist; make it first: distilface export FOLDER")
        self.name = "/".join(self.file.parts[-2:])
        self.precision = precision_of(self.file)
        self.model = source if isinstance(source, SentenceTransformer) else load(source)
        self.threads = threads or torch.get_num_threads()

    @abstractmethod
    def run(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""

    @abstractmethod
    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""

    @property
    def megabytes(self) -> float:
        """Size of the file on disk, in 10^6 bytes."""
        return megabytes(self.file)

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of the file and of its folder's model, which has the tokenizer and the prompts."""
        return hashlib.sha256(f"{identity.fingerprint(self.model)} {digest(self.file)}".encode()).hexdigest()

    def encode(self, texts: Sequence[str], batch_size: int = 32, prompt: str = "") -> np.ndarray:
        """Embed texts, each with the prompt before it: float32 of shape (n, dimension), in the order given.

        A batch holds texts of similar length, so that little of it is padding.
        """
        ids = token_ids(self.model, texts, prompt)
        order = np.argsort([len(row) for row in ids], kind="stable")
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        embeddings = np.empty((len(ids), self.dimension), np.float32)
        outputs = self.run(padded(self.model, [ids[row] for row in rows]) for rows in batches)
        for rows, output in zip(batches, outputs, strict=True):
            embeddings[rows] = output
        return embeddings
