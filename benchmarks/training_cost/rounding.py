"""Measure what is lost when a teacher's embeddings are kept in fewer bytes than float32.

    python -m benchmarks.training_cost.rounding --data corpora --dev stsb_dev.jsonl.gz

The error is that of the cosines of all pairs of texts. Then one student is trained on each kind, with the same seed,
and its agreement with the teacher is measured on texts held out of the training, by embeddings of the same kind.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

import distilface
from benchmarks.files import save_result
from distilface.console import run_command
from distilface.data.fingerprints import fingerprint
from distilface.data.texts import read_texts
from distilface.embedding.rounding import DTYPES, bytes_of, restored
from distilface.embedding.teacher_cache import embed
from distilface.environment import stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.settings import parse, setting
from distilface.training.teacher import load_teacher


@dataclass
class Settings:
    """Options of the benchmark."""

    data: list[str] = setting([], "text, as a training takes it")
    dev: str = setting("sample", "scored pairs that choose the checkpoint")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder")
    recipe: str = setting("minilm-l3", "the recipe of the student")
    texts: int = setting(2_000, "texts, drawn at random")
    held_out: int = setting(300, "of them, those that the agreement is measured on")
    steps: int = setting(60, "steps of each training; 0 measures the cosines alone")
    batch_size: int = setting(64, "sentences a step")
    seed: int = setting(42, "of each training")
    output: str | None = setting(None, "write the result to this JSON file")


def cosine_error(texts: Dataset, settings: Settings, dtype: str, cache: str) -> dict[str, float]:
    """Return how far the cosines of rounded embeddings are from those of float32."""
    teacher = load_teacher(settings.teacher)
    kinds = [
        restored(embed(teacher, texts, cache, bf16=False, dtype=each).with_format("torch")[:]["label"]).numpy()
        for each in ("float32", dtype)
    ]
    exact, rounded = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in kinds)
    error = np.abs(exact @ exact.T - rounded @ rounded.T)[np.triu_indices(len(texts), 1)]
    return {"cosine_error_max": float(error.max()), "cosine_error_mean": float(error.mean())}


def train(texts: Dataset, settings: Settings, dtype: str, place: str) -> dict[str, Any]:
    """Train a student on one kind of embeddings; return what it comes to."""
    report = distilface.train(
        "distill",
        data=texts,
        config=settings.recipe,
        output_dir=Path(place) / dtype,
        teacher=[settings.teacher],
        teacher_dtype=dtype,
        cache_dir=place,
        dev=settings.dev,
        held_out=settings.held_out,
        steps=settings.steps,
        eval_steps=settings.steps,
        batch_size=settings.batch_size,
        seed=settings.seed,
        bf16="no",
    )
    return {"scores": report["scores"], "agreement": report.get("agreement")}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure each kind; return what is written."""
    settings = parse(Settings, argv, __doc__ or "")
    texts = read_texts(settings.data, settings.texts)
    width = load_teacher(settings.teacher).get_embedding_dimension() or 0
    kinds = {}
    with tempfile.TemporaryDirectory() as place:
        for dtype in DTYPES:
            kinds[dtype] = {"bytes_a_text": bytes_of(width, dtype), **cosine_error(texts, settings, dtype, place)}
            kinds[dtype] |= train(texts, settings, dtype, place) if settings.steps else {}
    sizes = {name: getattr(settings, name) for name in ("teacher", "recipe", "held_out", "steps", "batch_size", "seed")}
    result = {"kinds": kinds, "texts": len(texts), "sha256": fingerprint(texts), **sizes, **stamp()}
    save_result(settings.output, result)
    return result


if __name__ == "__main__":
    run_command(main)
