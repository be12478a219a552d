"""The table of a comparison: a block for each league, and below it the sources."""

from itertools import groupby

from rich.console import Console

from benchmarks.sts.comparison import MEASURED, Row
from distilface.evaluation.scores import STS_TASKS, means
from distilface.evaluation.tables import console, number_table

HEADS = {"STSBenchmark": "STS-B"}


def _cell(value: float | None, form: str = "{:.2f}") -> str:
    return "–" if value is None else form.format(value)


def _cells(row: Row, tasks: list[str], sources: list[str]) -> list[str]:
    millions = None if row.parameters is None else row.parameters / 1e6
    source = f"[{sources.index(row.source) + 1}]" if row.source else ""
    size = [_cell(millions, "{:.1f}M"), _cell(row.megabytes, "{:.0f}")]
    scores = [*(row.scores.get(task) for task in tasks), *means(row.scores).values()]
    return [row.label, *size, *map(_cell, scores), source]


def print_table(rows: list[Row]) -> None:
    """Print the comparison.

    The columns are the STS tasks that the first row has; its other tasks follow in a table of their own.
    """
    out = console()
    tasks = [task for task in STS_TASKS if task in rows[0].scores]
    sources = list(dict.fromkeys(row.source for row in rows if row.source))
    if tasks:
        table = number_table("params", "MB", *(HEADS.get(task, task) for task in tasks), "mean 5", "mean 7", "")
        for league, members in groupby(rows, lambda row: row.league):
            table.add_row(f"{league}:", style="bold")
            for row in members:
                table.add_row(*_cells(row, tasks, sources), style="cyan" if row.role == "model" else "")
            table.add_section()
        out.print(table)
        out.print("mean 5: STS12-15 and STS-B, the tasks of the DistilFace paper; mean 7: all seven")
        for number, source in enumerate(sources, 1):
            out.print(f"[{number}] {source}")
    _print_others(out, [row for row in rows if row.league == MEASURED])


def _print_others(out: Console, rows: list[Row]) -> None:
    others = [task for task in rows[0].scores if task not in STS_TASKS]
    if not others:
        return
    table = number_table(*(row.label for row in rows), first="task", wrap_heads=True)
    for task in others:
        table.add_row(task, *(_cell(row.scores.get(task)) for row in rows))
    out.print(table)
