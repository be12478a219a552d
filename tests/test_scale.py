"""Text that does not fit the memory: what is kept a row lies on the disk, and everything else is as before."""

import tracemalloc

import numpy as np
import pytest
from datasets import Dataset

from distilface.data.distinct import Seen, distinct
from distilface.data.mapped import mapped_array
from distilface.training.batches import POOL, LengthBatchSampler


def test_items_come_once_and_in_order():
    """Thirty thousand of ten thousand: repeated within a batch, over batches, and over a table that has grown."""
    items = np.random.default_rng(0).integers(0, 10_000, 30_000).tolist()
    assert list(distinct(items, lambda item: str(item).encode())) == list(dict.fromkeys(items))


@pytest.mark.parametrize("bits", [0, 3, 40])
def test_keys_that_want_one_place_are_told_apart(bits):
    """Keys whose last bits are equal all want one place of the table, and its end goes on at its beginning."""
    draw, seen, known = np.random.default_rng(1), Seen(), {1}
    seen.add(np.array([1], np.uint64))
    for _ in range(20):
        keys = (draw.integers(0, 60, 500, np.uint64) << np.uint64(bits)) + np.uint64(4095)
        keys[0] = 0  # counts as 1
        expected = []
        for key in keys.tolist():
            expected.append(max(key, 1) not in known)
            known.add(max(key, 1))
        assert seen.add(keys).tolist() == expected
    assert seen.count == len(known)


def test_distinct_rows_take_no_memory_each():
    """A set of their hashes takes 7 MB for these, and 72 bytes for every further one."""
    tracemalloc.start()
    try:
        count = sum(1 for _ in distinct((str(number) for number in range(100_000)), str.encode))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 100_000
    assert peak < 4e6


@pytest.mark.parametrize("rows", [7, 5_000])
def test_an_epoch_has_the_order_of_numpys_permutation(rows):
    """The order of every training before: it is now drawn in place, in an array of 4 bytes a row."""
    words = np.random.default_rng(2).integers(1, 9, rows)
    data = Dataset.from_dict({"text": ["x" * count for count in words]})
    sampler = LengthBatchSampler(data, 8, drop_last=False, seed=5)
    sampler.set_epoch(3)
    random = np.random.default_rng([5, 3])
    order, batches = random.permutation(rows), -(-rows // 8)
    size = 8 * min(POOL, max(1, batches // 4))
    pools = [order[start : start + size] for start in range(0, rows, size)]
    order = np.concatenate([pool[np.argsort(words[pool], kind="stable")] for pool in pools])
    expected = [order[start : start + 8].tolist() for start in random.permutation(np.arange(batches) * 8)]
    assert list(sampler) == expected


def test_a_mapped_array_shuffles_as_one_in_memory():
    array = mapped_array(300_000, np.int32)
    array[:] = np.arange(300_000)
    np.random.default_rng(0).shuffle(array)
    assert np.array_equal(array, np.random.default_rng(0).permutation(300_000))
    assert array.base is not None  # in a file
