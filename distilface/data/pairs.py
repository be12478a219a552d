"""Scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import math
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from distilface.data.columns import check_columns, checked_text, pick
from distilface.data.lines import kind_of, names_file
from distilface.data.rows import read_rows
from distilface.data.samples import sts_sample
from distilface.data.texts import text_files
from distilface.hub_ids import from_hub
from distilface.settings import InputError
from distilface.storage import disk_is_full

STS_COLUMNS = ("sentence1", "sentence2", "score")
#: A number as data hold it. Python also reads ``1_0``, ``nan`` and the digits of other scripts.
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def read_sts(source: str, split: str = "validation") -> Dataset:
    """Read scored pairs: columns ``sentence1``, ``sentence2``, ``score`` (any scale, higher is more similar).

    Args:
        source: a .csv, .tsv, .jsonl (each also .gz) or .parquet file, a folder that holds one such file, ``sample`` for
            the package's own small set, or a Hub data set as ``mteb/stsbenchmark-sts``.
        split: the split of a Hub data set.

    Raises:
        InputError: if it cannot be read, has fewer than three rows, a sentence is empty, a score is not a finite number
            (with the line), or all scores are the same.
    """
    if source == "sample":
        return sts_sample()
    if Path(source).exists() or names_file(source):
        return Dataset.from_list(read_pairs(_pairs_file(source)))
    return Dataset.from_list(_scored(_hub_rows(source, split), source, least=3))


def read_pairs(file: Path, least: int = 3) -> list[dict[str, Any]]:
    """Read the scored pairs of one file.

    Args:
        file: with the columns ``sentence1``, ``sentence2`` (text) and ``score`` (a number).
        least: pairs that there must be.

    Raises:
        InputError: as :func:`read_sts`, with the line of a mistake.
    """
    return _scored(read_rows(file, STS_COLUMNS), str(file), least)


def _pairs_file(source: str) -> Path:
    files = text_files(source)
    if Path(source).is_dir():
        # A .txt beside the pairs says where they are from.
        files = [file for file in files if kind_of(file) != ".txt"]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        kinds = ".csv, .tsv, .jsonl or .parquet"
        raise InputError(f"{source} must hold one {kinds} file of scored pairs, not {names}; name the file")
    return files[0]


def _hub_rows(source: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows of one split of a Hub data set, read from its files on disk, each with its place."""
    remedy = "give scored pairs with --dev FILE, or --dev sample for the package's own"
    folder = from_hub(source, "dataset", f"the data set {source}", remedy)
    try:
        rows = load_dataset(str(folder), split=split)
    except Exception as error:
        if disk_is_full(error):
            raise
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"the data set {source} has no split {split!r} to read ({problem}); {remedy}") from None
    check_columns(rows.column_names, STS_COLUMNS, f"the data set {source}")
    for number, row in enumerate(rows, 1):
        where = f"the data set {source}, row {number}"
        yield where, pick(row, STS_COLUMNS, where)


def _scored(rows: Iterable[tuple[str, dict[str, Any]]], source: str, least: int) -> list[dict[str, Any]]:
    """Check rows, each with its place: their text, their scores, and that the scores can be ranked."""
    pairs = [_checked_pair(row, where) for where, row in rows]
    if len(pairs) < least:
        raise InputError(f"{source}: {len(pairs)} scored pairs; a correlation needs at least {least}")
    if len({pair["score"] for pair in pairs}) == 1:
        raise InputError(f"{source}: every pair has the score {pairs[0]['score']}; there is nothing to rank")
    return pairs


def _checked_pair(row: dict[str, Any], where: str) -> dict[str, Any]:
    for column in ("sentence1", "sentence2"):
        if not checked_text(row[column], f"{where}, column {column!r}").strip():
            raise InputError(f"{where}: {column} is empty; fill it or leave the pair out")
    score = _score(row["score"])
    if not math.isfinite(score):
        raise InputError(f"{where}: the score {row['score']!r:.60} is not a number")
    return {**row, "score": score}


def _score(value: Any) -> float:
    """Return a score as a number; NaN for what is a number to Python only (``True``, ``1_0``), or none at all."""
    is_number = isinstance(value, int | float | Decimal) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return math.nan
    try:
        return float(value)
    except (OverflowError, ValueError):  # a whole number of 309 digits and more; a signalling NaN
        return math.nan
