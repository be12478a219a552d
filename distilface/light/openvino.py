"""An ONNX file or one of OpenVINO's own on OpenVINO."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from distilface.extras import import_silent
from distilface.light.session import OUTPUT

#: Tokens from which on OpenVINO's one operator for all of attention is faster than the steps that it is made of.
LONG = 100


@functools.cache
def openvino_core() -> Any:
    """Return OpenVINO's core, one for the life of the process.

    Where the processor has AMX, it gives the thread a stack on which signals are handled, and frees it with itself. If
    that happens on another thread, the next signal, as of Ctrl-C, ends the process.
    """
    return import_silent("openvino").Core()


class OpenVinoSession:
    """An opened file, which runs several batches at a time, each on a thread.

    Of short texts attention is many tiny products, for which OpenVINO's fused operator takes up to 1.6 times as long as
    its steps; of 240 tokens the steps take 1.3 times as long as it.

    Args:
        file: the ``.onnx``, or the ``.xml``.
        threads: of the computation.
        precision: of what is not int8: ``f32``, or ``bf16`` where :func:`multiplies_bf16`. OpenVINO's own choice is
            bf16 wherever the processor has it, for a file of fp32 too: then the vectors of one file differ from one
            machine to another.
    """

    def __init__(self, file: Path, threads: int, precision: str = "f32") -> None:
        self._file = str(file)
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": threads,
            "PERFORMANCE_HINT": "THROUGHPUT",
        }
        self._models: dict[bool, Any] = {}
        model = openvino_core().read_model(self._file)
        self._attends = any(node.get_type_name() == "Softmax" for node in model.get_ops())
        compiled = self._compiled(length=1)
        # One more than can run, so that none waits for this thread. OpenVINO's own AsyncInferQueue calls back into
        # Python, and may wait for ever as it is let go: it for its thread, and that for the interpreter.
        self._in_flight = 1 + compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        # Several for each thread: of two batches, OpenVINO often gives both to one.
        self.parts = 1 if threads == 1 else 4 * threads
        #: Tokens of a batch at most: any number.
        self.tokens = None
        self.width = int(compiled.output(OUTPUT).get_partial_shape()[-1].get_length())

    def _compiled(self, length: int) -> Any:
        """Return the file compiled for batches of a length: what is for long ones is compiled when the first comes."""
        fused = self._attends and length >= LONG
        if fused not in self._models:
            settings = self._settings if fused else self._settings | {"SNIPPETS_MODE": "DISABLE"}
            self._models[fused] = openvino_core().compile_model(self._file, "CPU", settings)
        return self._models[fused]

    def run(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        idle: dict[Any, list[Any]] = {}
        running: deque[tuple[list[Any], Any]] = deque()

        def finish() -> np.ndarray:
            """Copy the output of the oldest request: another batch is written over it."""
            others, oldest = running.popleft()
            oldest.wait()
            others.append(oldest)
            return np.array(oldest.get_tensor(OUTPUT).data)

        for batch in batches:
            compiled = self._compiled(next(iter(batch.values())).shape[1])
            if len(running) == self._in_flight:
                yield finish()
            requests = idle.setdefault(compiled, [])
            request = requests.pop() if requests else compiled.create_infer_request()
            request.start_async(batch)
            running.append((requests, request))
        while running:
            yield finish()


def multiplies_bf16() -> bool:
    """Return whether this processor multiplies bf16 matrices in hardware, as OpenVINO sees it."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
