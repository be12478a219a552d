"""Measure what training costs: the package's trainer against a bare PyTorch loop, and the teacher in bf16 and fp32.

    python benchmarks/run_throughput.py --output benchmarks/results/throughput.json

Both loops distil the same sentences into the same student: the same batches in the same order, tokenised as they
come, the same autocast, AdamW, schedule and gradient clipping. They take turns, so that a change of the machine's
speed affects both. The goal is a ratio (trainer / bare) of 0.9 or more. About five minutes on 2 cores that do nothing
else; the first pair of each comparison is not counted, and says how long the others take. ``python -m
benchmarks.training_cost.throughput`` is the same command.
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
from transformers import TrainerCallback

from benchmarks.checks import check_counts
from benchmarks.files import save_result
from benchmarks.training_cost.common import read_sentences, seconds
from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.fingerprints import fingerprint
from distilface.data.samples import sts_sample
from distilface.embedding.teacher_cache import embed
from distilface.environment import stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.embedding import check_widths, make_loss, prepare
from distilface.model.pooling import is_normalized
from distilface.model.precision import has_bf16
from distilface.settings import parse, setting
from distilface.training.batches import LengthBatchSampler
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher
from distilface.training.trainer import use_cpu_well

logger = logging.getLogger("distilface.benchmarks.training_cost")

GOAL = 0.9


@dataclass
class Settings:
    """Options of the benchmark."""

    data: list[str] = setting(["python"], "text, as training reads it; 'python' is Python's own documentation")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder")
    backbone: str | None = setting(None, "a Hub id or folder the student is made of; default: the teacher")
    layers: list[int] = setting([0, 2, 5], "the student's layers, cut from the backbone")
    batch_size: int = setting(128, "sentences a step")
    train_max_length: int = setting(64, "tokens of a sentence that training reads")
    steps: int = setting(60, "steps a round; each round trains a new student on the same sentences")
    rounds: int = setting(5, "pairs of rounds, trainer and bare loop in turn")
    teacher_sentences: int = setting(768, "sentences a pass of the teacher")
    teacher_rounds: int = setting(3, "pairs of passes of the teacher, bf16 and fp32 in turn")
    output: str | None = setting(None, "write the result to this JSON file")


def train_bare(
    student: SentenceTransformer,
    rows: Dataset,
    labels: torch.Tensor,
    settings: TrainSettings,
    ended: Callable[[], Any] = lambda: None,
) -> None:
    """Distil by a loop as one writes it by hand: cosine to the teacher, nothing from the package's trainer.

    Args:
        student: what is trained.
        rows: with the column ``text``.
        labels: the teacher's embeddings of the rows.
        settings: how to train.
        ended: called after each step.
    """
    encoder: Any = student[0].model
    tokenizer, texts = student.tokenizer, rows["text"][:]
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / settings.steps)
    encoder.train()
    for batch in LengthBatchSampler(rows, settings.batch_size, drop_last=False, seed=settings.seed):
        inputs = tokenizer(
            [texts[i] for i in batch],
            padding=True,
            truncation=True,
            max_length=settings.train_max_length,
            return_tensors="pt",
        ).to(encoder.device)
        with torch.autocast(encoder.device.type, torch.bfloat16, enabled=settings.bf16 == "yes"):
            tokens = encoder(**inputs).last_hidden_state
            mask = inputs["attention_mask"].unsqueeze(-1).to(tokens.dtype)
            embeddings = (tokens * mask).sum(1) / mask.sum(1)
            target = labels[batch].to(encoder.device)
            loss = (1 - torch.nn.functional.cosine_similarity(embeddings, target)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        ended()


def train_packaged(
    student: SentenceTransformer, rows: Dataset, settings: TrainSettings, callbacks: Sequence[TrainerCallback] = ()
) -> Callable[[], Any]:
    """Return the package's trainer on the same work, ready to run, without scores and checkpoints."""
    dev = sts_sample().select(range(3))
    trainer, _ = encoder_trainer(student, make_loss(student, rows, "cosine"), rows, dev, settings, callbacks)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    return trainer.train


