"""Sentences: from files or the Hub to a checked :class:`datasets.Dataset`."""

import functools
import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets
from tqdm import tqdm

from distilface.data.columns import checked_text
from distilface.data.distinct import distinct
from distilface.data.lines import KINDS, existing_file, is_readable, kind_of, names_file
from distilface.data.location import is_url
from distilface.data.mapped import mapped_dataset
from distilface.data.rows import read_column
from distilface.data.samples import python_texts
from distilface.data.streams import Stream, stream_of
from distilface.hub_ids import HUB_TEXTS, from_hub
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Entries of a folder that a warning names; the others are counted.
_NAMED = 10
#: A file, text over the network, or (``None``) that of Python's own documentation.
Part = Path | Stream | None


@functools.cache
def _python() -> list[str]:
    return python_texts()


def text_files(source: str) -> list[Path]:
    """Return the files of one ``--data`` value: a file, a folder or a Hub data set.

    What a folder holds besides them (other suffixes, sub-folders) is named in one warning.

    Raises:
        InputError: if there are none.
    """
    path = Path(source)
    if path.is_dir():
        return _files_of(path)
    if path.exists() or source not in HUB_TEXTS:
        return [existing_file(path)]
    name, remedy = HUB_TEXTS[source], "give local text with --data FILE"
    return [existing_file(from_hub(source, "dataset", f"the data set {source}", remedy, allow_patterns=name) / name)]


def _files_of(folder: Path) -> list[Path]:
    entries = sorted(folder.iterdir())
    files = [entry for entry in entries if entry.is_file() and is_readable(entry)]
    others = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if entry not in files]
    names = ", ".join(others[:_NAMED]) + (f" and {len(others) - _NAMED:,} more" if len(others) > _NAMED else "")
    if not files:
        raise InputError(f"{folder} holds no {KINDS} file" + (f", but {names}" if others else ""))
    if others:
        logger.warning(
            f"{folder}: {len(others):,} of {len(entries):,} entries are not read ({names}); text is read from {KINDS}"
        )
    return files


