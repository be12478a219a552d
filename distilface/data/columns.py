"""The columns of a row: whether those to read are there, and hold text."""

from collections.abc import Iterable, Sequence
from typing import Any

from distilface.settings import InputError


def check_columns(names: Iterable[str], columns: Sequence[str], where: str) -> None:
    """Check that all ``columns`` are among ``names``.

    Raises:
        InputError: if one is missing.
    """
    for column in columns:
        if column not in names:
            raise InputError(f"{where}: no column {column!r}; found {', '.join(map(str, names)) or 'none'}")


def check_once(names: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Check that no column to read is named twice: which of the two is meant cannot be known.

    Raises:
        InputError: if one is.
    """
    for column in columns:
        if names.count(column) > 1:
            raise InputError(f"{where}: the column {column!r} is named {names.count(column)} times; rename the others")


def pick(row: dict[str, Any], columns: Sequence[str], where: str) -> dict[str, Any]:
    """Return the ``columns`` of a row.

    Raises:
        InputError: if one is missing, or holds nothing (``None``).
    """
    check_columns(row, columns, where)
    for column in columns:
        if row[column] is None:
            raise InputError(f"{where}: nothing in column {column!r}; fill it or leave the line out")
    return {column: row[column] for column in columns}


def checked_text(value: Any, where: str) -> str:
    """Return a value that is text.

    Raises:
        InputError: on a list, a number, bytes, half of a surrogate pair (JSON can hold each but bytes).
    """
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"{where}: {value!r:.60} is not text") from None
    return str(value)
