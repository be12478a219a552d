"""Batches: of sentences of similar length, and large enough for a loss that compares them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler

from distilface.settings import InputError

#: Batches in one pool of :class:`LengthBatchSampler` at most: sentences are sorted by length inside a pool.
POOL = 64


def check_batch(size: int, least: int, what: str) -> None:
    """Check that a batch holds as many texts as its loss compares: fewer would teach nothing, at a loss of 0.

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


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of sentences of similar length, in random order, reproducible from ``seed`` and epoch.

    Every epoch is shuffled anew, cut into pools of :data:`POOL` batches or a quarter of the epoch (one pool would
    hold the same batches in every epoch), sorted by length inside each pool, and the batches are shuffled: little
    padding, and no curriculum from short to long. The length is the column ``length`` where there is one, else the
    characters of the first text column.
    """

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self.lengths = _lengths(dataset)

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size if self.drop_last else -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.batch_size * min(POOL, max(1, len(self) // 4))
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        starts = np.arange(len(self)) * self.batch_size
        for start in random.permutation(starts):
            yield order[start : start + self.batch_size].tolist()


def _lengths(dataset: Dataset) -> np.ndarray:
    if "length" in dataset.column_names:
        return np.asarray(dataset["length"])
    column = dataset.column_names[0]
    batches = dataset.select_columns([column]).iter(batch_size=10_000)
    return np.concatenate([np.fromiter(map(len, batch[column]), np.int64) for batch in batches])
