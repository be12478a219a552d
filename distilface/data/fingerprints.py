"""What tells one data set of texts from another: the hash of a column."""

import hashlib
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from datasets import Dataset

from distilface.data.columns import checked_text

_FINGERPRINTS: WeakKeyDictionary[Dataset, dict[str, str]] = WeakKeyDictionary()


def fingerprint(dataset: Dataset, column: str = "text") -> str:
    """Return the sha256 (16 hex digits) of a text column, row by row in order; computed once for a data set.

    A row ends in a line feed. A line feed inside a text gets a NUL before it, and so does a NUL: data sets whose texts
    break at different places must differ.

    Raises:
        InputError: on a row that is not text.
    """
    known = _FINGERPRINTS.setdefault(dataset, {})
    if column not in known:
        digest, first = hashlib.sha256(), 1
        for batch in dataset.select_columns([column]).iter(batch_size=10_000):
            digest.update(_joined(batch[column], first, column))
            first += len(batch[column])
        known[column] = digest.hexdigest()[:16]
    return known[column]


def _joined(rows: Sequence[str], first: int, column: str) -> bytes:
    """Return rows as one string of bytes, from which they could be read back; ``first`` is the number of the first."""
    try:
        joined = "\n".join(rows)
        if "\0" in joined or joined.count("\n") != len(rows) - 1:
            joined = "\n".join(row.replace("\0", "\0\0").replace("\n", "\0\n") for row in rows)
        return joined.encode() + b"\n"
    except (TypeError, UnicodeEncodeError):
        for number, row in enumerate(rows, first):
            checked_text(row, f"the data set, row {number}, column {column!r}")
        raise
