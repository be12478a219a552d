"""Tables on the console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def number_table(*heads: str, first: str = "", wrap_heads: bool = False, **style: Any) -> Table:
    """Return an empty table: a column of words under ``first``, then a column of numbers under each of ``heads``.

    Args:
        heads: of the columns of numbers.
        first: the head of the first column.
        wrap_heads: let long heads take several lines; a narrow terminal then wraps the numbers too.
        style: options of :class:`rich.table.Table`.
    """
    table = Table(**{"box": box.SIMPLE_HEAD, "collapse_padding": True, "pad_edge": False, **style})
    table.add_column(first, overflow="fold")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=not wrap_heads)
    return table


def console(width: int = 120) -> Console:
    """Return the console; ``width`` holds where the output is not a terminal, for rich would take 80 columns."""
    terminal = Console(highlight=False, markup=False)
    return terminal if terminal.is_terminal else Console(width=width, highlight=False, markup=False)


def percent_table(rows: Mapping[str, Mapping[str, float]], columns: Sequence[str], teacher: str | None) -> Table:
    """Return a table of scores: a column for each encoder, and beside it what it is of the teacher's, in per cent.

    Args:
        rows: the scores of each row by the encoders' names; one that is missing stays empty.
        columns: the encoders.
        teacher: its name among the columns, or ``None``. A row without its score is compared with that of the row
            before, so that a search in the teacher's index stands against the teacher's own.
    """
    heads = [head for name in columns for head in ([name, "%"] if teacher and name != teacher else [name])]
    table, base = number_table(*heads), None
    for label, scores in rows.items():
        base = scores.get(teacher, base) if teacher else None
        cells = []
        for name in columns:
            score = scores.get(name)
            cells.append("" if score is None else f"{score:.2f}")
            if teacher and name != teacher:
                cells.append("" if score is None or not base else f"{100 * score / base:.1f}")
        table.add_row(label, *cells)
    return table


def print_report(report: Mapping[str, Any]) -> None:
    """Print the table of a suite (a row a task, then the means) or of a search (a row a metric)."""
    rows = _rows(report["tasks"]) | report["means"] if "tasks" in report else report["scores"]
    columns = list(dict.fromkeys(name for scores in rows.values() for name in scores))
    console().print(percent_table(rows, columns, "teacher" if "teacher" in columns else None))


def _rows(tasks: Mapping[str, Any]) -> dict[str, Mapping[str, float]]:
    """Return the rows of tasks; one that is in no mean says so."""
    rows: dict[str, Mapping[str, float]] = {}
    for name, task in tasks.items():
        seen = "" if task["in_the_means"] else ", seen: in no mean"
        rows[f"{name} ({task['metric']}{seen})"] = task["scores"]
        if index := task.get("in_the_teachers_index"):
            rows[f"{name}, in the teacher's index"] = index
    return rows
