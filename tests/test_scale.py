"""Text that does not fit the memory: what is kept a row lies on the disk, and everything else is as before."""

import logging
import tracemalloc

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import tiny_model

from distilface.data.distinct import Seen, distinct
from distilface.data.mapped import mapped_array
from distilface.embedding.rounding import restored
from distilface.embedding.store import Store
from distilface.embedding.teacher_cache import embed
from distilface.methods.embedding import Distillation, DistillSettings, EmbeddingLoss
from distilface.methods.leaf import LeafLoss
from distilface.settings import InputError
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


@pytest.fixture
def texts():
    return Dataset.from_dict({"text": ["a dog", "the big dog", "a cat sat", "the cat"]})


def kept(texts, teacher, cache, dtype):
    """Return a teacher's embeddings as a batch of the training has them."""
    return embed(teacher, texts, cache, bf16=False, dtype=dtype).with_format("torch")[:]["label"]


@pytest.mark.parametrize(("dtype", "size"), [("float16", 2 * 32), ("int8", 4 + 32)])
def test_rounded_embeddings_are_as_close_as_they_can_be(teacher, texts, tmp_path, caplog, dtype, size):
    """Half of the last place of a float16, half of a 127th of the largest number of an int8 row."""
    caplog.set_level(logging.INFO, logger="distilface")
    exact = kept(texts, teacher, tmp_path, "float32").numpy()
    rows = restored(kept(texts, teacher, tmp_path, dtype)).numpy()
    largest = np.abs(exact).max(axis=1, keepdims=True)
    bound = np.abs(exact) * 2.0**-11 + 2.0**-25 if dtype == "float16" else largest / 254 * 1.0001
    assert rows.dtype == np.float32
    assert np.abs(rows - exact).max() > 0
    assert (np.abs(rows - exact) <= bound).all()
    assert f"4 of 4 embeddings to compute, 32 x {dtype}" in caplog.text
    [file] = tmp_path.glob(f"*-fp32-{dtype}/*.arrow")
    assert Dataset.from_file(str(file)).data.nbytes == 4 * size


def test_the_default_cache_is_what_it_was(teacher, texts, tmp_path):
    embed(teacher, texts, tmp_path / "cache", bf16=False)
    [folder] = (tmp_path / "cache").iterdir()
    assert folder.name.endswith("-fp32")
    assert Dataset.from_file(str(folder / "000000000.arrow")).features["label"].feature.dtype == "float32"


def test_a_row_of_zeros_stays_and_large_numbers_are_refused(tmp_path):
    rows, one = np.zeros((1, 3), np.float32), Dataset.from_dict({"text": ["a"]})
    for dtype in ("float16", "int8"):
        store = Store(tmp_path, "label", "the teacher", dtype)
        store.write(0, ["a"], rows)
        assert np.array_equal(restored(np.asarray(store.beside(one, [1])["label"][:])), rows)
    with pytest.raises(InputError, match="float16 is too small for what the teacher gives for 'a'; keep float32"):
        Store(tmp_path, "label", "the teacher", "float16").write(0, ["a"], rows + 1e6)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("make", [EmbeddingLoss, LeafLoss])
def test_losses_read_rounded_embeddings(teacher, texts, tmp_path, make, dtype):
    """Taken as they lie on the disk, the bytes of a scale would be four more numbers, and none of the right size."""
    labels = kept(texts, teacher, tmp_path / "cache", dtype)
    student = tiny_model(tmp_path / "student", seed=1).eval()
    loss = LeafLoss(student, distance_metric="mse") if make is LeafLoss else make(student)
    features = student.preprocess(texts["text"][:])
    with torch.no_grad():
        embeddings = student(dict(features))["sentence_embedding"].numpy()
        value = float(loss([features], labels))
    distance = (embeddings - restored(labels).numpy()) ** 2
    expected = distance.mean() if make is EmbeddingLoss else distance.sum(axis=1).mean()
    assert value == pytest.approx(expected, rel=1e-5)


def test_a_dtype_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="teacher_dtype"):
        Distillation().check(DistillSettings(data=["a.txt"], teacher_dtype="int4"))
    with pytest.raises(InputError, match="--teacher_dtype int8 keeps one teacher's own embeddings"):
        Distillation().check(DistillSettings(data=["a.txt"], teacher_dtype="int8", rotate=True))
