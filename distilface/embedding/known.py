"""What a teacher has embedded of other texts: a text that stands there too is not embedded again."""

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable

from distilface.embedding.rounding import restored
from distilface.embedding.store import Store
from distilface.storage import whole_file


def keys_of(texts: Sequence[str]) -> np.ndarray:
    """Return what texts are found by: two that differ have the same 8 bytes of BLAKE2b once in 2^64.

    >>> first, second, third = keys_of(["a", "b", "a"]).tolist()
    >>> first == third, first == second
    (True, False)
    """
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)


def keep_keys(shard: Path, keys: np.ndarray) -> None:
    """Write the keys of a shard's texts beside it: shape (2, n), the keys in ascending order, and the row of each."""
    order = np.argsort(keys)
    with whole_file(shard.with_suffix(".keys")) as file:
        np.save(file, np.stack([keys[order], order.astype(np.uint64)]))


class Known:
    """The embeddings that lie beside those of one store: of the same teacher, in the same precision, of other texts.

    One shard is read at a time, so they cost no memory however many they are. A shard without keys, of an older
    version, or one that is damaged, is passed over.

    Args:
        store: whose folder is called ``<teacher>-<texts>-<precision>``.
    """

    def __init__(self, store: Store) -> None:
        teacher, _, precision = store.folder.name.split("-", 2)
        others = sorted(set(store.folder.parent.glob(f"{teacher}-*-{precision}")) - {store.folder})
        self.files = [file for folder in others for file in sorted(folder.glob("*.keys"))]
        self.column = store.column

    def _places(self, keys: np.ndarray) -> Iterator[tuple[Path, np.ndarray, np.ndarray]]:
        """Yield each shard that has some of the texts, the rows of these among ``keys``, and theirs in the shard."""
        order = np.argsort(keys)
        left, ours = np.ones(len(keys), bool), keys[order]
        for file in self.files:
            shard = file.with_suffix(".arrow")
            if not shard.is_file() or not left.any():
                continue
            theirs, rows_there = _read(file)
            places = np.searchsorted(theirs, ours)  # fast, for both are in order
            places[places == len(theirs)] = 0
            found = np.flatnonzero(theirs[places] == ours) if len(theirs) else np.empty(0, int)
            found = found[left[order[found]]]
            if len(found):
                left[order[found]] = False
                yield shard, order[found], rows_there[places[found]].astype(int)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are not known."""
        if not self.files:
            return list(texts)
        left = np.ones(len(texts), bool)
        for _, rows, _ in self._places(keys_of(texts)):
            left[rows] = False
        return list(itertools.compress(texts, left))

    def fill(self, keys: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
        """Write the embeddings that are known into their rows.

        Args:
            keys: of n texts, all different.
            embeddings: shape (n, width), float32.

        Returns:
            The rows that are not known.
        """
        left = np.ones(len(keys), bool)
        for shard, rows, theirs in self._places(keys):
            with contextlib.suppress(pa.ArrowException, OSError, IndexError, KeyError, ValueError):
                held = Dataset(MemoryMappedTable.from_file(str(shard))).with_format("numpy").select(theirs)
                embeddings[rows] = restored(np.asarray(held[self.column][:]))
                left[rows] = False
        return np.flatnonzero(left)


def _read(file: Path) -> np.ndarray:
    """Return what :func:`keep_keys` wrote; no key of a file that is damaged."""
    try:
        return np.asarray(np.load(file))
    except (OSError, EOFError, ValueError):
        return np.empty((2, 0), np.uint64)
