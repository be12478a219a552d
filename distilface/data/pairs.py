"""Scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset

from distilface.data.rows import SUFFIXES, checked_text, kind_of, picked, read_rows
from distilface.data.samples import sts_sample
from distilface.data.texts import text_files
from distilface.hub_ids import from_hub
from distilface.settings import InputError
from distilface.storage import disk_is_full

STS_COLUMNS = ("sentence1", "sentence2", "score")


def read_sts(source: str, split: str = "validation") -> Dataset:
    """Read scored pairs: columns ``sentence1``, ``sentence2``, ``score`` (any scale, higher is more similar).

    Args:
        source: a .csv, .tsv or .jsonl file (or .gz), a folder that holds one such file, ``sample`` for the
            package's own small set, or a Hub data set as ``mteb/stsbenchmark-sts``.
        split: the split of a Hub data set.

    Raises:
        InputError: if it cannot be read, has fewer than three rows, or a score is no number or the same everywhere.
    """
    if source == "sample":
        return sts_sample()
    if Path(source).exists() or source.endswith((*SUFFIXES, ".gz")):
        rows: Iterable[dict[str, Any]] = read_rows(_pairs_file(source), STS_COLUMNS)
    else:
        rows = _hub_rows(source, split)
    pairs = [_scored(row, source) for row in rows]
    if len(pairs) < 3:
        raise InputError(f"{source}: {len(pairs)} scored pairs; a correlation needs at least 3")
    if len({pair["score"] for pair in pairs}) == 1:
        raise InputError(f"{source}: every pair has the score {pairs[0]['score']}; there is nothing to rank")
    return Dataset.from_list(pairs)


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


def _scored(row: dict[str, Any], source: str) -> dict[str, Any]:
    for column in ("sentence1", "sentence2"):
        checked_text(row[column], f"{source}, column {column!r}")
    try:
        score = float(row["score"])
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise InputError(f"{source}: the score {row['score']!r} is no number")
    return {**row, "score": score}
