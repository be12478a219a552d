"""The one reader of rows: .txt, .csv, .tsv, .jsonl (each also .gz) and .parquet, with the place of every mistake."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from distilface.data.columns import check_once, checked_text, pick
from distilface.data.lines import decoded_lines, existing_file, kind_of, table_lines
from distilface.data.parquet import parquet_rows
from distilface.settings import InputError

#: The longest field of a table, in characters: the largest number that fits a C long on every platform.
_LONGEST = 2**31 - 1


def read_rows(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a .csv, .tsv, .jsonl (each also .gz) or .parquet file, each with its place for messages.

    A place is ``FILE, line 3`` (the line that a row begins in), of a .parquet ``FILE, row 3``. A row is a dictionary of
    ``columns``. A blank line of a table with one column is a row with an empty text; of other files it is not a row.

    Raises:
        InputError: if the file does not exist, is not UTF-8, lacks a column, names one twice, or is damaged (with the
            place).
    """
    path = existing_file(path)
    kind, unit = kind_of(path), "line"
    if kind == ".txt":
        kinds = ".csv, .tsv, .jsonl or .parquet"
        raise InputError(f"{path}: a .txt has no columns; {', '.join(columns)} are read from {kinds}")
    if kind == ".parquet":
        rows, unit = parquet_rows(path, columns, str(path)), "row"
    else:
        rows = _json_rows(path, columns) if kind == ".jsonl" else _table_rows(path, columns)
    for number, row in rows:
        where = f"{path}, {unit} {number}"
        yield where, pick(row, columns, where)


def read_objects(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of a .jsonl (or .gz) file with all that they hold, each with its place; each has ``columns``.

    Raises:
        InputError: as :func:`read_rows`, and on a file of another kind.
    """
    path = existing_file(path)
    if kind_of(path) != ".jsonl":
        raise InputError(f"{path} is not a .jsonl or .jsonl.gz file; write its rows as JSON lines")
    for number, row in _json_rows(path, columns):
        where = f"{path}, line {number}"
        pick(row, columns, where)
        yield where, row


def read_column(path: str | Path, column: str) -> Iterator[str]:
    """Yield the text of each row of a file: all of a line of a .txt but its end, else what stands in ``column``.

    A blank line of a .txt is a row.

    Raises:
        InputError: as :func:`read_rows`, and on a value that is not text.
    """
    path = existing_file(path)
    if kind_of(path) == ".txt":
        yield from (line.removesuffix("\n") for line in decoded_lines(path))
    else:
        for where, row in read_rows(path, [column]):
            yield checked_text(row[column], f"{where}, column {column!r}")


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(table_lines(path), 1):
        if line.strip():
            yield number, _json_row(line, columns, f"{path}, line {number}")


def _json_row(line: str, columns: Sequence[str], where: str) -> dict[str, Any]:
    try:
        row = json.loads(line, object_pairs_hook=_object_of(columns, where))
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{where}: its brackets are nested too deep to be read; leave that column out") from None
    except ValueError:  # Python refuses longer whole numbers: reading them would take too long
        digits = f"{sys.get_int_max_str_digits():,}"
        raise InputError(f"{where}: a number of more than {digits} digits; leave that column out") from None
    if not isinstance(row, dict):
        raise InputError(f"{where}: {line.strip():.40} is not a JSON object with named columns")
    return row


def _object_of(columns: Sequence[str], where: str) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    """Return a hook that makes a dictionary of a JSON object; Python alone silently keeps the last of equal names."""

    def make(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """Return the dictionary; refuse a column to read that is named twice."""
        row = dict(pairs)
        if len(row) < len(pairs):
            check_once([name for name, _ in pairs], columns, where)
        return row

    return make


def _table_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a table with a header. A .tsv reads a quote as a plain character; a .csv refuses one that is not closed."""
    rows = _fields(path)
    number, header = next(rows, (0, []))
    if number and not header:
        raise InputError(f"{path}, line {number}: no header but a blank line; name the columns there")
    check_once(header, columns, f"{path}, line {number}")
    for number, fields in rows:
        if not fields and len(header) > 1:
            continue
        if len(fields) > len(header):
            raise InputError(
                f"{path}, line {number}: {len(fields)} columns, and the header has {len(header)}; "
                "quote text that holds the separator, or give .jsonl"
            )
        # The only field of a blank line is empty; a field that a line lacks is nothing.
        yield number, dict(zip_longest(header, fields or [""]))


def _fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of each row of a table, the header's too, with the number of the row's first line."""
    is_tsv = kind_of(path) == ".tsv"
    lines = table_lines(path)
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if is_tsv else csv.reader(lines, strict=True)
    while True:
        number = rows.line_num + 1
        try:
            fields = _next_row(rows)
        except csv.Error as error:
            remedy = "quote its text as CSV does, or give .jsonl"
            problem = str(error)
            if problem.startswith("new-line character"):  # csv's words for a lone carriage return
                problem = "a carriage return inside a field"
                remedy = "replace it by a space, or give .jsonl" if is_tsv else "quote the field, or give .jsonl"
            raise InputError(f"{path}, line {number}: {problem}; {remedy}") from None
        if fields is None:
            return
        yield number, fields


def _next_row(rows: Iterator[list[str]]) -> list[str] | None:
    """Return the next row, however long its fields are; the limit belongs to the whole process, so it is put back."""
    before = csv.field_size_limit(_LONGEST)
    try:
        return next(rows, None)
    finally:
        csv.field_size_limit(before)
