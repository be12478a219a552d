"""A model folder over chunks of text: what each process does with one, whoever gives it the chunks."""

import platform
import unicodedata
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from distilface.data.text_file import is_empty
from distilface.exporters.exporting import read_record
from distilface.exporters.formats import FORMATS
from distilface.model.folder import Folder, load
from distilface.model.prompts import default_prompt
from distilface.runtimes.encoders import OnnxEncoder
from distilface.settings import InputError

VARIANTS = ("fp32", "bf16", "int8")
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
        export: the ONNX file that int8 runs, or ``None``.
        batch_size: texts in one forward pass, of similar lengths.
        threads: of one process.
        device: of torch.
    """

    folder: str
    name: str
    export: str | None
    batch_size: int
    threads: int
    device: str


def int8_formats() -> list[str]:
    """Return the int8 formats that are made for this processor, the one that it runs best first.

    Weights from -128 are for VNNI and ARM: without VNNI, x86 adds their products in 16 bits, which can overflow.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ["arm64"]
    return ["vnni", "avx2"] if torch.cpu._is_vnni_supported() else ["avx2"]


def int8_export(folder: Folder) -> str:
    """Return the path of the int8 export that this processor runs best.

    Raises:
        InputError: if the folder has none that was made of its weights.
    """
    names = int8_formats()
    record = read_record(folder).get("files", {})
    for file in (FORMATS[name].file for name in [*names, "quantized"]):
        if file in record and not record[file]["refused"] and (folder.path / file).is_file():
            return str(folder.path / file)
    raise InputError(
        f"{folder.path} has no int8 export of its weights for this processor; "
        f"make it first: distilface export {folder.path} --formats {names[0]}"
    )


class Encoder:
    """A model folder in one variant, over texts; the threads of torch are set for the whole process.

    Args:
        variant: what is computed.
        model: the folder's, on the variant's device, where it is loaded already.
    """

    def __init__(self, variant: Variant, model: SentenceTransformer | None = None) -> None:
        torch.set_num_threads(variant.threads)
        self.variant = variant
        self.model = load(variant.folder, variant.device) if model is None else model
        self.prompt = default_prompt(self.model) or ""
        export = variant.export
        self.onnx = OnnxEncoder(export, self.model, variant.threads) if export else None

    def encode(self, number: int, texts: list[str]) -> Done:
        """Embed one chunk; a text that is empty gets zeros."""
        full = [row for row, text in enumerate(texts) if not is_empty(text)]
        embeddings = np.zeros((len(texts), self.model.get_embedding_dimension() or 0), np.float32)
        given = [texts[row] for row in full]
        if given:
            embeddings[full] = self._embed(given)
        return Done(number, texts, embeddings, self._truncated(given))

    def _embed(self, texts: list[str]) -> np.ndarray:
        if self.onnx is not None:
            return self.onnx.encode([self.prompt + text for text in texts], self.variant.batch_size)
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.variant.name == "bf16"):
            found = self.model.encode(texts, batch_size=self.variant.batch_size, show_progress_bar=False)
        return np.asarray(found, np.float32)

    def _truncated(self, texts: list[str]) -> int:
        """Count the texts that have more tokens than the model reads; a short one is not tokenised for that."""
        tokenizer: Any = self.model.tokenizer
        limit = self.model.max_seq_length
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
    """Return a number of tokens that no tokenizer passes: the bytes of a text with every letter taken apart."""
    return len(text) if text.isascii() else len(unicodedata.normalize("NFKD", text).encode())


def in_process(variant: Variant, model: SentenceTransformer, jobs: Iterator[Job]) -> Generator[Done, None, None]:
    """Embed chunks one after the other; torch's number of threads is put back at the end."""
    threads = torch.get_num_threads()
    try:
        encoder = Encoder(variant, model)
        for number, texts in jobs:
            yield encoder.encode(number, texts)
    finally:
        torch.set_num_threads(threads)
