"""Texts and scored pairs: from a file or the Hub to a checked :class:`datasets.Dataset`."""

import csv
import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, concatenate_datasets, load_dataset
from huggingface_hub import hf_hub_download

from distilface.samples import python_texts, sts_sample
from distilface.settings import InputError

#: Hub data sets that are one file of text: SimCSE's million sentences of Wikipedia (arXiv 2104.08821).
HUB_TEXTS = {"princeton-nlp/datasets-for-simcse": "wiki1m_for_simcse.txt"}
HUB_STSB = "mteb/stsbenchmark-sts"
SUFFIXES = (".txt", ".csv", ".tsv", ".jsonl")


def unreachable(what: str, remedy: str, error: Exception) -> InputError:
    """One sentence for whatever a client raises when the Hub, or a thing on it, cannot be had."""
    return InputError(f"{what} could not be had from the Hub ({type(error).__name__}); {remedy}")


def _decoded_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text or gzip file.

    Raises:
        InputError: on a line that is not UTF-8 text (with its number) or a broken gzip file.
    """
    opened = gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    with opened as lines:
        try:
            for number, line in enumerate(lines, 1):
                if b"\0" in line:
                    raise InputError(f"{path}, line {number}: a NUL byte; this is no text file")
                yield line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            bad = error.object[error.start]
            raise InputError(
                f"{path}, line {number}: byte 0x{bad:02x} is not UTF-8; convert the file (iconv -t UTF-8) first"
            ) from None
        except (EOFError, gzip.BadGzipFile) as error:
            raise InputError(f"{path} is a broken gzip file ({error}); compress it again") from None


def _kind(path: Path) -> str:
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if kind not in SUFFIXES:
        raise InputError(f"{path}: {kind or 'no'} suffix; text is read from {', '.join(SUFFIXES)} (each also .gz)")
    return kind


def _need(row: dict[str, Any], columns: Sequence[str], where: str) -> dict[str, Any]:
    missing = [c for c in columns if row.get(c) is None]
    if missing:
        raise InputError(f"{where}: no column {missing[0]!r}; found {', '.join(map(str, row)) or 'none'}")
    return {c: row[c] for c in columns}


def read_rows(path: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a .csv, .tsv or .jsonl file (or .gz of these) as dictionaries of ``columns``.

    Raises:
        InputError: if the file is missing, is not UTF-8 or lacks a column (with the line).
    """
    path = _existing(path)
    if _kind(path) == ".jsonl":
        for number, line in enumerate(_decoded_lines(path), 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: no JSON ({error.msg})") from None
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: a JSON object with {', '.join(columns)} was expected")
            yield _need(row, columns, f"{path}, line {number}")
        return
    lines = csv.DictReader(_decoded_lines(path), delimiter="\t" if _kind(path) == ".tsv" else ",")
    for row in lines:
        yield _need(row, columns, f"{path}, line {lines.line_num}")


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file, a folder of files, or a Hub data set")
    return path


def _sentences(path: Path, column: str) -> Iterator[str]:
    """Yield the non-empty texts of one file, in order, white space at the ends removed."""
    if _kind(path) == ".txt":
        rows: Iterable[str] = _decoded_lines(path)
    else:
        rows = (str(row[column]) for row in read_rows(path, [column]))
    yield from (text for row in rows if (text := row.strip()))


def _distinct(paths: Sequence[str], column: str, fingerprint: str) -> Iterator[dict[str, str]]:
    """Yield each distinct sentence once. ``fingerprint`` only makes the cache notice a changed file."""
    seen: set[bytes] = set()
    for path in paths:
        for text in _sentences(Path(path), column):
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
        return [_existing(path)]
    try:
        return [Path(hf_hub_download(source, HUB_TEXTS[source], repo_type="dataset"))]
    except Exception as error:
        raise unreachable(f"the data set {source}", "give local text with --data FILE", error) from None


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
    parts = [_read_python() if source == "python" else _read_files(_files(source), column) for source in sources]
    texts = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
    if limit is not None and limit < 2:
        raise InputError(f"{limit} sentences are too few to train on; ask for at least 2")
    if limit is not None and limit < len(texts):
        texts = texts.shuffle(seed=seed).select(range(limit)).flatten_indices()
    return texts


def _read_python() -> Dataset:
    return Dataset.from_dict({"text": python_texts()})


def _read_files(paths: Sequence[Path], column: str) -> Dataset:
    """Check every file, then read them through the data sets library's cache, keyed by their content."""
    digest = hashlib.sha256(column.encode())
    count, first, varied = 0, None, False
    for path in paths:
        before = count
        for text in _sentences(path, column):
            digest.update(text.encode() + b"\n")
            first = text if first is None else first
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
    kwargs = {"paths": [str(p) for p in paths], "column": column, "fingerprint": digest.hexdigest()}
    return Dataset.from_generator(_distinct, gen_kwargs=kwargs)


def fingerprint(dataset: Dataset, column: str = "text") -> str:
    """Return the sha256 (16 hex digits) of a text column, row by row in order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns([column]).iter(batch_size=10_000):
        digest.update("\n".join(batch[column]).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def read_sts(source: str, split: str = "validation") -> Dataset:
    """Read scored pairs: columns ``sentence1``, ``sentence2``, ``score`` (any scale, higher is more similar).

    Args:
        source: a .csv, .tsv or .jsonl file (or .gz), a folder that holds one such file, ``sample`` for the
            package's own small set, or a Hub data set as ``mteb/stsbenchmark-sts``.
        split: the split of a Hub data set.

    Raises:
        InputError: if it cannot be read, has fewer than three rows, or a score is no number.
    """
    if source == "sample":
        return sts_sample()
    if Path(source).exists() or source.endswith((*SUFFIXES, ".gz")):
        paths = _files(source)
        rows = [_scored(row, paths[0]) for row in read_rows(paths[0], ["sentence1", "sentence2", "score"])]
        if len(rows) < 3:
            raise InputError(f"{paths[0]}: {len(rows)} scored pairs; a correlation needs at least 3")
        return Dataset.from_list(rows)
    try:
        return load_dataset(source, split=split).select_columns(["sentence1", "sentence2", "score"])
    except Exception as error:
        remedy = "give scored pairs with --dev FILE, or --dev sample for the package's own"
        raise unreachable(f"the data set {source}", remedy, error) from None


def _scored(row: dict[str, Any], path: Path) -> dict[str, Any]:
    try:
        return {**row, "score": float(row["score"])}
    except (TypeError, ValueError):
        raise InputError(f"{path}: the score {row['score']!r} is no number") from None
