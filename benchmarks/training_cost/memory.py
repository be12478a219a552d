"""Measure what a training holds in memory, and how fast it goes, as its text grows.

    python -m benchmarks.training_cost.memory --rows 1000000 5000000 --output benchmarks/results/memory.json

The text is made up: twelve random words a row, all rows distinct. It is read, embedded by a teacher that costs next to
nothing (a random table of 64 numbers a piece), and a student of the same kind is trained on it for some steps: so the
time is that of everything around the models. The memory is what a process cannot give back (``RssAnon``), sampled every
twentieth of a second; the pages of mapped files, which the system may drop, are not in it. Linux alone tells it.
"""

import logging
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from benchmarks.files import read_result, save_result
from distilface.console import run_command
from distilface.data.fingerprints import fingerprint
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.embedding.teacher_cache import embed
from distilface.environment import stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.embedding import EmbeddingLoss
from distilface.settings import InputError, parse, setting
from distilface.training.batches import LengthBatchSampler
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.benchmarks.training_cost")

WIDTH, WORDS = 64, 12
STATUS = Path("/proc/self/status")


@dataclass
class Settings:
    """Options of the benchmark."""

    rows: list[int] = setting([1_000_000, 5_000_000], "rows of text; each number is a process of its own")
    tokenizer: str = setting(DEFAULT_TEACHER, "a Hub id or folder of the encoder whose tokenizer is used")
    steps: int = setting(50, "steps of the training")
    batch_size: int = setting(1024, "sentences a step")
    text_alone: bool = setting(False, "read the text and order an epoch; leave the teacher and the training out")
    alone: bool = setting(False, "measure here; the benchmark starts itself so, once for each number of rows")
    output: str | None = setting(None, "write the result to this JSON file")


def held() -> int:
    """Return the bytes of memory that this process cannot give back."""
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


@contextmanager
def measured(into: dict[str, Any], stage: str) -> Iterator[None]:
    """Note the seconds of a stage, and the most memory that was held in it."""
    seen, over = [held()], threading.Event()

    def watch() -> None:
        """Look at the memory until the stage is over."""
        while not over.wait(0.05):
            seen.append(held())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        over.set()
        thread.join()
        into[stage] = {"seconds": round(time.perf_counter() - began, 2), "megabytes": round(max(seen) / 1e6)}
        logger.info(f"{stage}: {into[stage]}")


def write_rows(file: Path, count: int) -> None:
    """Write distinct rows of random words."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(3, 9))) for _ in range(20_000)]
    with file.open("w") as lines:
        for number in range(count):
            lines.write(f"{' '.join(draw.choices(words, k=WORDS - 1))} {number}\n")


def random_encoder(tokenizer: Any, seed: int) -> SentenceTransformer:
    """Make an encoder without a transformer, of random vectors."""
    vectors = np.random.default_rng(seed).standard_normal((len(tokenizer), WIDTH), dtype=np.float32)
    module = StaticEmbedding(tokenizer.backend_tokenizer, embedding_weights=vectors)
    return SentenceTransformer(modules=[module], device="cpu")


def measure(count: int, settings: Settings) -> dict[str, Any]:
    """Measure each stage of a training on so many rows."""
    tokenizer = load_teacher(settings.tokenizer).tokenizer
    teacher, student = random_encoder(tokenizer, 0), random_encoder(tokenizer, 1)
    stages: dict[str, Any] = {"rows": count, "start_megabytes": round(held() / 1e6)}
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "rows.txt"
        write_rows(file, count)
        with measured(stages, "read"):
            texts = read_texts([str(file)])
        with measured(stages, "fingerprint"):
            fingerprint(texts)
        with measured(stages, "order"):
            next(iter(LengthBatchSampler(texts, settings.batch_size, drop_last=False)))
        if settings.text_alone:
            return stages
        with measured(stages, "teacher"):
            data = embed(teacher, texts, place, batch_size=settings.batch_size, bf16=False).with_format("torch")
        with measured(stages, "train"):
            fitted = TrainSettings(
                output_dir=str(Path(place) / "student"),
                steps=settings.steps,
                batch_size=settings.batch_size,
                eval_steps=settings.steps,
                bf16="no",
            )
            loss = EmbeddingLoss(student, "cosine")
            trainer, _ = encoder_trainer(student, loss, data, read_sts("sample"), fitted)
            trainer.train()
    return stages


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure each number of rows in a process of its own; return what is written."""
    settings = parse(Settings, argv, __doc__ or "")
    if not STATUS.is_file():
        raise InputError(f"{STATUS} is not there: this system does not tell what a process holds; run it on Linux")
    if settings.alone:
        result = measure(settings.rows[0], settings)
    else:
        sizes = {"width": WIDTH, "words": WORDS, "batch_size": settings.batch_size, "steps": settings.steps}
        result = {"stages": [_in_a_process(count, settings) for count in settings.rows], **sizes, **stamp()}
    save_result(settings.output, result)
    return result


def _in_a_process(count: int, settings: Settings) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "result.json"
        words: list[object] = [
            "--alone",
            "--tokenizer",
            settings.tokenizer,
            *(["--text_alone"] if settings.text_alone else []),
        ]
        words += ["--rows", count, "--steps", settings.steps, "--batch_size", settings.batch_size, "--output", file]
        command = [sys.executable, "-m", "benchmarks.training_cost.memory", *words]
        subprocess.run([str(word) for word in command], check=True)
        return read_result(file)


if __name__ == "__main__":
    run_command(main)
