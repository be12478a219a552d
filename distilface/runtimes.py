"""Exported files as encoders of text, each on its own runtime."""

import contextlib
import hashlib
import importlib
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from distilface.folder import Folder, load
from distilface.settings import InputError

INPUTS = ("input_ids", "attention_mask")
_TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True)
class Extra:
    """Packages that something needs beyond those that distilface always has, and the extra that installs them.

    They are imported where they are used: some change ``sys.path`` or the logging as they are imported.
    """

    what: str
    packages: tuple[str, ...]
    name: str

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def check(self) -> None:
        """Make sure that all are installed.

        Raises:
            InputError: naming those that are not.
        """
        if missing := self.missing:
            raise InputError(f"{self.what} need {', '.join(missing)}; pip install 'distilface[{self.name}]'")


ONNX = Extra("ONNX files", ("onnx", "onnxruntime", "onnxscript"), "onnx")
OPENVINO = Extra("OpenVINO files", ("openvino",), "openvino")
OPENVINO_INT8 = Extra("int8 files of OpenVINO", ("openvino", "nncf"), "openvino")


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Keep an import from reporting itself over the network, and from changing the class of every later logger.

    OpenVINO and NNCF send their use to Google Analytics from the first import on, unasked; where the package of
    their telemetry cannot be imported, they send nothing. One that the user's program has imported is left alone.
    """
    logger = logging.getLoggerClass()
    foreign = _TELEMETRY in sys.modules
    if not foreign:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.setLoggerClass(logger)
        if not foreign:
            del sys.modules[_TELEMETRY]


def import_silent(name: str) -> ModuleType:
    """Import ``openvino`` or ``nncf`` without its telemetry."""
    with _as_it_was():
        return importlib.import_module(name)


class FileEncoder(ABC):
    """An exported file as an encoder of text; each runtime computes one batch its own way.

    Args:
        folder: the file's model folder, for the tokenizer and the most tokens.
    """

    def __init__(self, folder: str | Path) -> None:
        model = load(folder)
        self.tokenizer, self.length = model.tokenizer, model.max_seq_length

    @abstractmethod
    def embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one batch of :data:`INPUTS`, each of shape (B, T): shape (B, width)."""

    def embed_all(self, batches: Iterable[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Embed batches, in their order."""
        return [self.embed(inputs) for inputs in batches]

    def tokens(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Tokenise a batch, padded to its longest text: :data:`INPUTS`, int64, shape (B, T)."""
        return self._padded(self._tokenised(texts))

    def _tokenised(self, texts: Sequence[str]) -> list[list[int]]:
        found = self.tokenizer(list(texts), truncation=True, max_length=self.length)
        return list(found["input_ids"])

    def _padded(self, rows: Sequence[list[int]]) -> dict[str, np.ndarray]:
        found = self.tokenizer.pad({"input_ids": list(rows)}, padding=True, return_tensors="np")
        return {name: found[name].astype(np.int64) for name in INPUTS}

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Embed texts, in batches of as many tokens each as can be: shape (n, width), float32, in the order given."""
        rows = self._tokenised(texts)
        order = np.argsort([len(row) for row in rows], kind="stable")
        starts = range(0, len(order), batch_size)
        batches = (self._padded([rows[row] for row in order[start : start + batch_size]]) for start in starts)
        embeddings = np.concatenate(self.embed_all(batches)).astype(np.float32)
        embeddings[order] = embeddings.copy()
        return embeddings


class OnnxEncoder(FileEncoder):
    """An ONNX file as an encoder of text, on onnxruntime alone.

    Args:
        file: an ONNX file that :func:`distilface.export.export` wrote.
        folder: its model folder, for the tokenizer and the most tokens.
        threads: of one batch's computation; ``None`` takes torch's, for onnxruntime's own number is that of the
            machine, and twice as slow where fewer may be used.

    Raises:
        InputError: without onnxruntime.
    """

    def __init__(self, file: str | Path, folder: str | Path, threads: int | None = None) -> None:
        ONNX.check()
        import onnxruntime

        super().__init__(folder)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one batch of :data:`INPUTS`, each of shape (B, T): shape (B, width)."""
        return np.asarray(self.session.run(["sentence_embedding"], inputs)[0])


class OpenVinoEncoder(FileEncoder):
    """An OpenVINO file as an encoder of text.

    Args:
        file: the ``.xml`` of a pair that :func:`distilface.export.export` wrote.
        folder: its model folder, for the tokenizer and the most tokens.
        threads: each of which computes a batch of its own; ``None`` takes torch's number.
        precision: in which it computes what is not int8. OpenVINO's own choice is bf16 wherever the processor has
            it, for a file of fp32 too: its vectors then differ from one machine to another.

    Raises:
        InputError: without openvino.
    """

    def __init__(
        self, file: str | Path, folder: str | Path, threads: int | None = None, precision: str = "f32"
    ) -> None:
        OPENVINO.check()
        super().__init__(folder)
        self.openvino = import_silent("openvino")
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self.compiled: Any = self.openvino.Core().compile_model(str(file), "CPU", settings)

    def embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one batch of :data:`INPUTS`, each of shape (B, T): shape (B, width)."""
        return np.asarray(self.compiled(inputs)["sentence_embedding"])

    def embed_all(self, batches: Iterable[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Embed batches, in their order, several at a time: each thread has its own."""
        found: dict[int, np.ndarray] = {}

        def keep(request: Any, number: int) -> None:
            found[number] = request.get_tensor("sentence_embedding").data.copy()

        queue: Any = self.openvino.AsyncInferQueue(self.compiled)
        queue.set_callback(keep)
        for number, inputs in enumerate(batches):
            queue.start_async(inputs, number)
        queue.wait_all()
        return [found[number] for number in range(len(found))]


def open_file(file: str | Path, folder: str | Path, threads: int | None = None) -> FileEncoder:
    """Open an exported file by the runtime that its suffix names.

    Raises:
        InputError: without that runtime.
    """
    runtime = OpenVinoEncoder if Path(file).suffix == ".xml" else OnnxEncoder
    return runtime(file, folder, threads)


def parts(file: Path) -> tuple[Path, ...]:
    """Return the files of an export: an OpenVINO description has its weights beside it."""
    return (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,)


class FileModel(SentenceTransformer):
    """An exported file as a ``SentenceTransformer``: its folder's tokenizer and prompts, the file's embeddings.

    Args:
        file: that :func:`distilface.export.export` wrote.
        folder: its model folder.

    Raises:
        InputError: if there is no such file or no whole folder, or without the file's runtime.
    """

    def __init__(self, file: str | Path, folder: str | Path) -> None:
        self._check(Path(file))
        Folder(Path(folder)).check()
        super().__init__(str(folder), device="cpu", local_files_only=True)
        self.eval()
        self.file = Path(file)
        self.encoder = open_file(file, folder)
        self._vocabulary = Path(folder) / "tokenizer.json"  # not the object, which each use changes

    @staticmethod
    def _check(file: Path) -> None:
        for part in parts(file):
            if not part.is_file():
                raise InputError(f"{part} does not exist; make it first: distilface export FOLDER")

    def forward(self, input: dict[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        """Embed a batch of tokens by the file."""
        inputs = {name: input[name].numpy().astype(np.int64) for name in INPUTS}
        return {**input, "sentence_embedding": torch.from_numpy(self.encoder.embed(inputs))}

    @property
    def fingerprint(self) -> str:
        """The sha256 of the file and of how its text is tokenised, which are all that its embeddings depend on."""
        digest = hashlib.sha256(str(self.max_seq_length).encode())
        for part in (self._vocabulary, *parts(self.file)):
            digest.update(part.read_bytes())
        return digest.hexdigest()

    @property
    def megabytes(self) -> float:
        """Its size on disk, of 10^6 bytes."""
        return round(sum(part.stat().st_size for part in parts(self.file)) / 1e6, 2)
