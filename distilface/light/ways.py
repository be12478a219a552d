"""The ways to run a folder: which of its files, as it is or rewritten, on which runtime, in which precision."""

import logging
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilface.light.files import variants_in
from distilface.light.session import MULTIPLIED, PRODUCT, open_session, threads_for

logger = logging.getLogger(__name__)

#: In which OpenVINO computes.
PRECISIONS = ("f32", "bf16")
#: Products by rows, where the processor adds what two products have exactly, and where it adds them in 16 bits.
BY_ROWS: dict[bool, Literal["int8 by rows", "paired int8 by rows"]] = {
    True: "int8 by rows",
    False: "paired int8 by rows",
}
#: Where in the cache a file lies that is made of another.
PLACES = {
    "fp32": "expanded",
    "int8": "int8",
    "int8 by rows": "int8_by_rows",
    "paired int8 by rows": "paired_int8_by_rows",
}
#: The least cosine between what a way gives of a text and what the folder's smallest file gives. Six layers by rows are
#: at 0.999, a little above or below, and their Spearman on STS-B is the small file's to within 0.02.
LEAST_COSINE = 0.998


@dataclass(frozen=True)
class Way:
    """One way to run a folder.

    Attributes:
        file: of the folder.
        rewritten: as which other file, kept in the cache, it runs: ``fp32``, or what rounds the numbers that go into a
            product: ``int8`` by their blocks (:mod:`distilface.light.expanding`), :data:`BY_ROWS` by the rows, with the
            weights (:mod:`distilface.light.row_products`); ``None`` runs it as it is.
        openvino: the precision in which OpenVINO runs it; ``None`` for onnxruntime.
        one_thread: whatever number is asked for.
        batch_per_thread: of onnxruntime, as OpenVINO's threads always do it
            (:func:`distilface.light.session.open_session`).
    """

    file: Path
    rewritten: Literal["fp32", "int8", "int8 by rows", "paired int8 by rows"] | None = None
    openvino: str | None = None
    one_thread: bool = False
    batch_per_thread: bool = False

    @property
    def words(self) -> str:
        """What differs from the file on its own runtime, as ``in fp32 on OpenVINO in bf16``; empty if nothing does."""
        described = self.file.suffix == ".xml"
        words = [f"in {self.rewritten}"] if self.rewritten else []
        if self.openvino is not None:
            words += [] if described else ["on OpenVINO"]
            words += ["in bf16"] if self.openvino == "bf16" else []
        words += ["on one thread"] if self.one_thread else []
        return " ".join(words)

    def path(self) -> Path:
        """Return the file that runs: the folder's, or what is made of it, if it is not there yet."""
        if self.rewritten is None:
            return self.file
        from distilface.light.expanding import kept

        return kept(self.file, home() / PLACES[self.rewritten], partial(_rewrite, self.rewritten))

    def open(self, threads: int | None = None) -> tuple[Any, int]:
        """Return a session, which runs batches, and the width of its embeddings.

        Args:
            threads: of the computation; ``None`` takes all that the process may use.

        Raises:
            InputError: if the file is damaged, or is not an exported file of a sentence encoder.
        """
        file, threads = self.path(), 1 if self.one_thread else threads
        if self.openvino is None:
            return open_session(file, threads, self.batch_per_thread)
        from distilface.light.openvino import OpenVinoSession

        session = OpenVinoSession(file, threads_for(threads), self.openvino)
        return session, session.width


def _rewrite(kind: str, file: Path, target: Path) -> None:
    """Write what a file is rewritten as."""
    from distilface.light import expanding, row_products  # their imports take a while

    writers: dict[str, Callable[[Path, Path], None]] = {
        "fp32": expanding.expand,
        "int8": expanding.multiply_in_int8,
        BY_ROWS[True]: row_products.multiply_by_rows,
        BY_ROWS[False]: partial(row_products.multiply_by_rows, in_pairs=True),
    }
    writers[kind](file, target)


def home() -> Path:
    """Return the folder of what is measured and rewritten, beside the Hub's cache."""
    from huggingface_hub.constants import HF_HOME  # its import takes a while

    return Path(HF_HOME) / "distilface"


def ways_of(folder: Path) -> dict[str, Way]:
    """Return the ways to run a folder with the packages that are here, by their names, the plainest first.

    Without ``onnx`` no file is made of another. OpenVINO takes files of fp32 and of int8 weights alone: products of 4
    bits are other numbers to it. In int8 the numbers that go into a product are rounded too, for each text by itself:
    by blocks in the file of 4 bits, by rows in one that is made of it, or else of that in fp32.
    """
    files = variants_in(folder)
    ways = {name: Way(file) for name, file in files.items()}
    plain: dict[str, Way] = {name: ways[name] for name in ("onnx", "int8") if name in ways}
    exact = next((name for name in ("q4", "onnx") if name in files), None)
    if exact and find_spec("onnx"):
        content = files[exact].read_bytes()
        if MULTIPLIED.encode() in content:  # a static student has no product
            by_rows = Way(files[exact], BY_ROWS[sums_fit()])
            ways[f"{exact} {by_rows.words}"] = by_rows
        if exact == "q4" and PRODUCT.encode() in content:
            ways["q4 in int8"] = Way(files["q4"], "int8")
        if exact == "q4" and "onnx" not in files:
            plain["q4 in fp32"] = Way(files["q4"], "fp32")
    ways |= plain
    if find_spec("openvino"):
        for name, way in plain.items():
            on_openvino = [Way(way.file, way.rewritten, precision) for precision in PRECISIONS]
            ways |= {f"{name} {other.words.removeprefix('in fp32 ')}": other for other in on_openvino}
    return ways


def on_one_thread(ways: Mapping[str, Way]) -> dict[str, Way]:
    """Return the ways of onnxruntime on one thread: of a short text, sharing the work out may take longer than it."""
    on_onnxruntime = {name: way for name, way in ways.items() if way.openvino is None}
    return {f"{name} on one thread": replace(way, one_thread=True) for name, way in on_onnxruntime.items()}


def for_batches(ways: Mapping[str, Way]) -> dict[str, Way]:
    """Return the ways, those of onnxruntime with a batch for each thread; a single text then runs on one."""
    return {name: replace(way, batch_per_thread=way.openvino is None) for name, way in ways.items()}


def sums_fit() -> bool:
    """Return whether this processor adds products of int8 without a loss: an x86 needs VNNI for it.

    AVX2 adds two of them in 16 bits, and cuts off what is beyond, without a word. Those of paired weights fit.
    """
    from distilface.environment import processor  # its import takes a while

    return platform.machine().lower() not in ("x86_64", "amd64") or "vnni" in processor()


def runs_here(way: Way) -> bool:
    """Return whether the processor has the way's precision."""
    if way.openvino != "bf16":
        return True
    from distilface.light.openvino import multiplies_bf16

    return multiplies_bf16()


def agree(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether each of some vectors has its direction in others, to within :data:`LEAST_COSINE`."""
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return bool((np.sum(one * other, axis=1) >= LEAST_COSINE * lengths).all())
