"""The protocol of everything that embeds text, and the part that all exported files share."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Tokenizer

from distilface.extras import Extra
from distilface.light.dimensions import first_numbers
from distilface.light.expanding import VERSION
from distilface.light.openvino import OpenVinoSession
from distilface.light.session import OnnxSession
from distilface.light.tokens import pad_rows
from distilface.light.ways import Way
from distilface.light.words import Words, ids_of, knows_words
from distilface.model import identity
from distilface.model.dimensions import needs_length
from distilface.model.folder import load
from distilface.model.static import is_static, length_limit, token_rows
from distilface.runtimes.files import file_fingerprint, megabytes, pieces, precision_of
from distilface.settings import InputError

#: The inputs of an exported file.
INPUTS = ("input_ids", "attention_mask")
#: A batch of :data:`INPUTS` by their names, each int64 of shape (B, T).
Batch = dict[str, np.ndarray]


class Encoder(ABC):
    """A model on a runtime: it embeds text.

    Attributes:
        name: ``torch``, or the exported file, as ``onnx/model_int8.onnx``, with how it is run where not as usual.
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


#: Text that words must cut as the model does, once and many times over, or they are not asked.
_PROBE = "The dog's 2 bones: run-in, $5 (a_b)?"


def token_ids(
    model: SentenceTransformer, texts: Sequence[str], prompt: str = "", words: Words | None = None
) -> list[list[int]]:
    """Return the tokens of each text, with the prompt before it, as the model's own ``encode`` makes and cuts them.

    Args:
        model: whose tokenizer it is.
        texts: any number.
        prompt: stands before each.
        words: what :func:`words_of` gives for the model, which is faster.
    """
    unpadded: Any = {"text": {"padding": False}, "common": {"return_tensors": None}}

    def library(rows: list[str]) -> list[list[int]]:
        """Ask the model itself; a static one would give the tokens of all texts in one row."""
        if is_static(model):
            return token_rows(model, rows)
        return list(model.preprocess(rows, processing_kwargs=unpadded)["input_ids"])

    return ids_of([prompt + text for text in texts], words, length_limit(model), library)


def words_of(model: SentenceTransformer) -> Words | None:
    """Return what knows the tokens of a model by the words of a text; ``None`` if its tokenizer must be asked."""
    tokenizer: Any = model.tokenizer
    static = is_static(model)
    backend = tokenizer if static else getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer) or not knows_words(backend):
        return None
    if not static and tokenizer.truncation_side != "right":
        return None
    words = Words(backend, special=not static)
    probes = [_PROBE, _PROBE * 200]
    return words if token_ids(model, probes, words=words) == token_ids(model, probes) else None


def pools_without_prompt(model: SentenceTransformer) -> bool:
    """Return whether a model leaves the tokens of a prompt out of its pooling (Instructor's way)."""
    return any(isinstance(module, Pooling) and not module.include_prompt for module in model)


def file_refusal(model: SentenceTransformer) -> str | None:
    """Return why no exported file can give the vectors of a model, or ``None``."""
    prompts = [name for name, prompt in model.prompts.items() if prompt]
    if prompts and pools_without_prompt(model):
        return (
            f"its pooling leaves out the tokens of its prompts ({', '.join(prompts)}), of which an exported file "
            "cannot know the length; use the model in torch, or train it with include_prompt true"
        )
    return None


def padded(model: SentenceTransformer, rows: Sequence[list[int]]) -> Batch:
    """Return rows of tokens as one batch, padded to its longest row."""
    if is_static(model):
        return pad_rows(rows)
    batch = model.tokenizer.pad({"input_ids": list(rows)}, padding=True, return_tensors="np")
    return {name: batch[name].astype(np.int64) for name in INPUTS}


class FileEncoder(Encoder):
    """An exported file on its runtime: each runtime runs batches in its own way.

    Args:
        way: to run a file that :func:`distilface.exporters.exporting.export` wrote.
        source: the model folder of the file, or the model of that folder where it is loaded already.
        threads: of the computation; ``None`` takes torch's number.

    Raises:
        InputError: without the packages of the runtime, if the file or the folder is not there, if an ONNX file is
            damaged or another exporter's, or if a file cannot give the vectors of the folder (:func:`file_refusal`).
    """

    #: The packages of the runtime.
    extra: ClassVar[Extra]
    #: What runs batches, and says into how many some texts are at least cut.
    session: OnnxSession | OpenVinoSession

    def __init__(self, way: Way, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        self.extra.check()
        self.way, self.file = way, way.file
        for piece in pieces(self.file):
            if not piece.is_file():
                raise InputError(f"{piece} does not exist; make it first: distilface export FOLDER")
        self.name = " ".join(("/".join(self.file.parts[-2:]), way.words)).strip()
        rounds = "bf16" if way.openvino == "bf16" else "int8" if way.rewritten not in (None, "fp32") else None
        self.precision = rounds or precision_of(self.file)
        self.model = source if isinstance(source, SentenceTransformer) else load(source)
        if reason := file_refusal(self.model):
            raise InputError(f"{self.file} does not give the vectors of its folder: {reason}")
        self.threads = 1 if way.one_thread else threads or torch.get_num_threads()
        self._words = words_of(self.model)

    def run(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        return list(self.session.run(batches))

    @abstractmethod
    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""

    @property
    def megabytes(self) -> float:
        """Size of the file on disk, in 10^6 bytes."""
        return megabytes(self.file)

    @property
    def fingerprint(self) -> str:
        """Of the file, how it is run, and its folder's model: :func:`distilface.runtimes.files.file_fingerprint`."""
        words = f"{self.way.words} {VERSION}" if self.way.rewritten else self.way.words
        return file_fingerprint(identity.fingerprint(self.model), self.file, words)

    def encode(self, texts: Sequence[str], batch_size: int = 32, prompt: str = "") -> np.ndarray:
        """Embed texts, each with the prompt before it: float32 of shape (n, dimension), in the order given.

        A batch holds texts of similar length, so that little of it is padding.

        Raises:
            InputError: on a prompt, if the model's pooling leaves out its tokens.
        """
        if prompt and pools_without_prompt(self.model):
            raise InputError(
                f"{self.name} cannot take the prompt {prompt!r}: the model's pooling leaves out its tokens, of which "
                "an exported file does not know the number; use the model in torch"
            )
        ids = token_ids(self.model, texts, prompt, self._words)
        order = np.argsort([len(row) for row in ids], kind="stable")
        # Not those of the light encoder: dynamic int8 gives a text another vector in another batch.
        size = min(batch_size, -(-len(ids) // self.session.parts) or 1)
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        embeddings, unit = np.empty((len(ids), self.dimension), np.float32), needs_length(self.model)
        outputs = self.run(padded(self.model, [ids[row] for row in rows]) for rows in batches)
        for rows, output in zip(batches, outputs, strict=True):
            # A file may be older than the folder's truncate_dim: it then gives all the numbers.
            embeddings[rows] = first_numbers(output, self.dimension, unit)
        return embeddings
