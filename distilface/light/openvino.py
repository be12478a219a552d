"""An ONNX file or one of OpenVINO's own on OpenVINO."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distilface.extras import import_silent
from distilface.light.session import OUTPUT


@functools.cache
def openvino_core() -> Any:
    """Return OpenVINO's core, one for the life of the process.

    Where the processor has AMX, it gives the thread a stack on which signals are handled, and frees it with itself. If
    that happens on another thread, the next signal, as of Ctrl-C, ends the process.
    """
    return import_silent("openvino").Core()


class OpenVinoSession:
    """An opened file, which runs several batches at a time, each on a thread.

    Args:
        file: the ``.onnx``, or the ``.xml``.
        threads: of the computation.
        precision: of what is not int8: ``f32``, or ``bf16`` where :func:`multiplies_bf16`. OpenVINO's own choice is
            bf16 wherever the processor has it, for a file of fp32 too: then the vectors of one file differ from one
            machine to another.
    """

    def __init__(self, file: Path, threads: int, precision: str = "f32") -> None:
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self.compiled: Any = openvino_core().compile_model(str(file), "CPU", settings)
        # Several for each thread: of two batches, OpenVINO often gives both to one.
        self.parts = 1 if threads == 1 else 4 * threads
        self.width = int(self.compiled.output(OUTPUT).get_partial_shape()[-1].get_length())

    def run(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        # One more than can run, so that none waits for this thread. OpenVINO's own AsyncInferQueue calls back into
        # Python, and may wait for ever as it is let go: it for its thread, and that for the interpreter.
        in_flight = 1 + self.compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        running: deque[Any] = deque()

        def finish() -> np.ndarray:
            """Copy the output of the oldest request: another batch is written over it."""
            oldest = running[0]
            oldest.wait()
            return np.array(oldest.get_tensor(OUTPUT).data)

        for batch in batches:
            if len(running) < in_flight:
                running.append(self.compiled.create_infer_request())
            else:
                yield finish()
                running.rotate(-1)
            running[-1].start_async(batch)
        while running:
            yield finish()
            running.popleft()


def multiplies_bf16() -> bool:
    """Return whether this processor multiplies bf16 matrices in hardware, as OpenVINO sees it."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
