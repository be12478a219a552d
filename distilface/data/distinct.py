"""What was seen before, in 8 bytes each, whatever its size, in a table on the disk."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np

from distilface.data.mapped import mapped_array

T = TypeVar("T")

#: Items that are looked up at once, and the bytes after which fewer are: what is held in memory.
_ITEMS, _BYTES = 4096, 2**24
#: Places of a table at first; half of them stay free. Those of a table that are moved to a larger one at once.
_PLACES, _MOVED = 2**12, 2**14


class Seen:
    """Keys that were seen: a hash table whose places follow each other (linear probing), of 16 to 32 bytes a key.

    It lies on the disk, mapped: what the system keeps of it in memory, it can drop. A Python set takes 70 to 100 bytes
    of memory a key.
    """

    def __init__(self) -> None:
        self.count, self.table = 0, mapped_array(_PLACES, np.uint64)

    def add(self, keys: np.ndarray) -> np.ndarray:
        """Add keys, and say of each whether it was seen neither before nor earlier among them.

        Args:
            keys: shape (n,), uint64, spread evenly. 0 counts as 1: it marks a place that is free.
        """
        distinct, first = np.unique(np.maximum(keys, np.uint64(1)), return_index=True)
        while 2 * (self.count + len(distinct)) > len(self.table):
            self._grow()
        new = np.zeros(len(keys), bool)
        new[first] = _insert(self.table, distinct)
        self.count += int(new.sum())
        return new

    def _grow(self) -> None:
        """Move all keys to a table of twice as many places."""
        larger = mapped_array(2 * len(self.table), np.uint64)
        for start in range(0, len(self.table), _MOVED):
            part = self.table[start : start + _MOVED]
            _insert(larger, part[part > 0])
        self.table = larger


def _insert(table: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Put keys, all different, where they are not in a table yet; say of each whether it was put there."""
    last = np.uint64(len(table) - 1)
    places, left, new = keys & last, np.arange(len(keys)), np.zeros(len(keys), bool)
    while len(left):
        free = left[table[places[left]] == 0]
        table[places[free]] = keys[free]  # of several keys that meet here, one stays: the others go on
        new[free] = table[places[free]] == keys[free]
        left = left[table[places[left]] != keys[left]]
        places[left] = (places[left] + np.uint64(1)) & last
    return new


def digest_of(content: bytes) -> bytes:
    """Return 8 bytes that contents are told apart by: two that differ have the same ones once in 2^64."""
    return hashlib.blake2b(content, digest_size=8).digest()


def distinct(items: Iterable[T], content: Callable[[T], bytes]) -> Iterator[T]:
    """Yield each item once, in order.

    >>> list(distinct(["a", "b", "a"], str.encode))
    ['a', 'b']

    Args:
        items: are read some thousands ahead.
        content: of an item, as :func:`digest_of` takes it.
    """
    seen, batch, keys, size = Seen(), [], [], 0
    for item in items:
        key = content(item)
        batch.append(item)
        keys.append(digest_of(key))
        size += len(key)
        if len(batch) == _ITEMS or size > _BYTES:
            yield from _new(seen, batch, keys)
            batch, keys, size = [], [], 0
    yield from _new(seen, batch, keys)


def _new(seen: Seen, batch: list[T], keys: list[bytes]) -> list[T]:
    new = seen.add(np.frombuffer(b"".join(keys), np.uint64))
    return [item for item, is_new in zip(batch, new.tolist(), strict=True) if is_new]
