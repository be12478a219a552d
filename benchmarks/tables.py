"""Tables on the console."""

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
