"""Say where the time of one training step goes, and what the trainer adds to a bare loop, on the grid of 4 bits.

    python -m benchmarks.training_cost.step --length 12 --output benchmarks/results/step-cost.json

Trainer and bare loop (:mod:`benchmarks.training_cost.throughput`) take turns on copies of a student whose weights are
rounded in every pass; then the trainer alone runs under torch's profiler. The targets are random unit vectors, which
cost what a teacher's cost once these are on disk. The output keeps what was measured of other lengths. Minutes each.
"""

import copy
import inspect
import logging
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks.checks import check_counts, check_file
from benchmarks.files import add_result
from benchmarks.training_cost.common import read_sentences, seconds
from benchmarks.training_cost.throughput import against, train_bare, train_packaged
from distilface.compression.bits import Rounding, table_bits
from distilface.console import run_command
from distilface.environment import processor, stamp
from distilface.model.folder import load
from distilface.model.precision import has_bf16
from distilface.settings import InputError, parse, setting
from distilface.training.settings import TrainSettings
from distilface.training.trainer import use_cpu_well

logger = logging.getLogger("distilface.benchmarks.training_cost")

#: The part of a step that an operator belongs to, by how its name or one around it begins; the outermost counts.
RANGES = {
    "enumerate(DataLoader)": "reading and tokenizing",
    "Optimizer.step": "optimizer",
    "_Straight": "rounding",
    "aten::_unique2": "rounding",
    "aten::embedding_dense_backward": "gradient of the tables",
    "aten::linalg_vector_norm": "clipping the gradient",
    "aten::_foreach_norm": "clipping the gradient",
    "aten::_foreach_mul_": "clipping the gradient",
    "aten::bmm": "attention",
    "aten::softmax": "attention",
    "aten::_softmax": "attention",
    "aten::_softmax_backward_data": "attention",
    "aten::linear": "linear maps",
    "aten::addmm": "linear maps",
    "aten::mm": "linear maps",
}
OTHER, PYTHON = "other operators", "Python and the trainer"


@dataclass
class StepSettings:
    """Options of ``step``."""

    student: str = setting("models/minilm-5mb", "a folder on the grid of 4 bits: its shape is what is trained")
    data: list[str] = setting(["python"], "text, as training reads it; 'python' is Python's own documentation")
    length: int = setting(1, "sentences of one text, joined: 1 for short texts, 12 for passages")
    batch_size: int = setting(32, "texts a step")
    train_max_length: int = setting(256, "tokens of a text that training reads")
    steps: int = setting(4, "steps a round, of which the first, with the start, is not counted")
    rounds: int = setting(5, "pairs of rounds, trainer and bare loop in turn")
    output: str | None = setting(None, "add the result to this JSON file")


def made_up(settings: StepSettings, width: int) -> Dataset:
    """Return texts beside random unit vectors."""
    count = settings.steps * settings.batch_size
    sentences = read_sentences(settings.data, 1, count * settings.length)["text"][:]
    texts = [" ".join(sentences[row::count][: settings.length]) for row in range(count)]
    targets = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    targets /= np.linalg.norm(targets, axis=1, keepdims=True)
    return Dataset.from_dict({"text": texts, "label": list(targets)}).with_format("torch")


def rounded(student: SentenceTransformer) -> SentenceTransformer:
    """Return a copy that computes with rounded weights."""
    model = copy.deepcopy(student)
    encoder: Any = model[0]
    Rounding(model, table_bits(encoder.model.get_input_embeddings()))
    return model


