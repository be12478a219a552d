"""Measure what a teacher beside SimCSE costs: a training with it, against one without it and its bare forward passes.

    python benchmarks/run_teacher_cost.py --output benchmarks/results/teacher-cost.json

The same student is trained on the same batches without a teacher, with the teachers, and with its own past as the
teacher; and each teacher reads those batches alone, by a loop as one writes it by hand, in the same precision.
They take turns, so that a change of the machine's speed affects all of them. The goal is a ratio, with / (without + the
teacher's own forward), of 1 or less: a step costs no more than one forward pass of the teacher beside it. About five
minutes on 2 cores that do nothing else; the first round is not counted, and says how long the others take. ``python -m
benchmarks.training_cost.teacher`` is the same command.
"""

import copy
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from benchmarks.checks import check_counts
from benchmarks.files import save_result
from benchmarks.training_cost.common import read_sentences, seconds
from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.fingerprints import fingerprint
from distilface.data.samples import sts_sample
from distilface.environment import stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.online.loss import DistillCSELoss, prepare
from distilface.model.precision import uses_bf16
from distilface.settings import parse, setting
from distilface.training.batches import LengthBatchSampler
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.benchmarks.training_cost")

GOAL = 1.0


@dataclass
class Settings:
    """Options of the benchmark."""

    data: list[str] = setting(["python"], "text, as training reads it; 'python' is Python's own documentation")
    teachers: list[str] = setting([DEFAULT_TEACHER], "Hub ids or folders of sentence encoders")
    backbone: str = setting(DEFAULT_TEACHER, "a Hub id or folder the student is made of")
    batch_size: int = setting(64, "sentences a step")
    train_max_length: int = setting(32, "tokens of a sentence that student and teachers read")
    steps: int = setting(20, "steps a round; each round trains a new student on the same sentences")
    rounds: int = setting(5, "rounds of all five measurements in turn")
    output: str | None = setting(None, "write the result to this JSON file")


def training(
    student: SentenceTransformer,
    rows: Dataset,
    settings: TrainSettings,
    teachers: Sequence[SentenceTransformer] = (),
    texts: Dataset | None = None,
    *,
    past: bool = False,
) -> Callable[[], Any]:
    """Return a training of a copy of the student, ready to run, without scores and checkpoints."""
    student, limit = copy.deepcopy(student), settings.train_max_length
    keep, bf16 = "last" if past else None, uses_bf16(settings.bf16)
    loss = DistillCSELoss(student, teachers, texts, teacher_max_length=limit, bf16=bf16, keep=keep)  # type: ignore[arg-type]
    if past:
        loss.switch()
    trainer, _ = encoder_trainer(student, loss, rows, sts_sample().select(range(3)), settings)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    return trainer.train


def batches(rows: Dataset, settings: TrainSettings) -> list[list[str]]:
    """Return the texts of the batches that the training makes."""
    order = LengthBatchSampler(rows, settings.batch_size, drop_last=False, seed=settings.seed)
    return [rows[batch]["sentence1"] for batch in order]


@torch.no_grad()
def forward(model: SentenceTransformer, features: Sequence[dict[str, Any]], bf16: bool) -> None:
    """Run a model over batches of features."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        for batch in features:
            model(batch_to_device(dict(batch), model.device))


def read(model: SentenceTransformer, texts: Sequence[list[str]], limit: int, bf16: bool) -> None:
    """Tokenise batches of text and run a model over each."""
    for batch in texts:
        forward(model, [model.preprocess(batch, max_length=limit)], bf16)


def measure(
    student: SentenceTransformer,
    teachers: Sequence[SentenceTransformer],
    texts: Dataset,
    settings: TrainSettings,
    rounds: int,
) -> dict[str, list[float]]:
    """Time each of the five in turn, after one round that is not counted."""
    rows, limit, bf16 = prepare(texts), settings.train_max_length, uses_bf16(settings.bf16)
    words = batches(rows, settings)
    tokens = [student.preprocess(batch, max_length=limit) for batch in words]
    student.eval()

    def teachers_alone() -> None:
        """Run every teacher over all batches."""
        for teacher in teachers:
            read(teacher, words, limit, bf16)

    make: dict[str, Callable[[], Callable[[], Any]]] = {
        "without": partial(training, student, rows, settings),
        "with_teachers": partial(training, student, rows, settings, teachers, texts),
        "teachers_alone": lambda: teachers_alone,
        "with_past": partial(training, student, rows, settings, past=True),
        "past_alone": lambda: partial(forward, student, tokens, bf16),
    }
    times: dict[str, list[float]] = {name: [] for name in make}
    for number in range(rounds + 1):
        for name, prepared in make.items():
            times[name].append(seconds(prepared()))
        if number == 0:
            logger.info("%d more rounds, about %.0f s", rounds, rounds * sum(series[0] for series in times.values()))
    return {name: series[1:] for name, series in times.items()}


def compare(times: dict[str, list[float]], teacher: str, steps: int) -> dict[str, Any]:
    """Compare a training with a teacher with one without it and the teacher alone."""
    rounds = times[f"with_{teacher}"], times["without"], times[f"{teacher}_alone"]
    ratios = [both / (without + alone) for both, without, alone in zip(*rounds, strict=True)]
    names = ("with", "without", "alone")
    ms = {name: round(1000 * statistics.median(series) / steps, 1) for name, series in zip(names, rounds, strict=True)}
    return {
        "ms_per_step": ms,
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 3),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a line for each kind of teacher, write the JSON; return its content."""
    settings = parse(Settings, argv, __doc__ or "")
    check_counts(settings, "batch_size", "train_max_length", "steps", "rounds")
    texts = read_sentences(settings.data, settings.steps, settings.batch_size)
    student = load_student(settings.backbone, dropout=0.1)
    teachers = [load_teacher(name) for name in settings.teachers]
    with tempfile.TemporaryDirectory() as temporary:
        work = TrainSettings(
            output_dir=str(Path(temporary) / "model"),
            steps=settings.steps,
            batch_size=settings.batch_size,
            train_max_length=settings.train_max_length,
        )
        times = measure(student, teachers, texts, work, settings.rounds)
    costs = {teacher: compare(times, teacher, settings.steps) for teacher in ("teachers", "past")}
    for teacher, cost in costs.items():
        ms = "with {with} ms a step, without {without}, alone {alone}".format(**cost["ms_per_step"])
        print(f"{teacher}: {ms}; ratio {cost['ratio']} (goal {GOAL:g} or less)")
    result = {
        **costs,
        "goal": GOAL,
        "bf16": uses_bf16(work.bf16),
        "model": {"teachers": settings.teachers, "backbone": settings.backbone},
        "batch_size": settings.batch_size,
        "train_max_length": settings.train_max_length,
        "steps": settings.steps,
        "seed": work.seed,
        "data": {"source": settings.data, "rows": len(texts), "sha256": fingerprint(texts)},
        **stamp(),
    }
    save_result(settings.output, result)
    return result


if __name__ == "__main__":
    run_command(main)
