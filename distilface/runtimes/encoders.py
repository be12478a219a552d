"""Exported files as encoders of text, each on its own runtime."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from distilface.model.folder import load
from distilface.runtimes.extras import ONNX, OPENVINO, import_silent

INPUTS = ("input_ids", "attention_mask")


class FileEncoder(ABC):
    """An exported file as an encoder of text; each runtime computes one batch its own way.

    Args:
        source: the file's model folder, or its model where it is loaded already: the tokenizer and the most tokens.
    """

    def __init__(self, source: str | Path | SentenceTransformer) -> None:
        model = source if isinstance(source, SentenceTransformer) else load(source)
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
        file: an ONNX file that :func:`distilface.exporters.exporting.export` wrote.
        source: as :class:`FileEncoder` takes it.
        threads: of one batch's computation; ``None`` takes torch's, for onnxruntime's own number is that of the
            machine, and twice as slow where fewer may be used.

    Raises:
        InputError: without onnxruntime.
    """

    def __init__(self, file: str | Path, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        ONNX.check()
        import onnxruntime

        super().__init__(source)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one batch of :data:`INPUTS`, each of shape (B, T): shape (B, width)."""
        return np.asarray(self.session.run(["sentence_embedding"], inputs)[0])


class OpenVinoEncoder(FileEncoder):
    """An OpenVINO file as an encoder of text.

    Args:
        file: the ``.xml`` of a pair that :func:`distilface.exporters.exporting.export` wrote.
        source: as :class:`FileEncoder` takes it.
        threads: each of which computes a batch of its own; ``None`` takes torch's number.
        precision: in which it computes what is not int8. OpenVINO's own choice is bf16 wherever the processor has
            it, for a file of fp32 too: its vectors then differ from one machine to another.

    Raises:
        InputError: without openvino.
    """

    def __init__(
        self,
        file: str | Path,
        source: str | Path | SentenceTransformer,
        threads: int | None = None,
        precision: str = "f32",
    ) -> None:
        OPENVINO.check()
        super().__init__(source)
        self.openvino = import_silent("openvino")
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "NUM_STREAMS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self.compiled: Any = self.openvino.Core().compile_model(str(file), "CPU", settings)
        # One more than can run, so that none waits for this thread. OpenVINO's own AsyncInferQueue calls back into
        # Python, and may wait for ever as it is let go: it for its thread, and that for the interpreter.
        self.in_flight = 1 + self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def embed(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one batch of :data:`INPUTS`, each of shape (B, T): shape (B, width)."""
        return np.asarray(self.compiled(inputs)["sentence_embedding"])

    def embed_all(self, batches: Iterable[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Embed batches, in their order, several at a time: each thread has its own."""
        requests = [self.compiled.create_infer_request() for _ in range(self.in_flight)]
        found: list[np.ndarray] = []

        def finish() -> None:
            """Copy what the oldest request has found: another batch is written over it."""
            oldest = requests[len(found) % len(requests)]
            oldest.wait()
            found.append(oldest.get_tensor("sentence_embedding").data.copy())

        started = 0
        for inputs in batches:
            if started - len(found) == len(requests):
                finish()
            requests[started % len(requests)].start_async(inputs)
            started += 1
        while len(found) < started:
            finish()
        return found


def open_file(file: str | Path, source: str | Path | SentenceTransformer, threads: int | None = None) -> FileEncoder:
    """Open an exported file by the runtime that its suffix names.

    Raises:
        InputError: without that runtime.
    """
    runtime = OpenVinoEncoder if Path(file).suffix == ".xml" else OnnxEncoder
    return runtime(file, source, threads)


def parts(file: Path) -> tuple[Path, ...]:
    """Return the files of an export: an OpenVINO description has its weights beside it."""
    return (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,)


def megabytes(file: Path) -> float:
    """Return what an export weighs on disk, with all its parts, of 10^6 bytes."""
    return round(sum(part.stat().st_size for part in parts(file)) / 1e6, 2)
