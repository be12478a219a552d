"""Two sets of texts in one, with a mark on those of the second."""

from collections.abc import Iterator
from operator import itemgetter

import numpy as np
from datasets import Dataset, concatenate_datasets

from distilface.data.distinct import distinct

#: The column of the mark.
MARK = "marked"


def marked(texts: Dataset, others: Dataset) -> Dataset:
    """Return both sets, each text once, with a column :data:`MARK` that is true of the others; a text in both is one.

    >>> both = marked(Dataset.from_dict({"text": ["a", "b"]}), Dataset.from_dict({"text": ["b", "c"]}))
    >>> both["text"][:], both["marked"][:]
    (['b', 'c', 'a'], [True, True, False])

    Args:
        texts: a column ``text``, as :func:`distilface.data.texts.read_texts` gives it.
        others: the same.
    """
    both = concatenate_datasets([others, texts.cast(others.features)])  # of pandas a column is of large strings
    numbered = ((row, text.encode()) for row, text in enumerate(_read(both)))
    rows = np.fromiter((row for row, _ in distinct(numbered, itemgetter(1))), np.int64)
    kept = both if len(rows) == len(both) else both.select(rows).flatten_indices()
    return concatenate_datasets([kept, Dataset.from_dict({MARK: rows < len(others)})], axis=1)


def _read(texts: Dataset) -> Iterator[str]:
    for batch in texts.iter(batch_size=10_000):
        yield from batch["text"]
