"""A suite of tasks in a folder: ``tasks.json`` and a file of JSON lines for each task."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteb.abstasks import AbsTask

from distilface.evaluation.local_tasks import KINDS, make_task
from distilface.evaluation.suite_rows import READERS
from distilface.evaluation.tasks import checksum, data_file
from distilface.json_files import read_json
from distilface.settings import InputError, check_known

#: The largest share of a task's text that may stand in training text for the task to count in a mean.
SEEN = 0.05


@dataclass(frozen=True)
class SuiteTask:
    """A task of a suite.

    Attributes:
        name: of the task, and of its file.
        type: a key of :data:`distilface.evaluation.local_tasks.KINDS`.
        task: for mteb, with its data.
        file: of the data.
        sha256: of the file's text, in hex.
        seen: the share of its text that stands in training text.
    """

    name: str
    type: str
    task: AbsTask
    file: Path
    sha256: str
    seen: float = 0.0

    @property
    def counts(self) -> bool:
        """Whether the task counts in the means."""
        return self.seen <= SEEN


def read_suite(folder: str | Path) -> list[SuiteTask]:
    """Read a suite: all its files, so that a mistake is found before a model is loaded.

    Args:
        folder: with ``tasks.json``, a list of objects with ``name`` and ``type`` and, where they apply,
            ``samples_per_label`` (default 8) and ``seen``; and ``<name>.jsonl`` or ``<name>.jsonl.gz`` for each.

    Raises:
        InputError: without ``tasks.json``, on an unknown type (the nearest is named), or a file that is missing or
            malformed (with the line).
    """
    file = Path(folder) / "tasks.json"
    if not file.is_file():
        raise InputError(f"{folder} is not a suite: it has no tasks.json")
    entries = read_json(file)
    if not isinstance(entries, list) or not entries:
        raise InputError(f"{file} is not a list of tasks, each an object with name and type")
    tasks = [_read_task(entry, file) for entry in entries]
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"{file} names the task {twice!r} {names.count(twice)} times; leave one")
    return tasks


def _read_task(entry: Any, file: Path) -> SuiteTask:
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("name", "type")):
        raise InputError(f"{file}: {entry!r:.60} is not an object with name and type")
    name, kind = entry["name"], entry["type"]
    check_known([kind], list(KINDS), f"type of the task {name} in {file}:")
    if (rows := data_file(name, file.parent)) is None:
        raise InputError(f"{file.parent} holds no {name}.jsonl or {name}.jsonl.gz, which tasks.json names")
    sha256 = checksum([rows])
    settings = {"samples_per_label": _samples(entry, file)} if kind == "classification" else {}
    source = {"path": rows.name, "revision": f"sha256:{sha256}"}
    task = make_task(name, KINDS[kind], READERS[kind](rows), source, **settings)
    return SuiteTask(name, kind, task, rows, sha256, float(entry.get("seen", 0)))


def _samples(entry: dict[str, Any], file: Path) -> int:
    samples = entry.get("samples_per_label", 8)
    if not isinstance(samples, int) or samples < 1:
        raise InputError(f"{file}: samples_per_label {samples!r} of {entry['name']} is not a number from 1")
    return samples
