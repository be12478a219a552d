"""The one reader of rows: .txt, .csv, .tsv, .jsonl (each also .gz) and .parquet, with the place of every mistake."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distilface.settings import InputError

SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl", ".parquet")
#: What a message says of them.
KINDS = ".txt, .csv, .tsv, .jsonl (each also .gz) and .parquet"
#: Rows of a .parquet that are held in memory at a time.
_PARQUET_ROWS = 1024


def decoded_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text or gzip file, with their ends.

    Raises:
        InputError: on a line that is not UTF-8 text (with its number) or a broken gzip file.
    """
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if b"\0" in line:
                    raise InputError(f"{path}, line {number}: a NUL byte; this is no text file")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise InputError(
                f"{path}, line {number}: byte 0x{bad:02x} is not UTF-8; convert the file (iconv -t UTF-8) first"
            ) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(f"{path} is a broken gzip file ({error}); compress it again") from None


def kind_of(path: Path) -> str:
    """Return the suffix that tells how a file is read: one of :data:`SUFFIXES`, ``.gz`` left out.

    Raises:
        InputError: on any other.
    """
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in SUFFIXES or path.name.endswith(".parquet.gz"):
        raise InputError(f"{path}: {kind or 'no'} suffix; text is read from {KINDS}")
    return kind


def picked(row: dict[str, Any], columns: Sequence[str], where: str) -> dict[str, Any]:
    """Return the wanted columns of a row.

    Raises:
        InputError: if one is not there, or is empty (``None``).
    """
    for column in columns:
        if column not in row:
            raise InputError(f"{where}: no column {column!r}; found {', '.join(map(str, row)) or 'none'}")
        if row[column] is None:
            raise InputError(f"{where}: nothing in column {column!r}; fill it or leave the line out")
    return {c: row[c] for c in columns}


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(decoded_lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {number}: no JSON ({error.msg})") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: {line.strip():.40} is no JSON object with named columns")
        yield number, row


def _table_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a table with a header. A quote is a letter in a .tsv; in a .csv one that does not close is refused."""
    if kind_of(path) == ".tsv":
        rows = csv.DictReader(decoded_lines(path), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        rows = csv.DictReader(decoded_lines(path), strict=True)
    try:
        for row in rows:
            if None in row:
                count = len(row) - 1 + len(row[None])
                raise InputError(
                    f"{path}, line {rows.line_num}: {count} columns, and the header has {len(row) - 1}; "
                    "quote text that holds the separator, or give .jsonl"
                )
            yield rows.line_num, row
    except csv.Error as error:
        remedy = "quote its text as CSV does, or give .jsonl"
        raise InputError(f"{path}, line {rows.line_num + 1}: {error}; {remedy}") from None


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Read a .parquet, of which only ``columns``; rows count from 1."""
    number = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as file:
            known = [column for column in columns if column in file.schema_arrow.names]
            if len(known) < len(columns):
                picked(dict.fromkeys(file.schema_arrow.names, ""), columns, str(path))
            for batch in file.iter_batches(_PARQUET_ROWS, columns=known):
                for values in zip(*(batch.column(column) for column in known), strict=True):
                    number += 1
                    where = place_of(path, number)
                    yield number, {c: _python_value(v, where) for c, v in zip(known, values, strict=True)}
    except (pa.ArrowException, OSError) as error:
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{path} is no Parquet file that can be read ({problem}); write it again") from None


def _python_value(value: pa.Scalar, where: str) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; write it anew") from None


def place_of(path: Path, number: int) -> str:
    """Say where a row is: the file and its line, or its row where the file has no lines."""
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {number}"


def read_rows(path: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .csv, .tsv, .jsonl (or .gz of these) or .parquet file as dictionaries of ``columns``.

    Raises:
        InputError: if the file is missing, is not UTF-8, lacks a column or is damaged (with the line).
    """
    yield from (row for _, row in numbered_rows(path, columns))


def numbered_rows(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield what :func:`read_rows` does, each row with its number (:func:`place_of`)."""
    path = existing_file(path)
    kind = kind_of(path)
    if kind == ".txt":
        wanted = ", ".join(columns)
        raise InputError(f"{path}: a .txt has no columns; {wanted} are read from .csv, .tsv, .jsonl or .parquet")
    if kind == ".parquet":
        rows = _parquet_rows(path, columns)
    else:
        rows = _json_rows(path) if kind == ".jsonl" else _table_rows(path)
    for number, row in rows:
        yield number, picked(row, columns, place_of(path, number))


def existing_file(path: str | Path) -> Path:
    """Return the path of a file that is there.

    Raises:
        InputError: if it is not.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file, a folder of files, or a Hub data set")
    return path


def checked_text(value: Any, where: str) -> str:
    """Return a value that is text.

    Raises:
        InputError: on a list, a number, half of a surrogate pair (JSON can hold each).
    """
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise InputError(f"{where}: {value!r:.60} is no text") from None
    return str(value)
