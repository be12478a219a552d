"""Parallel text, English and one other language a file: from files to a checked :class:`datasets.Dataset`."""

import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from distilface.data.columns import checked_text
from distilface.data.distinct import distinct
from distilface.data.lines import existing_file, is_gzip, kind_of, table_lines
from distilface.data.mapped import mapped_dataset
from distilface.data.rows import read_rows
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Characters of a side above which a pair is dropped (arXiv 2209.05869).
MAX_CHARACTERS = 250
#: Pairs whose sides differ in UTF-8 bytes by more than this factor and this many bytes get a warning. Bytes, because a
#: character of Chinese or Japanese says about as much as three of English.
MAX_RATIO, MIN_DIFFERENCE = 4, 20
COLUMNS = ("english", "other")
_NAME = re.compile(r"\.en-([a-z]{2,3}(?:[-_][A-Za-z]+)?)$")


def language_of(path: Path) -> str:
    """Return the other language of a file, from its name: ``de`` of ``news.en-de.tsv.gz``.

    Raises:
        InputError: if the name does not hold it.
    """
    name = (path.stem if is_gzip(path) else path.name).rpartition(".")[0]
    if not (match := _NAME.search(f".{name}")):
        raise InputError(f"{path}: the name does not hold the language; call it as news.en-de.tsv")
    return match.group(1)


def _tabbed(path: Path) -> Iterator[tuple[str, list[Any]]]:
    """Yield the place of each line of a .tsv without a header, and its two sides."""
    for number, line in enumerate(table_lines(path), 1):
        if not line.strip():
            continue
        where, text = f"{path}, line {number}", line.rstrip("\r\n")
        if "\r" in text:
            raise InputError(f"{where}: a carriage return inside a field; replace it by a space, or give .jsonl")
        sides: list[Any] = text.split("\t")
        if len(sides) != 2:
            raise InputError(f"{where}: {len(sides)} columns; English and the other side, by one tab")
        yield where, sides


