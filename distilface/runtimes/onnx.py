"""ONNX files on onnxruntime."""

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from distilface.light.ways import Way
from distilface.runtimes.base import FileEncoder
from distilface.runtimes.extras import ONNX


class OnnxEncoder(FileEncoder):
    """An ONNX file on onnxruntime; the arguments are those of :class:`FileEncoder`."""

    extra = ONNX

    def __init__(self, way: Way, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        super().__init__(way, source, threads)
        self.session, _ = way.open(self.threads)

    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""
        import onnx

        for tensor in onnx.load(self.file).graph.initializer:
            if list(tensor.dims) == list(shape):
                # Two numbers of 4 bits share a byte of the file, and not one of an array.
                return len(tensor.raw_data) or onnx.numpy_helper.to_array(tensor).nbytes
        return None