def rates(times: list[float], **amounts: int) -> dict[str, Any]:
    """Return the median of each amount a second, and the seconds of every round."""
    median = statistics.median(times)
    return {f"{name}_per_second": round(amount / median, 1) for name, amount in amounts.items()} | {
        "seconds": [round(t, 3) for t in times]
    }


def against(name: str, one: list[float], other_name: str, other: list[float], **amounts: int) -> dict[str, Any]:
    """Compare two series of rounds; with a ratio above 1 ``name`` is faster."""
    ratios = [theirs / ours for ours, theirs in zip(one, other, strict=True)]
    return {
        name: rates(one, **amounts),
        other_name: rates(other, **amounts),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio": round(statistics.median(ratios), 3),
    }


def compare_training(
    student: SentenceTransformer, rows: Dataset, settings: TrainSettings, rounds: int
) -> dict[str, Any]:
    """Train new copies of the student, trainer and bare loop in turn, after one pair that is not counted."""
    labels = torch.as_tensor(rows["label"][:])
    lengths = student.tokenizer(rows["text"][:], truncation=True, max_length=settings.train_max_length)["input_ids"]
    packaged, bare = [], []
    for number in range(rounds + 1):
        one, other = copy.deepcopy(student), copy.deepcopy(student)
        packaged.append(seconds(train_packaged(one, rows, settings)))
        bare.append(seconds(train_bare, other, rows, labels, settings))
        if number == 0:
            logger.info("training: %d more pairs, about %.0f s", rounds, rounds * (packaged[0] + bare[0]))
    amounts = {"sentences": len(rows), "tokens": sum(map(len, lengths))}
    return against("trainer", packaged[1:], "bare", bare[1:], **amounts)


def compare_teacher(teacher: SentenceTransformer, texts: Dataset, folder: Path, rounds: int) -> dict[str, Any]:
    """Embed the same sentences in bf16 and fp32 in turn, after one pair that is not counted, with no cache."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds + 1):
        for bf16 in (True, False):
            times[bf16].append(seconds(partial(embed, bf16=bf16), teacher, texts, folder / f"{number}-{bf16}"))
        if number == 0:
            pair = times[True][0] + times[False][0]
            logger.info("teacher: %d more pairs, about %.0f s", rounds, rounds * pair)
    return against("bf16", times[True][1:], "fp32", times[False][1:], sentences=len(texts))


def speeds(comparison: dict[str, Any], *names: str) -> str:
    """Format the medians of a comparison."""
    return ", ".join(f"{name} {comparison[name]['sentences_per_second']:,.0f}" for name in names) + " sentences/s"


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure both, print the two lines, write the JSON; return its content."""
    settings = parse(Settings, argv, __doc__ or "")
    counts = ("batch_size", "train_max_length", "steps", "rounds", "teacher_sentences", "teacher_rounds")
    check_counts(settings, *counts)
    texts = read_sentences(settings.data, settings.steps, settings.batch_size)
    teacher = load_teacher(settings.teacher)
    student = load_student(
        settings.backbone or settings.teacher, settings.layers, normalize=is_normalized(teacher), dropout=0.0
    )
    check_widths(student, teacher, projection=False)
    use_cpu_well(student)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rows = prepare(texts, teacher, folder)
        work = TrainSettings(
            output_dir=str(folder / "model"),
            steps=settings.steps,
            batch_size=settings.batch_size,
            train_max_length=settings.train_max_length,
            learning_rate=3e-4,
            bf16="yes" if has_bf16() else "no",
        )
        training = compare_training(student, rows, work, settings.rounds)
        sample = texts.select(range(min(settings.teacher_sentences, len(texts))))
        embedding = compare_teacher(teacher, sample, folder, settings.teacher_rounds)
    print(f"training: {speeds(training, 'trainer', 'bare')}, ratio {training['ratio']} (goal {GOAL})")
    print(f"teacher: {speeds(embedding, 'bf16', 'fp32')}, ratio {embedding['ratio']}")
    result = {
        "training": {**training, "bf16": work.bf16 == "yes", "goal": GOAL},
        "teacher": embedding,
        "model": {
            "teacher": settings.teacher,
            "backbone": settings.backbone or settings.teacher,
            "layers": settings.layers,
            "parameters": sum(p.numel() for p in student.parameters()),
        },
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
