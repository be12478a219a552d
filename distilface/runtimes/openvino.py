"""OpenVINO files: a description (``.xml``) with its weights (``.bin``)."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from distilface.runtimes.base import Batch, FileEncoder
from distilface.runtimes.extras import OPENVINO, import_silent


class OpenVinoEncoder(FileEncoder):
    """An OpenVINO file, several batches at a time, each on a thread; the arguments are :class:`FileEncoder`'s."""

    extra = OPENVINO

    def __init__(self, file: str | Path, source: str | Path | SentenceTransformer, threads: int | None = None) -> None:
        super().__init__(file, source, threads)
        core: Any = import_silent("openvino").Core()
        settings = {
            # Of what is not int8. OpenVINO's own choice is bf16 wherever the processor has it, for a file of fp32
            # too: its vectors then differ from one machine to another.
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": self.threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self.compiled: Any = core.compile_model(str(self.file), "CPU", settings)
        # One more than can run, so that none waits for this thread. OpenVINO's own AsyncInferQueue calls back into
        # Python, and may wait for ever as it is let go: it for its thread, and that for the interpreter.
        self.in_flight = 1 + self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def run(self, batches: Iterable[Batch]) -> list[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        requests: list[Any] = []
        outputs: list[np.ndarray] = []

        def finish() -> None:
            """Copy the output of the oldest request: another batch is written over it."""
            oldest = requests[len(outputs) % len(requests)]
            oldest.wait()
            outputs.append(oldest.get_tensor("sentence_embedding").data.copy())

        started = 0
        for batch in batches:
            if started < self.in_flight:
                requests.append(self.compiled.create_infer_request())
            else:
                finish()
            requests[started % len(requests)].start_async(batch)
            started += 1
        while len(outputs) < started:
            finish()
        return outputs

    def table_bytes(self, shape: Sequence[int]) -> int | None:
        """Return the size of the weights of a shape, without their scales; ``None`` if the file holds none such."""
        for node in import_silent("openvino").Core().read_model(str(self.file)).get_ops():
            if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == list(shape):
                return int(node.get_byte_size())
        return None
