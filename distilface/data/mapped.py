"""Rows of text as a memory-mapped data set, written while they are read."""

import hashlib
import mmap
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets import Dataset
from filelock import FileLock, Timeout

from distilface.storage import whole_file

#: Rows of a record batch, and the characters after which it ends early: what is held in memory, and what one access by
#: index searches.
_ROWS, _CHARACTERS = 1000, 2**26
#: Bytes up to which an array is held in memory.
_SMALL = 2**20


def mapped_dataset(rows: Iterator[Sequence[str]], columns: Sequence[str], key: str | None = None) -> Dataset:
    """Write rows into the cache of the ``datasets`` library as they come, and return them memory-mapped.

    The file is named after the sha256 of its rows: the same rows are kept once, and what is computed of them (an order,
    tokens) is found again in the cache. If ``rows`` raises, nothing is left.

    Args:
        rows: a text for each of the columns.
        columns: their names.
        key: what names the rows before they are read: they are not, if they are there. ``None``: their own digest.
    """
    folder = _folder()
    _drop_leftovers(folder)
    known = folder / f"{'-'.join(columns)}-{key}.arrow"
    if key and known.is_file():
        return Dataset.from_file(str(known))
    new, digest = folder / f"{secrets.token_hex(8)}.new", hashlib.sha256()
    schema = pa.schema([(name, pa.string()) for name in columns])
    with _marked(new):
        with whole_file(new) as file, pa.ipc.new_stream(file, schema) as writer:
            for batch in _batches(rows):
                table = pa.record_batch([pa.array(values, pa.string()) for values in zip(*batch, strict=True)], schema)
                digest.update(table.serialize())
                writer.write_batch(table)
        path = known if key else folder / f"{'-'.join(columns)}-{digest.hexdigest()}.arrow"
        if not path.is_file():  # else its time stays: it is part of the key of what was computed of these rows
            new.replace(path)
    return Dataset.from_file(str(path))


def mapped_array(count: int, dtype: Any) -> np.ndarray:
    """Return an array of zeros that lies in a file without a name: it is gone with the array, or with the process.

    The system writes it to the disk, and drops it from memory, where memory is short. A small one is held in memory.

    Args:
        count: of its numbers.
        dtype: numpy's name or type of them.

    Raises:
        OSError: on a full disk.
    """
    size = count * np.dtype(dtype).itemsize
    if size <= _SMALL:
        return np.zeros(count, dtype)
    with tempfile.TemporaryFile(dir=_folder()) as file:
        if hasattr(os, "posix_fallocate"):  # else a disk that fills up later would end the process by a signal
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        # not numpy's memmap: a shuffle of that class takes another way, to another order
        return np.ndarray(count, dtype, mmap.mmap(file.fileno(), size))


def _folder() -> Path:
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "distilface"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _batches(rows: Iterator[Sequence[str]]) -> Iterator[list[Sequence[str]]]:
    batch: list[Sequence[str]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += sum(map(len, row))
        if len(batch) == _ROWS or size > _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@contextmanager
def _marked(new: Path) -> Iterator[None]:
    """Mark a file as being written, by a lock that ends with the process; in the end nothing of it is left."""
    mark = new.with_name(f"{new.name}.lock")
    try:
        with FileLock(mark):
            yield
    finally:
        for file in (new, new.with_name(f"{new.name}.part"), mark):
            file.unlink(missing_ok=True)


def _drop_leftovers(folder: Path) -> None:
    """Remove what killed processes have left: files that are marked by nobody any more."""
    for new in {file.with_name(f"{file.name.partition('.')[0]}.new") for file in folder.glob("*.new*")}:
        mark = new.with_name(f"{new.name}.lock")
        try:
            with FileLock(mark, timeout=0):
                for file in (new, new.with_name(f"{new.name}.part")):
                    file.unlink(missing_ok=True)
            mark.unlink(missing_ok=True)
        except Timeout:  # another process writes it now
            continue