def read_texts(sources: Sequence[str], limit: int | None = None, column: str = "text", seed: int = 0) -> Dataset:
    """Read sentences into one column, ``text``: distinct, non-empty, memory-mapped.

    Args:
        sources: .txt (a sentence a line), .csv, .tsv, .jsonl (.gz of these) or .parquet files, folders of them,
            ``princeton-nlp/datasets-for-simcse`` on the Hub, or ``python`` for the sentences of Python's own
            documentation. A URL is read while it is fetched: of any data set of the Hub
            (:class:`~distilface.hub_ids.HubText`), or of a folder of .parquet in a store that fsspec knows. What URLs
            alone give is not fetched again while it does not change.
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
    parts = [part for source in sources for part in _parts_of(source, column)]
    for part in parts:  # before any of them is read
        if isinstance(part, Path):
            kind_of(part)
    texts = mapped_dataset(_distinct(parts, column), ["text"], _key(parts))
    if limit is not None and limit < len(texts):
        texts = texts.shuffle(seed=seed).select(range(limit)).flatten_indices()
    return texts


def _parts_of(source: str, column: str) -> list[Part]:
    if is_url(source):
        return [stream_of(source, column)]
    return [None] if source == "python" else [*text_files(source)]


def _key(parts: Sequence[Part]) -> str | None:
    """Return what names the text of streams before it is read, ``None`` where a file is among them."""
    streams = [part for part in parts if part is not None and not isinstance(part, Path)]
    if len(streams) < len(parts):
        return None
    return hashlib.sha256("\n".join(stream.key() for stream in streams).encode()).hexdigest()


def _rows_of(part: Part, column: str) -> Iterable[str]:
    if part is None:
        return _python()
    if isinstance(part, Path):
        return read_column(part, column)
    return tqdm(part.rows(), desc="text", unit=" rows", unit_scale=True)


def _distinct(parts: Sequence[Part], column: str) -> Iterator[tuple[str]]:
    """Yield each distinct sentence once, in order, without white space at its ends; log what is left out.

    Raises:
        InputError: on a mistake in a file, a file without a sentence, and at the end on fewer than two sentences.
    """
    count = empty = kept = 0

    def full() -> Iterator[str]:
        """Yield the texts that are not empty."""
        nonlocal count, empty
        for part in parts:
            before = count
            for row in _rows_of(part, column):
                text = row.strip()
                count, empty = count + bool(text), empty + (not text)
                if text:
                    yield text
            if count == before:
                raise InputError(f"{part} holds no sentence; it is empty")

    for text in distinct(full(), str.encode):
        kept += 1
        yield (text,)
    if kept < 2:
        raise InputError(
            f"{parts[0]}: one sentence only; at least two are needed"
            if count == 1
            else f"{parts[0]}: all {count} sentences are equal ({text!r:.60}); nothing can be learned from them"
        )
    _log_left_out(count - kept, empty, count + empty)


def _log_left_out(repeated: int, empty: int, rows: int) -> None:
    if repeated or empty:
        logger.info(f"text: {repeated:,} of {rows:,} rows repeat another and {empty:,} are empty; they are left out")


def numbered(dataset: Dataset) -> Dataset:
    """Put the number of each row beside it, in a column ``label``: a loss finds by it what belongs to an example."""
    return concatenate_datasets([dataset, Dataset.from_dict({"label": range(len(dataset))})], axis=1)


def as_texts(data: Sequence[str] | Dataset) -> tuple[list[str], Dataset | None]:
    """Return the sources to read, or the sentences as a data set: one of the two is empty.

    >>> as_texts(["python"])[0], as_texts(["A cat sat.", "A dog ran."])[1]["text"][:]
    (['python'], ['A cat sat.', 'A dog ran.'])

    Args:
        data: sources, as :func:`read_texts` takes them; or sentences; or a data set with a column ``text``.

    Raises:
        InputError: on a mix of both, a file that does not exist, a value that is not text (with its row), or a data set
            without that column.
    """
    if isinstance(data, Dataset):
        if "text" not in data.column_names:
            raise InputError(f"the data set has no column 'text' but {', '.join(data.column_names)}; rename one to it")
        return [], _checked_dataset(data)
    items = list(data)
    named = [item for item in items if _names_text(item)]
    if len(named) == len(items):
        return items, None
    if named:
        raise InputError(f"data holds both sentences and files ({named[0]}); give one or the other")
    texts = (checked_text(item, f"data, item {number}").strip() for number, item in enumerate(items, 1))
    full = [text for text in texts if text]
    sentences = list(dict.fromkeys(full))
    if len(sentences) < 2:
        raise InputError(f"data holds {len(sentences)} different sentences; at least two are needed")
    _log_left_out(len(full) - len(sentences), len(items) - len(full), len(items))
    return [], Dataset.from_dict({"text": sentences})


def _checked_dataset(data: Dataset) -> Dataset:
    """Return the text column of a data set, checked, without its empty rows."""
    texts = data.select_columns(["text"])
    batches = texts.with_format(None).iter(batch_size=10_000)
    rows = enumerate((text for batch in batches for text in batch["text"]), 1)
    empty = [row - 1 for row, text in rows if not checked_text(text, f"the data set, row {row}, column 'text'").strip()]
    _log_left_out(0, len(empty), len(texts))
    return texts.select(np.delete(np.arange(len(texts)), empty)) if empty else texts


def _names_text(item: str) -> bool:
    """Return whether an item names a source of text; a file that does not exist is known by its suffix."""
    if item == "python" or item in HUB_TEXTS or (is_url(item) and len(item.split()) == 1):
        return True
    words = str(item).split()
    if len(words) == 1 and names_file(words[0]):
        return True
    try:
        return bool(words) and Path(str(item)).exists()  # the path of an empty text is this folder
    except OSError:  # a text is longer than a name can be
        return False
