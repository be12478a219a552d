"""What a teacher has embedded of other texts: a text that stands there too is not embedded again."""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset
from datasets.table import MemoryMappedTable

from distilface.data.distinct import digest_of
from distilface.data.mapped import mapped_array
from distilface.embedding.rounding import restored
from distilface.embedding.store import Store
from distilface.storage import whole_file

#: Bytes of a text in a file of keys.
KEY_BYTES = 16
#: Shards whose texts are looked for at once, in each file of keys: so many texts are held in memory, 24 bytes each.
_TOGETHER = 64


def keys_of(texts: Sequence[str]) -> np.ndarray:
    """Return what texts are found by, of :func:`distilface.data.distinct.digest_of`; shape (n,), uint64.

    >>> first, second, third = keys_of(["a", "b", "a"]).tolist()
    >>> first == third, first == second
    (True, False)
    """
    return np.frombuffer(b"".join(digest_of(text.encode()) for text in texts), np.uint64)


def keep_keys(shard: Path, keys: np.ndarray) -> None:
    """Write the keys of a shard's texts beside it: shape (2, n), the keys in ascending order, and the row of each."""
    order = np.argsort(keys)
    with whole_file(shard.with_suffix(".keys")) as file:
        np.save(file, np.stack([keys[order], order.astype(np.uint64)]))


class Known:
    """The embeddings that lie beside those of one store: of the same teacher, in the same precision, of other texts.

    Each file of keys is read once for every :data:`_TOGETHER` shards, and where a text was found takes 8 bytes on the
    disk. A shard without keys, of an older version, or one that is damaged, is passed over.

    Args:
        store: whose folder is called ``<teacher>-<texts>-<precision>``.
        missing: the numbers of the shards that are to be computed, each with its rows.
        texts_of: gives the texts of such a shard; it is asked only where there is something to look in.
    """

    def __init__(self, store: Store, missing: Mapping[int, int], texts_of: Callable[[int], Sequence[str]]) -> None:
        teacher, _, precision = store.folder.name.split("-", 2)
        others = sorted(set(store.folder.parent.glob(f"{teacher}-*-{precision}")) - {store.folder})
        self.column = store.column
        self._files = [file for folder in others for file in sorted(folder.glob("*.keys"))]
        ends = dict(zip(missing, itertools.accumulate(missing.values()), strict=True))
        self._rows = {number: slice(end - missing[number], end) for number, end in ends.items()}
        # of each text the number of its file, from 1 on, and the row there: 0 where it was not found
        self._places = mapped_array(2 * sum(missing.values()) if self._files else 0, np.int32).reshape(-1, 2)
        if self._files:
            for start in range(0, len(missing), _TOGETHER):
                self._find(list(missing)[start : start + _TOGETHER], texts_of)

    def _find(self, numbers: Sequence[int], texts_of: Callable[[int], Sequence[str]]) -> None:
        """Note where the texts of some shards, which follow each other, are found."""
        keys = np.concatenate([keys_of(texts_of(number)) for number in numbers])
        order = np.argsort(keys)
        keys = keys[order]
        places = self._places[self._rows[numbers[0]].start : self._rows[numbers[-1]].stop]
        for number, file in enumerate(self._files, 1):
            theirs, rows = _read(file)
            if not len(theirs) or _shard(file, len(theirs)) is None:
                continue
            at = np.searchsorted(keys, theirs).clip(max=len(keys) - 1)  # fast, for both are in order
            found = np.flatnonzero(keys[at] == theirs)
            places[order[at[found]], 0] = number
            places[order[at[found]], 1] = rows[found]

    def count(self) -> int:
        """Return how many of the texts are known."""
        return int(np.count_nonzero(self._places[:, 0])) if self._files else 0

    def missing(self, number: int, texts: Sequence[str]) -> Sequence[str]:
        """Return the texts of a shard that are not known."""
        return list(itertools.compress(texts, self._places[self._rows[number], 0] == 0)) if self._files else texts

    def fill(self, number: int, embeddings: np.ndarray) -> np.ndarray:
        """Write the embeddings of a shard that are known into their rows; return the rows that are not.

        Args:
            number: of the shard.
            embeddings: shape (its rows, width), float32.
        """
        left = np.ones(len(embeddings), bool)
        for ours, shard, theirs in self._shards(number):
            with contextlib.suppress(pa.ArrowException, OSError, IndexError, KeyError, ValueError):
                embeddings[ours] = restored(np.asarray(shard.with_format("numpy").select(theirs)[self.column][:]))
                left[ours] = False
        return np.flatnonzero(left)

    def _shards(self, number: int) -> Iterator[tuple[np.ndarray, Dataset, np.ndarray]]:
        """Yield each shard that has texts of one that is to be computed, their rows in this, and those in that."""
        places = np.asarray(self._places[self._rows[number]]) if self._files else np.empty((0, 2), np.int32)
        for file in np.unique(places[places[:, 0] > 0, 0]):
            ours = np.flatnonzero(places[:, 0] == file)
            shard = _shard(self._files[file - 1])
            if shard is not None:
                yield ours, shard, places[ours, 1]


def _read(file: Path) -> np.ndarray:
    """Return what :func:`keep_keys` wrote; no key of a file that is damaged."""
    try:
        return np.asarray(np.load(file))
    except (OSError, EOFError, ValueError):
        return np.empty((2, 0), np.uint64)


def _shard(keys: Path, rows: int | None = None) -> Dataset | None:
    """Map the shard that a file of keys lies beside; ``None`` if it is not there, is damaged or has other rows."""
    try:
        shard = Dataset(MemoryMappedTable.from_file(str(keys.with_suffix(".arrow"))))
    except (pa.ArrowException, OSError):
        return None
    return shard if rows in (None, len(shard)) else None