class _AtEachEnd(TrainerCallback):
    """Calls a function after each step, with the step's number and the last one's."""

    def __init__(self, ended: Callable[[int, int], Any]) -> None:
        self.ended = ended

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Call it."""
        self.ended(state.global_step, state.max_steps)


def paired(student: SentenceTransformer, rows: Dataset, work: TrainSettings) -> tuple[float, float]:
    """Train a copy by the trainer and one by the bare loop; return the seconds of each from its first step's end."""
    labels = torch.as_tensor(rows["label"][:])
    ours: list[float] = []
    theirs: list[float] = []
    clock = _AtEachEnd(lambda *_: ours.append(time.perf_counter()))
    seconds(train_packaged(rounded(student), rows, work, [clock]))
    seconds(train_bare, rounded(student), rows, labels, work, lambda: theirs.append(time.perf_counter()))
    return ours[-1] - ours[0], theirs[-1] - theirs[0]


def part_of(event: Any) -> str:
    """Return the part of the step that an operator of the profiler belongs to."""
    part = OTHER
    while event is not None:
        part = next((known for name, known in RANGES.items() if event.name.startswith(name)), part)
        event = event.cpu_parent
    return part


def shares(events: Any, total: float) -> dict[str, float]:
    """Return the share of each part of a step: of the profiler's events, in microseconds, and of the time beside them.

    Args:
        events: of the profiler.
        total: microseconds from the first event to the last.
    """
    spent: defaultdict[str, float] = defaultdict(float)
    for event in events:
        spent[part_of(event)] += event.self_cpu_time_total
    spent[PYTHON] = max(0.0, total - sum(spent.values()))
    return {part: round(time / total, 3) for part, time in sorted(spent.items(), key=lambda item: -item[1])}


def profile_steps(student: SentenceTransformer, rows: Dataset, work: TrainSettings) -> dict[str, float]:
    """Return the shares of the parts of a step of the trainer."""
    profiler = profile(activities=[ProfilerActivity.CPU])

    def ended(step: int, last: int) -> None:
        """Start after the first step, in which memory is allocated; stop after the last."""
        if step == 1:
            profiler.start()
        elif step == last:
            profiler.stop()

    seconds(train_packaged(rounded(student), rows, work, [_AtEachEnd(ended)]))
    events = profiler.events()
    total = max(event.time_range.end for event in events) - min(event.time_range.start for event in events)
    return shares(events, total)


def run(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the shares, add to the JSON; return what was measured."""
    settings = parse(StepSettings, argv, inspect.getdoc(StepSettings) or "")
    check_counts(settings, "length", "batch_size", "train_max_length", "steps", "rounds")
    check_file(settings.output)
    if settings.steps < 2:
        raise InputError("--steps 1 is too few: the profiler leaves the first one out; give 2 or more")
    student = load(Path(settings.student))
    use_cpu_well(student)
    rows = made_up(settings, student.get_embedding_dimension() or 0)
    tokens = sum(
        map(len, student.tokenizer(rows["text"][:], truncation=True, max_length=settings.train_max_length)["input_ids"])
    )
    with tempfile.TemporaryDirectory() as temporary:
        work = TrainSettings(
            output_dir=f"{temporary}/model",
            steps=settings.steps,
            batch_size=settings.batch_size,
            train_max_length=settings.train_max_length,
            bf16="yes" if has_bf16() else "no",
        )
        taken = [paired(student, rows, work) for _ in range(settings.rounds)]
        parts = profile_steps(student, rows, work)
    ours, theirs = (list(times) for times in zip(*taken, strict=True))
    steps = settings.steps - 1
    counted = {"sentences": steps * settings.batch_size, "tokens": tokens * steps // settings.steps}
    result = {
        **against("trainer", ours, "bare", theirs, **counted),
        "seconds_a_step": round(statistics.median(ours) / steps, 3),
        "tokens_a_text": round(tokens / len(rows), 1),
        "shares": parts,
        "settings": vars(settings) | {"output": None},
        **stamp(),
    }
    print(f"ratio {result['ratio']}, {result['tokens_a_text']} tokens a text")
    for part, share in parts.items():
        print(f"{part:26} {100 * share:5.1f}%")
    add_result(settings.output, f"{processor()}, {settings.length} sentences a text", result)
    return result


if __name__ == "__main__":
    run_command(run)
