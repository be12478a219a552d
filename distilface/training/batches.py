"""Batches: of sentences of similar length, and large enough for a loss that compares them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.sampler import DefaultBatchSampler

from distilface import processes
from distilface.data.mapped import mapped_array
from distilface.settings import InputError

#: Batches in one pool of :class:`LengthBatchSampler` at most: sentences are sorted by length inside a pool.
POOL = 64
#: Rows whose lengths are read at once.
_ROWS = 10_000


def check_processes(what: str, why: str) -> None:
    """Refuse several processes for what they cannot train together.

    Args:
        what: the method or the setting.
        why: they cannot.

    Raises:
        InputError: saying why.
    """
    if processes.count() > 1:
        raise InputError(f"{what} trains in one process, not in {processes.count()}: {why}")


def check_batch(size: int, least: int, what: str) -> None:
    """Check that a batch holds as many texts as its loss compares: fewer would teach nothing, at a loss of 0.

    It is dealt out to the processes that train together, so it must also be a multiple of their number.

    Args:
        size: of a batch.
        least: the texts that the loss needs.
        what: the method or the stage.

    Raises:
        InputError: naming both.
    """
    if size < least:
        raise InputError(
            f"--batch_size {size} is too small for {what}: its loss compares the texts of a batch; give {least} or more"
        )
    if size % (parts := processes.count()):
        raise InputError(
            f"--batch_size {size} of {what} cannot be dealt out evenly to {parts} processes; give a multiple of {parts}"
        )


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of sentences of similar length, in random order, reproducible from ``seed`` and epoch.

    Every epoch is shuffled anew, cut into pools of :data:`POOL` batches or a quarter of the epoch (one pool would
    hold the same batches in every epoch), sorted by length inside each pool, and the batches are shuffled: little
    padding, and no curriculum from short to long. The length is the column ``length`` where there is one, else the
    characters of the first text column.

    Several processes that train together make the batches of one: each batch is dealt out, every ``count``-th text to
    one of them. accelerate gives a process every ``count``-th batch that comes from here, so they come as the parts of
    one batch after those of another. A last batch that cannot be dealt out evenly leaves out up to ``count - 1`` texts:
    the mean over the processes would not be that over the texts.

    Args:
        dataset: what is read.
        batch_size: of one process.
        drop_last: leave out a last batch that is not full.
    """

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self.lengths, self.parts = _lengths(dataset), processes.count()
        self.whole = batch_size * self.parts
        if self.parts > 1:
            self.batch_size: Any = None  # accelerate would wait for full parts alone

    def _batches(self) -> int:
        """Return the batches of an epoch, of all processes together."""
        full, rest = divmod(len(self.lengths), self.whole)
        return full + (not self.drop_last and rest >= self.parts)

    def __len__(self) -> int:
        return self._batches() * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = mapped_array(len(self.lengths), np.int32 if len(self.lengths) < 2**31 else np.int64)
        for start in range(0, len(order), _ROWS):
            order[start : start + _ROWS] = np.arange(start, min(start + _ROWS, len(order)))
        random.shuffle(order)  # the same order as of ``permutation``
        size = self.whole * min(POOL, max(1, self._batches() // 4))
        for start in range(0, len(order), size):
            pool = order[start : start + size]
            pool[:] = pool[np.argsort(self.lengths[pool], kind="stable")]
        for start in random.permutation(np.arange(self._batches()) * self.whole):
            batch = order[start : start + self.whole].tolist()
            batch = batch[: len(batch) // self.parts * self.parts]
            yield from (batch[part :: self.parts] for part in range(self.parts))


class TokenBatchSampler(DefaultBatchSampler):
    """Batches of as many texts of similar length as fit a number of padded tokens: a long text costs no more memory.

    The texts are sorted by their tokens, rounded up by an eighth at most, and cut into batches once. So every epoch has
    as many batches, of the same sizes, as upstream counts on at a resume; which texts of one rounded length stand
    together, and the order of the batches, are drawn from ``seed`` and epoch.

    Each batch is one step, so a text counts for less the more of them are in its batch: about by its tokens. Several
    processes make the batches of one, dealt out as those of :class:`LengthBatchSampler` are.

    Args:
        dataset: what is read.
        batch_size: upstream's, not read.
        drop_last: upstream's, not read: no batch is full.
        tokens: of a batch of all processes together: its texts times the tokens of the longest of them, at most.
        lengths: the tokens of each text.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, drop_last: bool, *, tokens: int, lengths: np.ndarray, **kwargs: Any
    ) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self.parts, self.rounded = processes.count(), round_lengths(lengths)
        self.cuts = cut_batches(np.sort(self.rounded), tokens, self.parts)
        if self.parts > 1:
            self.batch_size: Any = None  # accelerate would wait for full parts alone

    def __len__(self) -> int:
        return len(self.cuts) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = np.lexsort((random.random(len(self.rounded)), self.rounded))
        for start, end in random.permutation(self.cuts):
            batch = order[start:end].tolist()
            yield from (batch[part :: self.parts] for part in range(self.parts))


def round_lengths(lengths: np.ndarray) -> np.ndarray:
    """Round lengths up to three binary digits after the first, so that many texts have each; the longest stays."""
    steps = 2 ** np.maximum(np.log2(np.maximum(lengths, 1)).astype(np.int64) - 3, 0)
    return np.minimum(-(-lengths // steps) * steps, lengths.max(initial=0))


def cut_batches(lengths: np.ndarray, tokens: int, parts: int = 1) -> np.ndarray:
    """Return where each batch of texts in their order begins and ends, shape (batches, 2).

    Args:
        lengths: of the texts, rising.
        tokens: of a batch, enough for ``parts`` of the longest text.
        parts: what the texts of a batch are a multiple of; a last batch leaves out up to ``parts - 1`` texts.
    """
    cuts: list[tuple[int, int]] = []
    start = 0
    while start < len(lengths):
        padded = lengths[start : start + tokens // max(int(lengths[start]), 1)]
        count = int(np.searchsorted(padded * np.arange(1, len(padded) + 1), tokens, side="right"))
        if (count := count // parts * parts) == 0:
            break
        cuts.append((start, start + count))
        start += count
    return np.array(cuts, np.int64).reshape(-1, 2)


def token_lengths(dataset: Dataset, model: SentenceTransformer, length: int) -> np.ndarray:
    """Return how many tokens of each text of the first column a training reads, at most ``length``."""
    column = dataset.column_names[0]
    counts: list[np.ndarray] = []
    for batch in dataset.with_format(None).select_columns([column]).iter(batch_size=10_000):
        tokens = model.tokenizer(batch[column], truncation=True, max_length=length, return_attention_mask=False)
        counts.append(np.fromiter(map(len, tokens["input_ids"]), np.int64))
    return np.concatenate(counts)


def _lengths(dataset: Dataset) -> np.ndarray:
    """Return the length of each row, in 4 bytes a row on the disk."""
    known = "length" in dataset.column_names
    column = "length" if known else dataset.column_names[0]
    lengths = mapped_array(len(dataset), np.int32)
    batches = dataset.select_columns([column]).with_format(None).iter(batch_size=_ROWS)
    for start, batch in enumerate(batches):
        rows = batch[column] if known else map(len, batch[column])
        lengths[start * _ROWS : (start + 1) * _ROWS] = np.fromiter(rows, np.int32)
    return lengths
