"""Texts and scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from datasets import Dataset, concatenate_datasets

from distilface.data.rows import SUFFIXES, checked_text, decoded_lines, existing_file, kind_of, read_rows
from distilface.data.samples import python_texts
from distilface.hub_ids import HUB_TEXTS, from_hub
from distilface.settings import InputError


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


def text_files(source: str) -> list[Path]:
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
        sources: .txt (a sentence a line), .csv, .tsv, .jsonl (.gz of these) or .parquet files, folders of them,
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
    paths = tuple(path for source in sources for path in ([None] if source == "python" else text_files(source)))
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


def as_texts(data: Sequence[str] | Dataset) -> tuple[list[str], Dataset | None]:
    """Tell sources of text from text: return the sources to read, or the sentences as a data set.

    >>> as_texts(["python"])[0], as_texts(["A cat sat.", "A dog ran."])[1]["text"][:]
    (['python'], ['A cat sat.', 'A dog ran.'])

    Args:
        data: sources, as :func:`read_texts` takes them; or sentences; or a data set with a column ``text``.

    Raises:
        InputError: on a mix of both, a file that is not there, text that :func:`read_texts` would refuse, or a data set
            without that column.
    """
    if isinstance(data, Dataset):
        if "text" not in data.column_names:
            raise InputError(f"the data set has no column 'text' but {', '.join(data.column_names)}; rename one to it")
        return [], data.select_columns(["text"])
    items = list(data)
    named = [item for item in items if _names_text(item)]
    if len(named) == len(items):
        return items, None
    if named:
        raise InputError(f"data holds both sentences and files ({named[0]}); give one or the other")
    sentences = list(dict.fromkeys(text for item in items if (text := checked_text(item, "data").strip())))
    if len(sentences) < 2:
        raise InputError(f"data holds {len(sentences)} different sentences; at least two are needed")
    return [], Dataset.from_dict({"text": sentences})


def _names_text(item: str) -> bool:
    """Say whether an item names text and is not text: a file that is not there is still named by its suffix."""
    if item == "python" or item in HUB_TEXTS:
        return True
    one_word = len(str(item).split()) == 1
    return Path(str(item)[:255]).exists() or (one_word and str(item).removesuffix(".gz").endswith(SUFFIXES))
