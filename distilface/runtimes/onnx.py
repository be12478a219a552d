"""ONNX files on onnxruntime."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from distilface.light.ways import Way
from distilface.runtimes.base import Batch, FileEncoder
from distilface.runtimes.extras import ONNX


class OnnxEncoder(FileEncoder):
    """An ONNX file on onnxruntime, one batch at a time on all threads; the arguments are :class:`FileEncoder`'s."""

    extra = ONNX

    def __init__(self, way: Way, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        super().__init__(way, source, threads)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # Its own number is that of the machine, and twice as slow where the process may use fewer.
        options.intra_op_num_threads = self.threads
        self.session = onnxruntime.InferenceSession(str(way.path()), options, providers=["CPUExecutionProvider"])

    def run(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        return [np.asarray(self.session.run(["sentence_embedding"], batch)[0]) for batch in batches]

    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""
        import onnx

        for tensor in onnx.load(self.file).graph.initializer:
            if list(tensor.dims) == list(shape):
                # Two numbers of 4 bits share a byte of the file, and not one of an array.
                return len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes
        return None
