"""GLUE's tasks (arXiv 1804.07461): their columns, their metrics, and their rows from a folder or the Hub."""

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from distilface.data.columns import checked_text
from distilface.data.lines import existing_file
from distilface.data.rows import read_rows
from distilface.hub_ids import from_hub
from distilface.settings import InputError

HUB_GLUE = "nyu-mll/glue"
#: Two examples of STS-B whose scores (0 to 5) differ by more are negatives of each other. Our choice, a fifth of the
#: scale.
SCORE_MARGIN = 1.0
#: The seed of the split of every training set, the same for all ways and seeds.
SPLIT_SEED = 0
METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": accuracy_score,
    "f1": f1_score,
    "matthews": matthews_corrcoef,
    "pearson": lambda labels, predictions: pearsonr(labels, predictions).statistic,
    "spearman": lambda labels, predictions: spearmanr(labels, predictions).statistic,
}


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        columns: of its text.
        classes: their number; 0 is a score from 0 to 5.
        metrics: of :data:`METRICS`.
    """

    columns: tuple[str, ...]
    classes: int
    metrics: tuple[str, ...]

    @property
    def margin(self) -> float:
        """Labels that differ by more make negatives: another class, or a distant score."""
        return 0.0 if self.classes else SCORE_MARGIN

    def scores(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the task's metrics, x 100, and their mean as ``score``; equal predictions for all rows correlate by 0.

        Args:
            logits: shape (n, classes), or (n, 1) for a score.
            labels: shape (n).
        """
        predictions = logits.argmax(1) if self.classes else logits[:, 0]
        with warnings.catch_warnings(action="ignore"):
            values = {m: 100 * float(np.nan_to_num(METRICS[m](labels, predictions))) for m in self.metrics}
        return {**values, "score": sum(values.values()) / len(values)}


_PAIR = ("sentence1", "sentence2")
TASKS = {
    "cola": Task(("sentence",), 2, ("matthews",)),
    "sst2": Task(("sentence",), 2, ("accuracy",)),
    "mrpc": Task(_PAIR, 2, ("f1", "accuracy")),
    "stsb": Task(_PAIR, 0, ("pearson", "spearman")),
    "qnli": Task(("question", "sentence"), 2, ("accuracy",)),
    "rte": Task(_PAIR, 2, ("accuracy",)),
    "wnli": Task(_PAIR, 2, ("accuracy",)),
}


@dataclass(frozen=True)
class TaskData:
    """A task's rows.

    Attributes:
        task: whose rows they are.
        train: to train on.
        held_out: to choose the epoch by; from the training set too.
        validation: to report, once.
    """

    task: Task
    train: Dataset
    held_out: Dataset
    validation: Dataset

    def summary(self) -> dict[str, Any]:
        """Return the numbers of rows and their sha256, for the result."""
        splits = {"train": self.train, "held_out": self.held_out, "validation": self.validation}
        digest = hashlib.sha256(json.dumps([rows.to_list() for rows in splits.values()]).encode())
        return {**{name: len(rows) for name, rows in splits.items()}, "sha256": digest.hexdigest()[:16]}


def read_task(name: str, data_dir: str | None, held_out: int, max_train: int | None) -> TaskData:
    """Read a task, and hold out at most ``held_out`` rows, and a tenth, of its training set.

    Args:
        name: of :data:`TASKS`.
        data_dir: a folder of ``<task>/train.jsonl[.gz]`` and ``<task>/validation.jsonl[.gz]``; ``None`` is the Hub.
        held_out: rows to choose the epoch by.
        max_train: train on this many of the others, drawn at random; ``None`` on all.

    Raises:
        InputError: if a split cannot be read, is too small, or holds a label that the task does not have.
    """
    task = TASKS[name]
    train, validation = (Dataset.from_list(list(_rows(name, split, data_dir))) for split in ("train", "validation"))
    if len(train) < 20 or len(validation) < 2:
        raise InputError(f"{name}: {len(train)} rows to train on and {len(validation)} to validate on are too few")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(train))
    aside = min(held_out, len(train) // 10)
    rest = order[aside:] if max_train is None else order[aside : aside + max_train]
    return TaskData(task, train.select(rest), train.select(order[:aside]), validation)


def _rows(name: str, split: str, data_dir: str | None) -> Iterator[dict[str, Any]]:
    """Yield the rows of one split, checked: the text columns and ``label``."""
    task = TASKS[name]
    columns = [*task.columns, "label"]
    rows = _local(name, split, data_dir, columns) if data_dir else _from_hub(name, split, columns)
    for number, row in enumerate(rows, 1):
        where = f"{name}, {split}, row {number}"
        for column in task.columns:
            checked_text(row[column], f"{where}, column {column!r}")
        yield {**row, "label": _label(row["label"], task.classes, where)}


def _local(name: str, split: str, data_dir: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    folder = Path(data_dir) / name
    file = folder / f"{split}.jsonl.gz"
    rows = read_rows(file if file.is_file() else existing_file(folder / f"{split}.jsonl"), columns)
    return (row for _, row in rows)


def _from_hub(name: str, split: str, columns: list[str]) -> Iterator[dict[str, Any]]:
    remedy = "connect, or give its files with --data-dir"
    folder = from_hub(HUB_GLUE, "dataset", f"the data set {HUB_GLUE}", remedy, allow_patterns=f"{name}/{split}-*")
    files = sorted(map(str, (folder / name).glob(f"{split}-*.parquet")))
    if not files:
        raise InputError(f"the data set {HUB_GLUE} has no {name}/{split}-*.parquet; {remedy}")
    yield from Dataset.from_parquet(files).select_columns(columns)


def _label(value: Any, classes: int, where: str) -> float | int:
    """Return a label as a class or a score, checked."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"{where}: the label {value!r} is not a number")
    if classes and value not in range(classes):
        raise InputError(f"{where}: the label {value} is not one of the task's, 0 to {classes - 1}")
    return int(value) if classes else float(value)
