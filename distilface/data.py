"""Texts and scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset

from distilface.files import SUFFIXES, checked_text, decoded_lines, existing_file, kind_of, picked, read_rows
from distilface.hub import from_hub
from distilface.samples import python_texts, sts_sample
from distilface.settings import InputError, disk_is_full

#: Hub data sets that are one file of text: SimCSE's million sentences of Wikipedia (arXiv 2104.08821).
HUB_TEXTS = {"princeton-nlp/datasets-for-simcse": "wiki1m_for_simcse.txt"}
HUB_STSB = "mteb/stsbenchmark-sts"
STS_COLUMNS = ("sentence1", "sentence2", "score")


@functools.cache
def _python() -> list[str]:
    return python_texts()


def _sentences(path: Path | None, column: str) -> Iterator[str]:
    """Yield the non-empty texts of one file, in order, white space at the ends removed; ``None`` is Python's own."""
    if path is None:
        rows: Iterable[str] = _python()
    elif kind_of(path) == ".txt":
        rows = decoded_lines(path)
    else:
        rows = (checked_text(row[column], f"{path}, column {column!r}") for row in read_rows(path, [column]))
    yield from (text for row in rows if (text := row.strip()))


def _distinct(paths: Sequence[Path | None], column: str, fingerprint: str) -> Iterator[dict[str, str]]:
    """Yield each distinct sentence once. ``fingerprint`` only makes the cache notice a changed file."""
    seen: set[bytes] = set()
    for path in paths:
        for text in _sentences(path, column):
            key = hashlib.blake2b(text.encode(), digest_size=8).digest()
            if key not in seen:
                seen.add(key)
                yield {"text": text}


def _files(source: str) -> list[Path]:
    """Turn one ``--data`` value (a file, a folder, a Hub data set) into files."""
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.name.removesuffix(".gz").endswith(SUFFIXES))
        if not found:
            raise InputError(f"{path} holds no {', '.join(SUFFIXES)} file")
        return found
    if path.exists() or source not in HUB_TEXTS:
        return [existing_file(path)]
    name, remedy = HUB_TEXTS[source], "give local text with --data FILE"
    return [existing_file(from_hub(source, "dataset", f"the data set {source}", remedy, allow_patterns=name) / name)]


def read_texts(sources: Sequence[str], limit: int | None = None, column: str = "text", seed: int = 0) -> Dataset:
    """Read sentences into one column, ``text``: distinct, non-empty, memory-mapped.

    Args:
        sources: .txt (a sentence a line), .csv, .tsv or .jsonl files, .gz of these, folders of them,
            ``princeton-nlp/datasets-for-simcse`` on the Hub, or ``python`` for the sentences of Python's own
            documentation.
        limit: keep at most this many, drawn at random over all sources; ``None`` keeps all, in order.
        column: the column that holds the text in files with columns.
        seed: the seed of that draw.

    Raises:
        InputError: on a missing, empty, binary or non-UTF-8 file, a missing column, fewer than two sentences,
            or only equal ones.
    """
    if not sources:
        raise InputError("no text given; name at least one file with --data FILE")
    if limit is not None and limit < 2:
        raise InputError(f"{limit} sentences are too few to train on; ask for at least 2")
    # A tuple: of a list the library would give the generator one path at a time, each with nothing seen yet.
    paths = tuple(path for source in sources for path in ([None] if source == "python" else _files(source)))
    kwargs = {"paths": paths, "column": column, "fingerprint": _check(paths, column)}
    texts = Dataset.from_generator(_distinct, gen_kwargs=kwargs)
    if limit is not None and limit < len(texts):
        texts = texts.shuffle(seed=seed).select(range(limit)).flatten_indices()
    return texts


def _check(paths: Sequence[Path | None], column: str) -> str:
    """Read every file once for its mistakes, and return the sha256 of all their sentences."""
    digest = hashlib.sha256(column.encode())
    count, first, varied = 0, "", False
    for path in paths:
        before = count
        for text in _sentences(path, column):
            digest.update(text.encode() + b"\n")
            first = first or text
            varied = varied or text != first
            count += 1
        if count == before:
            raise InputError(f"{path} holds no sentence; it is empty")
    if not varied:
        raise InputError(
            f"{paths[0]}: one sentence only; at least two are needed"
            if count == 1
            else f"{paths[0]}: all {count} sentences are equal ({first!r:.60}); nothing can be learned from them"
        )
    return digest.hexdigest()


def fingerprint(dataset: Dataset, column: str = "text") -> str:
    """Return the sha256 (16 hex digits) of a text column, row by row in order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns([column]).iter(batch_size=10_000):
        digest.update("\n".join(batch[column]).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def numbered(dataset: Dataset) -> Dataset:
    """Put each row's number beside it, in a column ``label``: a loss finds by it what belongs to an example."""
    return concatenate_datasets([dataset, Dataset.from_dict({"label": range(len(dataset))})], axis=1)


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
    files = _files(source)
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
