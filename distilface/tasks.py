"""MTEB's tasks by name: mteb's own task objects, with their data on the Hub or in local files."""

import contextlib
import copy
import gzip
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask
from mteb.abstasks.sts import AbsTaskSTS

from distilface.files import read_rows
from distilface.settings import InputError, check_known


def find_tasks(names: Sequence[str], data_dir: str | Path | None = None) -> list[AbsTask]:
    """Turn names of MTEB tasks and benchmarks into mteb's task objects, each once, in order.

    Args:
        names: tasks (``STS17``) and benchmarks (``MTEB(eng, v2)``).
        data_dir: a folder of ``<task>.jsonl`` or ``<task>.jsonl.gz`` with the columns ``sentence1``,
            ``sentence2`` and ``score``; the tasks then hold that data, and name the file and its sha256 (of
            the text, not of the gzip) where they named the Hub's data set. ``None`` leaves them to the Hub.

    Raises:
        InputError: on an unknown name (the nearest is named), a task that is not of text, or a file that is
            missing or malformed.
    """
    found: dict[str, AbsTask] = {}
    for name in names:
        tasks = _lookup(name)
        if not tasks:
            check_known([name], _known_names(), "task")
        found |= {task.metadata.name: task for task in tasks}
    for name, task in found.items():
        if set(task.modalities) != {"text"}:
            raise InputError(f"task {name} is not of text alone ({', '.join(task.modalities)}); leave it out")
    if data_dir is None:
        return list(found.values())
    return [_with_local_data(task, Path(data_dir)) for task in found.values()]


def data_sources(tasks: Sequence[AbsTask]) -> dict[str, Any]:
    """Return each task's data: ``path`` and ``revision``, the Hub's or a local file's name and sha256."""
    return {task.metadata.name: dict(task.metadata.dataset) for task in tasks}


def _lookup(name: str) -> list[AbsTask]:
    with contextlib.suppress(KeyError):
        return [mteb.get_task(name)]
    with contextlib.suppress(KeyError):
        return list(mteb.get_benchmark(name).tasks)
    return []


def _known_names() -> list[str]:
    tasks = mteb.get_tasks(modalities=["text"], exclude_superseded=False)
    return [*(task.metadata.name for task in tasks), *(b.name for b in mteb.get_benchmarks())]


def _read_pairs(file: Path) -> list[dict[str, Any]]:
    """Read rows of ``sentence1``, ``sentence2`` (text) and ``score`` (a number, higher is more similar)."""
    rows = []
    for number, row in enumerate(read_rows(file, ["sentence1", "sentence2", "score"]), 1):
        score = row["score"]
        if not (isinstance(row["sentence1"], str) and isinstance(row["sentence2"], str)):
            raise InputError(f"{file}, line {number}: sentence1 and sentence2 must be text")
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise InputError(f"{file}, line {number}: the score {score!r} is no number")
        rows.append({**row, "score": float(score)})
    if not rows:
        raise InputError(f"{file} is empty")
    if len({row["score"] for row in rows}) < 2:
        raise InputError(f"{file}: every pair has the score {rows[0]['score']}; there is nothing to rank")
    return rows


def _local_file(name: str, folder: Path) -> Path:
    for suffix in (".jsonl", ".jsonl.gz"):
        if (file := folder / f"{name}{suffix}").is_file():
            return file
    if not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist")
    raise InputError(f"{folder} holds no {name}.jsonl or {name}.jsonl.gz; name what it holds with --tasks")


def _with_local_data(task: AbsTask, folder: Path) -> AbsTask:
    """Return a copy of a task that holds a local file; mteb's benchmarks share their own objects."""
    name = task.metadata.name
    if not isinstance(task, AbsTaskSTS) or task.metadata.is_multilingual:
        raise InputError(f"task {name} is read from the Hub only; --data-dir serves STS in one language")
    file = _local_file(name, folder)
    rows = _read_pairs(file)
    content = file.read_bytes()
    checksum = hashlib.sha256(gzip.decompress(content) if file.suffix == ".gz" else content).hexdigest()
    source = {"path": file.name, "revision": f"sha256:{checksum}"}
    split = "test" if "test" in task.eval_splits else task.eval_splits[0]
    local = copy.copy(task).filter_eval_splits([split])
    local.metadata = task.metadata.model_copy(update={"dataset": source, "superseded_by": None})
    local.dataset = {"default": DatasetDict({split: Dataset.from_list(rows)})}
    local.data_loaded = True
    return local
