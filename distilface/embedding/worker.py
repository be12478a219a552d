"""A model folder over chunks of text: the work of one process, local or of a cluster."""

import unicodedata
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from distilface.data.text_file import is_empty
from distilface.light.files import AUTO
from distilface.light.ways import Way
from distilface.model.folder import load
from distilface.model.prompts import default_prompt
from distilface.model.static import length_limit
from distilface.runtimes.base import Encoder
from distilface.runtimes.opening import open_file
from distilface.runtimes.torch import TorchEncoder

#: What torch computes in; the other variants are exported files (:func:`distilface.runtimes.opening.choose`).
PRECISIONS = ("fp32", "bf16")
VARIANTS = (*PRECISIONS, AUTO, "int8", "onnx", "q4", "openvino", "openvino-int8")
#: Texts that are tokenised at a time where only their tokens are counted.
COUNTED = 64

#: The number of a chunk, and its texts.
Job = tuple[int, list[str]]


class Done(NamedTuple):
    """A chunk that was embedded.

    Attributes:
        number: of the chunk.
        texts: of its rows.
        embeddings: shape (len(texts), width), float32.
        truncated: how many of the texts were cut.
    """

    number: int
    texts: list[str]
    embeddings: np.ndarray
    truncated: int


@dataclass(frozen=True)
class Variant:
    """What computes the embeddings of a chunk, as it is sent to another process.

    Attributes:
        folder: the model folder.
        name: of :data:`VARIANTS`.
        export: the exported file and how it is run, or ``None`` for torch.
        batch_size: texts in one forward pass, of similar lengths.
        threads: of one process.
        device: of torch.
    """

    folder: str
    name: str
    export: Way | None
    batch_size: int
    threads: int
    device: str


class Worker:
    """One variant of a model folder, over chunks; the threads of torch are set for the whole process.

    Args:
        variant: what computes.
        model: the folder's, on the variant's device, where it is loaded already.
    """

    def __init__(self, variant: Variant, model: SentenceTransformer | None = None) -> None:
        torch.set_num_threads(variant.threads)
        self.variant = variant
        self.model = load(variant.folder, variant.device) if model is None else model
        self.prompt = default_prompt(self.model) or ""
        self.encoder: Encoder = (
            open_file(variant.export, self.model, variant.threads)
            if variant.export
            else TorchEncoder(self.model, variant.name)
        )

    def encode(self, number: int, texts: list[str]) -> Done:
        """Embed one chunk; an empty text gets zeros."""
        rows = [row for row, text in enumerate(texts) if not is_empty(text)]
        full = [texts[row] for row in rows]
        embeddings = np.zeros((len(texts), self.encoder.dimension), np.float32)
        if full:
            embeddings[rows] = self.encoder.encode(full, self.variant.batch_size, self.prompt)
        return Done(number, texts, embeddings, self._truncated(full))

    def _truncated(self, texts: list[str]) -> int:
        """Count the texts that have more tokens than the model reads; those that are short enough are not tokenised."""
        tokenizer: Any = self.model.tokenizer
        limit = length_limit(self.model)
        if limit is None:
            return 0
        most = limit - tokenizer.num_special_tokens_to_add() - 1  # a tokenizer may put one mark before a text
        long = [text for text in (self.prompt + text for text in texts) if _most_tokens(text) > most]
        count = 0
        for start in range(0, len(long), COUNTED):
            tokens = tokenizer(long[start : start + COUNTED], verbose=False)["input_ids"]
            count += sum(len(ids) > limit for ids in tokens)
        return count


def _most_tokens(text: str) -> int:
    """Return the most tokens that a text can have: its bytes, with every letter decomposed."""
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode())


def in_process(variant: Variant, model: SentenceTransformer, jobs: Iterator[Job]) -> Generator[Done, None, None]:
    """Embed chunks one after the other; torch's number of threads is restored at the end."""
    threads = torch.get_num_threads()
    try:
        worker = Worker(variant, model)
        for number, texts in jobs:
            yield worker.encode(number, texts)
    finally:
        torch.set_num_threads(threads)
