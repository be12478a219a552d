"""One table of models: those measured here, then published peers under the league of their training data."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table

from distilface.compression.student import load_student
from distilface.evaluation.scores import STS_TASKS, Scored, means, model_size
from distilface.hub_ids import resolve
from distilface.model.loading import load_model
from distilface.settings import InputError

PEERS = Path(__file__).parent / "peers.yaml"
MEASURED = "measured here"
HEADS = {"STSBenchmark": "STS-B"}
#: What scores a model, as :func:`distilface.evaluation.scores.evaluate` with all but the model filled in.
Scorer = Callable[[Scored], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One model of a comparison.

    Attributes:
        name: its Hub id, or what to call it.
        league: :data:`MEASURED`, or what a published model learned from.
        scores: per task, times 100.
        parameters: how many, or ``None`` where it is not known.
        megabytes: of its weights, or ``None``.
        role: ``model``, ``teacher`` or ``untrained`` for what is measured here, else ``peer``.
        source: where a published score stands, and on whose test set.
    """

    name: str
    league: str
    scores: dict[str, float]
    parameters: float | None = None
    megabytes: float | None = None
    role: str = "peer"
    source: str = ""

    @property
    def label(self) -> str:
        """The name without its owner or folder; a teacher is marked as one."""
        mark = " (teacher)" if self.role == "teacher" else ""
        return self.name.rstrip("/").rpartition("/")[2] + mark

    def as_dict(self) -> dict[str, Any]:
        """Return what a results file keeps of a row."""
        return {
            "name": self.name,
            "role": self.role,
            "scores": self.scores,
            **means(self.scores),
            "parameters": self.parameters,
            "megabytes": self.megabytes,
        }


def published() -> list[Row]:
    """Read the published peers of ``peers.yaml``, the leagues in its order."""
    peers = yaml.safe_load(PEERS.read_text(encoding="utf-8"))
    return [
        Row(
            name=peer["name"],
            league=peer["league"],
            scores=peer["scores"],
            parameters=peer["parameters"],
            megabytes=peer.get("megabytes"),
            source=f"{peer['source']}; test set: {peer['test_set']}",
        )
        for peer in peers
    ]


def measure(name: str, model: Scored, role: str, score: Scorer) -> Row:
    """Score and weigh one model."""
    print(f"scoring {name} ({role})", file=sys.stderr)
    size = model_size(model)
    return Row(name, MEASURED, score(model), size["parameters"], size["megabytes"], role)


def measure_relatives(folder: str, run: dict[str, Any], score: Scorer) -> list[Row]:
    """Score the teacher and the untrained self of a folder; one that cannot be had is left out and named.

    Args:
        folder: the trained model.
        run: its ``run.json``: ``teacher`` and ``baseline_model`` (each an id, a folder or ``None``), and how
            the untrained self was made of the latter: ``layers`` and ``settings["pooling"]``.
        score: what scores a model.
    """
    rows = []
    if run.get("teacher"):
        try:
            rows.append(measure(run["teacher"], resolve(run["teacher"]), "teacher", score))
        except InputError as problem:
            print(f"without its teacher: {problem}", file=sys.stderr)
    if run.get("baseline_model"):
        pooling = run.get("settings", {}).get("pooling", "mean")
        length = load_model(folder).max_seq_length
        try:
            untrained = load_student(run["baseline_model"], run.get("layers"), pooling, max_seq_length=length)
            rows.append(measure(f"{Path(folder).name}, untrained", untrained, "untrained", score))
        except InputError as problem:
            print(f"without its untrained self: {problem}", file=sys.stderr)
    return rows


def _cell(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)


def _cells(row: Row, tasks: list[str], sources: list[str]) -> list[str]:
    millions = None if row.parameters is None else row.parameters / 1e6
    note = f"[{sources.index(row.source) + 1}]" if row.source else ""
    scores = [_cell(row.scores.get(task)) for task in tasks]
    sums = [_cell(mean) for mean in means(row.scores).values()]
    size = [_cell(millions, "{:.1f}M"), _cell(row.megabytes, "{:.0f}")]
    return [row.label, *size, *scores, *sums, note]


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(width=120, highlight=False, markup=False)


def print_table(rows: list[Row]) -> None:
    """Print the comparison, one block a league, and below it the sources.

    The columns are the STS tasks that the first row has; tasks beyond these follow in a table of their own.
    """
    console = _console()
    tasks = [task for task in STS_TASKS if task in rows[0].scores]
    sources = list(dict.fromkeys(row.source for row in rows if row.source))
    if tasks:
        table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("")
        for head in ("params", "MB", *(HEADS.get(task, task) for task in tasks), "mean 5", "mean 7", ""):
            table.add_column(head, justify="right", no_wrap=True)
        for league, members in groupby(rows, lambda row: row.league):
            table.add_row(f"{league}:", style="bold")
            for row in members:
                table.add_row(*_cells(row, tasks, sources), style="cyan" if row.role == "model" else "")
            table.add_section()
        console.print(table)
        console.print("mean 5: STS12-15 and STS-B, the tasks of the DistilFace paper; mean 7: all seven")
        for number, source in enumerate(sources, 1):
            console.print(f"[{number}] {source}")
    _print_others(console, [row for row in rows if row.league == MEASURED])


def _print_others(console: Console, rows: list[Row]) -> None:
    others = [task for task in rows[0].scores if task not in STS_TASKS]
    if not others:
        return
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("task")
    for row in rows:
        table.add_column(row.label, justify="right")
    for task in others:
        table.add_row(task, *(_cell(row.scores.get(task)) for row in rows))
    console.print(table)
