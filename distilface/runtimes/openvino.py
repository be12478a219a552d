"""OpenVINO files: a description (``.xml``) with its weights (``.bin``)."""

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from distilface.light.openvino import OpenVinoSession, openvino_core
from distilface.light.ways import Way
from distilface.runtimes.base import FileEncoder
from distilface.runtimes.extras import OPENVINO


class OpenVinoEncoder(FileEncoder):
    """A file on OpenVINO, several batches at a time, each on a thread; the arguments are :class:`FileEncoder`'s."""

    extra = OPENVINO

    def __init__(self, way: Way, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        super().__init__(way, source, threads)
        self.session = OpenVinoSession(way.path(), self.threads, way.openvino or "f32")

    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""
        for node in openvino_core().read_model(str(self.way.path())).get_ops():
            if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == list(shape):
                return int(node.get_byte_size())
        return None
