"""Parallel text, English and one other language a file: from files to a checked :class:`datasets.Dataset`."""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets

from distilface.data.rows import checked_text, decoded_lines, existing_file, kind_of, numbered_rows, place_of
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Characters of a side above which a pair is dropped (arXiv 2209.05869).
MAX_CHARACTERS = 250
#: Sides that differ in UTF-8 bytes by more than this factor and this many bytes are named, not dropped. Bytes, for
#: a character of Chinese or Japanese says about what three of English do.
MAX_RATIO, MIN_DIFFERENCE = 4, 20
COLUMNS = ("english", "other")
_NAME = re.compile(r"\.en-([a-z]{2,3}(?:[-_][A-Za-z]+)?)$")


def language_of(path: Path) -> str:
    """Return the other language of a file, from its name: ``de`` of ``news.en-de.tsv.gz``.

    Raises:
        InputError: if the name does not tell it.
    """
    name = path.name.removesuffix(".gz").rpartition(".")[0]
    if not (found := _NAME.search(f".{name}")):
        raise InputError(f"{path}: the name does not tell the language; call it as news.en-de.tsv")
    return found.group(1)


def _tabbed(path: Path) -> Iterator[tuple[int, list[Any]]]:
    """Yield the two sides of each line of a .tsv without a header."""
    for number, line in enumerate(decoded_lines(path), 1):
        if not line.strip():
            continue
        sides: list[Any] = line.rstrip("\r\n").split("\t")
        if len(sides) != 2:
            raise InputError(f"{path}, line {number}: {len(sides)} columns; English and the other side, by one tab")
        yield number, sides


def _pairs(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield line number, English and the other side of one file, white space at the ends removed."""
    if kind_of(path) == ".tsv":
        rows: Iterator[tuple[int, list[Any]]] = _tabbed(path)
    else:
        rows = ((number, [row[c] for c in columns]) for number, row in numbered_rows(path, columns))
    for number, sides in rows:
        where = place_of(path, number)
        english, other = (checked_text(side, where).strip() for side in sides)
        if not english or not other:
            raise InputError(f"{where}: the {'other' if english else 'English'} side is empty; leave the line out")
        yield number, english, other


def _fits(english: str, other: str) -> bool:
    return max(len(english), len(other)) <= MAX_CHARACTERS


def _is_odd(english: str, other: str) -> bool:
    """Tell whether two sides are of so different lengths that one is hardly the other's translation."""
    short, long = sorted((len(english.encode()), len(other.encode())))
    return long > MAX_RATIO * short and long - short > MIN_DIFFERENCE


@dataclass
class _Seen:
    """What a first reading of the files has found."""

    digest: Any = field(default_factory=hashlib.sha256)
    pairs: int = 0
    long: int = 0
    odd: int = 0
    odd_at: str = ""

    def add(self, path: Path, number: int, english: str, other: str) -> None:
        """Count one pair."""
        self.digest.update(f"{english}\t{other}\n".encode())
        self.pairs += 1
        self.long += not _fits(english, other)
        if _fits(english, other) and _is_odd(english, other):
            self.odd += 1
            self.odd_at = self.odd_at or f"{path}:{number}"

    def report(self) -> None:
        """Log what was dropped and what looks wrong."""
        if self.long:
            logger.info(f"{self.long:,} of {self.pairs:,} pairs have a side over {MAX_CHARACTERS} characters: dropped")
        if self.odd:
            logger.warning(f"{self.odd:,} pairs are of very different lengths, the first at {self.odd_at}")


def _distinct(paths: Sequence[Path], columns: Sequence[str], fingerprint: str) -> Iterator[dict[str, str]]:
    """Yield each distinct pair that fits once. ``fingerprint`` only makes the cache notice a changed file."""
    seen: set[bytes] = set()
    for path in paths:
        language = language_of(path)
        for _, english, other in _pairs(path, columns):
            key = hashlib.blake2b(f"{language}\t{english}\t{other}".encode(), digest_size=8).digest()
            if _fits(english, other) and key not in seen:
                seen.add(key)
                yield {"english": english, "other": other, "language": language}


def read_parallel(
    sources: Sequence[str | Path],
    max_pairs: int | None = None,
    columns: Sequence[str] = COLUMNS,
    seed: int = 0,
) -> Dataset:
    """Read parallel text: columns ``english``, ``other``, ``language``; distinct pairs, memory-mapped.

    A pair with a side over :data:`MAX_CHARACTERS` is dropped and counted on stderr. Pairs of wildly different
    lengths (:data:`MAX_RATIO`) are kept, and named in one line.

    Args:
        sources: ``NAME.en-<language>.tsv`` (English, a tab, the other side; no header), ``.csv`` or ``.jsonl`` with
            the two ``columns``; each also .gz.
        max_pairs: keep at most this many, drawn at random, equally many of each language as far as it has them.
        columns: the English and the other column of .csv and .jsonl files.
        seed: the seed of that draw.

    Raises:
        InputError: on a file that is missing, not UTF-8, lacks a column or a side (with the line), on a name
            without its language, or where fewer than two pairs are left.
    """
    if not sources:
        raise InputError("no parallel text given; name at least one file as --parallel news.en-de.tsv")
    if max_pairs is not None and max_pairs < 2:
        raise InputError(f"{max_pairs} pairs are too few to train on; ask for at least 2")
    paths, columns, seen = tuple(existing_file(source) for source in sources), tuple(columns), _Seen()
    for path in paths:
        seen.digest.update(language_of(path).encode())
        before = seen.pairs
        for number, english, other in _pairs(path, columns):
            seen.add(path, number, english, other)
        if seen.pairs == before:
            raise InputError(f"{path} holds no pair; it is empty")
    seen.report()
    if seen.pairs - seen.long < 2:
        raise InputError(f"{paths[0]}: {seen.pairs - seen.long} pairs to train on; give more or shorter ones")
    kwargs = {"paths": paths, "columns": columns, "fingerprint": seen.digest.hexdigest()}
    pairs = Dataset.from_generator(_distinct, gen_kwargs=kwargs)
    return pairs if max_pairs is None or max_pairs >= len(pairs) else _balanced(pairs, max_pairs, seed)


def _shares(counts: dict[str, int], total: int) -> dict[str, int]:
    """Share ``total`` out equally; what a language has too few for goes to the others."""
    shares: dict[str, int] = {}
    for place, (language, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        shares[language] = min(count, (total - sum(shares.values())) // (len(counts) - place))
    return shares


def _balanced(pairs: Dataset, total: int, seed: int) -> Dataset:
    """Draw pairs at random, equally many of each language; their order stays."""
    languages, random = np.asarray(pairs["language"][:]), np.random.default_rng(seed)
    shares = _shares(Counter(languages.tolist()), total)
    drawn = [
        random.choice(np.flatnonzero(languages == name), share, replace=False) for name, share in sorted(shares.items())
    ]
    return pairs.select(np.sort(np.concatenate(drawn))).flatten_indices()


def held_out_split(pairs: Dataset, count: int, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Hold pairs out of the training, by their sentences: none of them stands in another pair, on either side.

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
