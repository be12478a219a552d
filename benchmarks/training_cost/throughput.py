"""Measure what training costs: the package's trainer against a bare PyTorch loop, and the teacher in bf16 and fp32.

    python benchmarks/run_throughput.py --output benchmarks/results/throughput.json

EXPECTED
Both loops distil the same sentences into the same student: the same batches in the same order, tokenised as they
come, the same autocast, AdamW, schedule and gradient clipping. They take turns, so that a change of the machine's
speed meets both. The goal is a ratio (trainer / bare) of 0.9 or more. About five minutes on 2 cores that do nothing
else; the first pair of each comparison is not counted, and says how long the others take.
"""

import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.samples import sts_sample
from distilface.data.texts import fingerprint, read_texts
from distilface.embedding.teacher_cache import embed
from distilface.environment import stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.embedding import check_widths, make_loss, prepare
from distilface.model.pooling import is_normalized
from distilface.model.precision import has_bf16
from distilface.settings import InputError, parse, setting
from distilface.storage import save_result
from distilface.training.batches import LengthBatchSampler
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher
from distilface.training.trainer import use_cpu_well

GOAL = 0.9


@dataclass
class Settings:
    """What the benchmark can be told."""

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


def train_bare(student: SentenceTransformer, rows: Dataset, labels: torch.Tensor, settings: TrainSettings) -> None:
    """Distil by a loop as one would write it by hand: cosine to the teacher, nothing from the package's trainer."""
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


def train_packaged(student: SentenceTransformer, rows: Dataset, settings: TrainSettings) -> Callable[[], Any]:
    """Set the package's trainer up for the same work and return what runs it, without scores and checkpoints."""
    dev = sts_sample().select(range(3))
    trainer, _ = encoder_trainer(student, make_loss(student, rows, "cosine"), rows, dev, settings)
    trainer.args.eval_strategy = trainer.args.save_strategy = "no"
    return trainer.train


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    """Run and time; what it prints of its progress is not shown."""
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        began = time.perf_counter()
        work(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began


def rates(times: list[float], **amounts: int) -> dict[str, Any]:
    """Turn the seconds of the rounds into medians of each amount a second."""
    median = statistics.median(times)
    return {f"{name}_per_second": round(amount / median, 1) for name, amount in amounts.items()} | {
        "seconds": [round(t, 3) for t in times]
    }


def against(name: str, one: list[float], other_name: str, other: list[float], **amounts: int) -> dict[str, Any]:
    """Put two series of rounds side by side; a ratio above 1 says that ``name`` is faster."""
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
            print(f"training: {rounds} more pairs, about {rounds * (packaged[0] + bare[0]):.0f} s", file=sys.stderr)
    amounts = {"sentences": len(rows), "tokens": sum(map(len, lengths))}
    return against("trainer", packaged[1:], "bare", bare[1:], **amounts)


def compare_teacher(teacher: SentenceTransformer, texts: Dataset, folder: Path, rounds: int) -> dict[str, Any]:
    """Embed the same sentences in bf16 and fp32 in turn, after one pair that is not counted, with no cache."""
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds + 1):
        for bf16 in (True, False):
            times[bf16].append(seconds(partial(embed, bf16=bf16), teacher, texts, folder / f"{number}-{bf16}"))
        if number == 0:
            one = times[True][0] + times[False][0]
            print(f"teacher: {rounds} more pairs, about {rounds * one:.0f} s", file=sys.stderr)
    return against("bf16", times[True][1:], "fp32", times[False][1:], sentences=len(texts))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure both, print the two lines, write the JSON; return what stands in it."""
    settings = parse(Settings, argv, __doc__ or "")
    for name in ("batch_size", "train_max_length", "steps", "rounds", "teacher_sentences", "teacher_rounds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be 1 or more")
    needed = settings.steps * settings.batch_size
    texts = read_texts(settings.data, needed)
    if len(texts) < needed:
        raise InputError(
            f"{settings.steps} steps of {settings.batch_size} need {needed} sentences and there are {len(texts)}"
        )
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
        sample = texts.select(range(min(settings.teacher_sentences, needed)))
        of_teacher = compare_teacher(teacher, sample, folder, settings.teacher_rounds)
    shown = "trainer {0[sentences_per_second]:,.0f}, bare loop {1[sentences_per_second]:,.0f} sentences/s"
    print(f"training: {shown.format(training['trainer'], training['bare'])}, ratio {training['ratio']} (goal {GOAL})")
    shown = "bf16 {0[sentences_per_second]:,.0f}, fp32 {1[sentences_per_second]:,.0f} sentences/s"
    print(f"teacher: {shown.format(of_teacher['bf16'], of_teacher['fp32'])}, ratio {of_teacher['ratio']}")
    result = {
        "training": {**training, "bf16": work.bf16 == "yes", "goal": GOAL},
        "teacher": of_teacher,
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
        "data": {"source": settings.data, "rows": needed, "sha256": fingerprint(texts)},
        **stamp(),
    }
    save_result(settings.output, result)
    return result


if __name__ == "__main__":
    run_command(main)