def _pairs(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield the place, English and the other side of each pair of a file, without white space at the ends."""
    if kind_of(path) == ".tsv":
        rows: Iterator[tuple[str, list[Any]]] = _tabbed(path)
    else:
        rows = ((where, [row[column] for column in columns]) for where, row in read_rows(path, columns))
    for where, sides in rows:
        english, other = (checked_text(side, where).strip() for side in sides)
        if not english or not other:
            raise InputError(f"{where}: the {'other' if english else 'English'} side is empty; leave the line out")
        yield where, english, other


def _is_odd(english: str, other: str) -> bool:
    """Return whether two sides differ so much in length that one is hardly the other's translation."""
    short, long = sorted((len(english.encode()), len(other.encode())))
    return long > MAX_RATIO * short and long - short > MIN_DIFFERENCE


@dataclass
class _Counts:
    """Counts of the pairs that were read."""

    pairs: int = 0
    long: int = 0
    odd: int = 0
    odd_at: str = ""

    def add(self, where: str, english: str, other: str) -> bool:
        """Count one pair; return whether it is short enough to be kept."""
        fits = max(len(english), len(other)) <= MAX_CHARACTERS
        self.pairs += 1
        self.long += not fits
        if fits and _is_odd(english, other):
            self.odd += 1
            self.odd_at = self.odd_at or where
        return fits

    def log(self) -> None:
        """Log how many pairs were dropped and how many look wrong."""
        if self.long:
            logger.info(f"{self.long:,} of {self.pairs:,} pairs have a side over {MAX_CHARACTERS} characters: dropped")
        if self.odd:
            logger.warning(f"{self.odd:,} pairs are of very different lengths, the first in {self.odd_at}")


def _distinct(paths: Sequence[Path], columns: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each distinct pair that is short enough once, in order, with its language.

    Raises:
        InputError: on a mistake in a file, a file without a pair, and at the end on fewer than two pairs.
    """
    counts = _Counts()

    def short() -> Iterator[tuple[str, str, str]]:
        """Yield the pairs that are short enough."""
        for path in paths:
            language, before = language_of(path), counts.pairs
            for where, english, other in _pairs(path, columns):
                if counts.add(where, english, other):
                    yield english, other, language
            if counts.pairs == before:
                raise InputError(f"{path} holds no pair; it is empty")

    # repr keeps the sides apart: a separator of our own could also stand inside a side.
    yield from distinct(short(), lambda pair: repr(pair).encode())
    counts.log()
    if counts.pairs - counts.long < 2:
        raise InputError(f"{paths[0]}: {counts.pairs - counts.long} pairs to train on; give more or shorter ones")


def read_parallel(
    sources: Sequence[str | Path],
    max_pairs: int | None = None,
    columns: Sequence[str] = COLUMNS,
    seed: int = 0,
) -> Dataset:
    """Read parallel text: columns ``english``, ``other``, ``language``; distinct pairs, memory-mapped.

    A pair with a side over :data:`MAX_CHARACTERS` is dropped; how many were dropped is logged. Pairs of wildly
    different lengths (:data:`MAX_RATIO`) are kept, with one warning.

    Args:
        sources: ``NAME.en-<language>.tsv`` (English, a tab, the other side; no header), or ``.csv``, ``.jsonl`` (each
            also .gz) or ``.parquet`` with the two ``columns``.
        max_pairs: keep at most this many, drawn at random, equally many of each language as far as it has them.
        columns: the English and the other column of files with columns.
        seed: the seed of that draw.

    Raises:
        InputError: on a file that is missing, not UTF-8, lacks a column or a side (with the line), on a name
            without its language, or where fewer than two pairs are left.
    """
    if not sources:
        raise InputError("no parallel text given; name at least one file as --parallel news.en-de.tsv")
    if max_pairs is not None and max_pairs < 2:
        raise InputError(f"{max_pairs} pairs are too few to train on; ask for at least 2")
    paths = [existing_file(source) for source in sources]
    for path in paths:  # before any of them is read
        language_of(path), kind_of(path)
    pairs = mapped_dataset(_distinct(paths, columns), [*COLUMNS, "language"])
    return pairs if max_pairs is None or max_pairs >= len(pairs) else _balanced(pairs, max_pairs, seed)


def _shares(counts: dict[str, int], total: int) -> dict[str, int]:
    """Share ``total`` out equally; what a language cannot fill goes to the others."""
    shares: dict[str, int] = {}
    for place, (language, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[language] = min(count, (total - sum(shares.values())) // (len(counts) - place))
    return shares


def _balanced(pairs: Dataset, total: int, seed: int) -> Dataset:
    """Draw pairs at random, equally many of each language, and keep their order."""
    languages, random = np.asarray(pairs["language"][:]), np.random.default_rng(seed)
    shares = _shares(Counter(languages.tolist()), total)
    drawn = [
        random.choice(np.flatnonzero(languages == name), share, replace=False) for name, share in sorted(shares.items())
    ]
    return pairs.select(np.sort(np.concatenate(drawn))).flatten_indices()


def held_out_split(pairs: Dataset, count: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Hold pairs out of the training, so that none of their sentences stands in a training pair, on either side.

    Args:
        pairs: as :func:`read_parallel` gives them.
        count: pairs of each language to hold out; of a language with fewer than ten times as many, a tenth.
        seed: the seed of the draw.

    Returns:
        The pairs to train on, and the held-out ones.

    Raises:
        InputError: if no language has two pairs to hold out, or nothing is left to train on.
    """
    languages, random = np.asarray(pairs["language"][:]), np.random.default_rng(seed)
    chosen: list[int] = []
    for name in sorted(set(languages)):
        rows = np.flatnonzero(languages == name)
        chosen += random.choice(rows, min(count, len(rows) // 10), replace=False).tolist()
    held_out = pairs.select(sorted(chosen))
    english, other = set(held_out["english"]), set(zip(held_out["language"], held_out["other"], strict=True))
    sides = zip(pairs["english"], languages.tolist(), pairs["other"], strict=True)
    rest = [row for row, (a, *b) in enumerate(sides) if a not in english and tuple(b) not in other]
    if len(chosen) < 2 or len(rest) < 2:
        raise InputError(
            f"{len(pairs)} pairs in {len(set(languages))} languages cannot be split ({len(chosen)} held out, "
            f"{len(rest)} left); give more pairs or another --held-out"
        )
    return pairs.select(rest), held_out


def sentences(pairs: Dataset) -> Dataset:
    """Return all the sentences of both sides in one column, ``text``, without copying them."""
    sides = [pairs.select_columns([side]).rename_column(side, "text") for side in COLUMNS]
    return concatenate_datasets(sides)
