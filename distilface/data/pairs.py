"""Scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from distilface.data.rows import SUFFIXES, checked_text, kind_of, numbered_rows, picked, place_of
from distilface.data.samples import sts_sample
from distilface.data.texts import text_files
from distilface.hub_ids import from_hub
from distilface.settings import InputError
from distilface.storage import disk_is_full

STS_COLUMNS = ("sentence1", "sentence2", "score")


def read_sts(source: str, split: str = "validation") -> Dataset:
    """Read scored pairs: columns ``sentence1``, ``sentence2``, ``score`` (any scale, higher is more similar).

    Args:
        source: a .csv, .tsv, .jsonl (each also .gz) or .parquet file, a folder that holds one such file, ``sample`` for
            the package's own small set, or a Hub data set as ``mteb/stsbenchmark-sts``.
        split: the split of a Hub data set.

    Raises:
        InputError: if it cannot be read, has fewer than three rows, or a score is not a number or the same everywhere.
    """
    if source == "sample":
        return sts_sample()
    if Path(source).exists() or source.endswith((*SUFFIXES, ".gz")):
        return Dataset.from_list(read_pairs(_pairs_file(source)))
    rows = ((f"the data set {source}", row) for row in _hub_rows(source, split))
    return Dataset.from_list(_scored(rows, source, least=3))


def read_pairs(file: Path, least: int = 3) -> list[dict[str, Any]]:
    """Read the scored pairs of one file.

    Args:
        file: with the columns ``sentence1``, ``sentence2`` (text) and ``score`` (a number).
        least: pairs that there must be.

    Raises:
        InputError: as :func:`read_sts`, with the line of a mistake.
    """
    rows = ((place_of(file, number), row) for number, row in numbered_rows(file, STS_COLUMNS))
    return _scored(rows, str(file), least)


def _pairs_file(source: str) -> Path:
    files = text_files(source)
    if Path(source).is_dir():
        files = [file for file in files if kind_of(file) != ".txt"]
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise InputError(
            f"{source} must hold one .csv, .tsv or .jsonl file of scored pairs, not {names}; name the file"
        )
    return files[0]


def _hub_rows(source: str, split: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of one split of a Hub data set, read from its files on disk."""
    remedy = "give scored pairs with --dev FILE, or --dev sample for the package's own"
    folder = from_hub(source, "dataset", f"the data set {source}", remedy)
    try:
        rows = load_dataset(str(folder), split=split)
    except Exception as error:
        if disk_is_full(error):
            raise
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"the data set {source} has no split {split!r} to read ({problem}); {remedy}") from None
    yield from (picked(row, STS_COLUMNS, f"the data set {source}") for row in rows)


def _scored(rows: Iterable[tuple[str, dict[str, Any]]], source: str, least: int) -> list[dict[str, Any]]:
    """Check rows, each with its place: their text, their scores, and that the scores can be ranked."""
    pairs = []
    for where, row in rows:
        for column in ("sentence1", "sentence2"):
            checked_text(row[column], f"{where}, column {column!r}")
        try:
            score = math.nan if isinstance(row["score"], bool) else float(row["score"])
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise InputError(f"{where}: the score {row['score']!r} is no number")
        pairs.append({**row, "score": score})
    if len(pairs) < least:
        raise InputError(f"{source}: {len(pairs)} scored pairs; a correlation needs at least {least}")
    if len({pair["score"] for pair in pairs}) == 1:
        raise InputError(f"{source}: every pair has the score {pairs[0]['score']}; there is nothing to rank")
    return pairs
