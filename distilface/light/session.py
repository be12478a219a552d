"""An ONNX file on onnxruntime: opened with the threads that the process may use, and checked for what it reads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from distilface.settings import InputError

#: What an exported file reads, and what it gives.
INPUTS = {"input_ids", "attention_mask"}
OUTPUT = "sentence_embedding"
#: The name of a product in a file, and of one of 2, 4 or 8 bits, which begins with it.
MULTIPLIED, PRODUCT = "MatMul", "MatMulNBits"


#: Tokens, padding among them, of a batch that one thread runs: of more, a token takes some percent longer.
OF_A_THREAD = 512


def usable_threads() -> int:
    """Return the processors that the process may use where they are fewer than the machine's, otherwise 0.

    onnxruntime takes 0 as its own number, that of the machine, and is twice as slow where the process may use fewer.
    """
    if not hasattr(os, "sched_getaffinity"):
        return 0
    usable = len(os.sched_getaffinity(0))
    return usable if usable < (os.cpu_count() or 1) else 0


def threads_for(threads: int | None) -> int:
    """Return the threads of a computation: those that are asked for, or all that the process may use."""
    return threads or usable_threads() or os.cpu_count() or 1


class OnnxSession:
    """An opened file.

    Args:
        session: onnxruntime's own, which has as many threads as it was opened with.
        workers: batches that run at a time.
    """

    def __init__(self, session: Any, workers: int = 1) -> None:
        self._session, self._workers = session, workers
        #: Batches that some texts are at least cut into: several for each worker, for the last ones end together then.
        self.parts = 1 if workers == 1 else 4 * workers
        #: Tokens of a batch at most, where a thread has it alone: what lies between its layers then stays in the cache.
        self.tokens = None if workers == 1 else OF_A_THREAD

    def run(self, batches: Iterable[dict[str, np.ndarray]]) -> Iterator[np.ndarray]:
        """Embed batches, in their order: each of shape (B, dimension)."""
        rest = iter(batches)
        first = list(islice(rest, 2))
        if self._workers == 1 or len(first) < 2:
            yield from map(self._embed, chain(first, rest))
            return
        from concurrent.futures import Future, ThreadPoolExecutor  # their import takes a while

        running: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            for batch in chain(first, rest):
                if len(running) > self._workers:  # one more than can run, so that none waits for this thread
                    yield running.popleft().result()
                running.append(pool.submit(self._embed, batch))
            while running:
                yield running.popleft().result()

    def _embed(self, batch: dict[str, np.ndarray]) -> np.ndarray:
        return np.asarray(self._session.run([OUTPUT], batch)[0])


def open_session(file: Path, threads: int | None = None, batch_per_thread: bool = False) -> tuple[OnnxSession, int]:
    """Open an ONNX file; return its session, and the width of its embeddings.

    Args:
        file: the file.
        threads: of the computation; ``None`` takes those that the process may use.
        batch_per_thread: each thread runs a batch of its own, where otherwise all of them share the products of one. A
            batch of short texts has much beside its products that one thread does alone.

    Raises:
        InputError: if it is damaged, or is not an exported file of a sentence encoder.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if batch_per_thread:
        workers, options.intra_op_num_threads = threads_for(threads), 1
    else:
        workers, options.intra_op_num_threads = 1, usable_threads() if threads is None else threads
    options.log_severity_level = 3  # its warnings are of its own optimiser
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no other class in common
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{file} cannot be opened: {problem}; export or download it again") from None
    ports = {port.name: port for port in session.get_outputs()}
    read = {port.name for port in session.get_inputs()}
    if OUTPUT not in ports or not read <= INPUTS:
        raise InputError(
            f"{file} reads {', '.join(sorted(read))} and gives {', '.join(ports)}; a file that distilface export "
            f"writes reads {' and '.join(sorted(INPUTS))} and gives {OUTPUT}"
        )
    width = ports[OUTPUT].shape[-1]
    if not isinstance(width, int):
        raise InputError(f"{file} does not say how wide its embeddings are; export it again: distilface export FOLDER")
    return OnnxSession(session, workers), width
