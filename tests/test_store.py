"""The store of embeddings: a shard is written whole or not at all, found again, and refused where it is damaged."""

import pickle
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from filelock import FileLock

from distilface.data.mapped import mapped_dataset
from distilface.embedding.output import Output
from distilface.embedding.store import Store
from distilface.settings import InputError

SIZES = (8, 8, 3)
TEXTS = [f"text {row}" for row in range(sum(SIZES))]
ROWS = Dataset.from_dict({"text": TEXTS})
VECTORS = np.random.default_rng(0).standard_normal((sum(SIZES), 5)).astype(np.float32)
Usage = namedtuple("Usage", "free")


def write(store: Store, *numbers: int, vectors: np.ndarray = VECTORS) -> None:
    for number in numbers:
        rows = slice(number * 8, number * 8 + 8)
        store.write(number, TEXTS[rows], vectors[rows])


@pytest.fixture
def store(tmp_path) -> Store:
    (tmp_path / "s").mkdir()
    return Store(tmp_path / "s", "label", "m")


def test_shards_are_found_again_in_their_order(store):
    assert store.missing(3) == [0, 1, 2]
    write(store, 2, 0)
    assert Store(store.folder, "label", "m").missing(3) == [1]
    write(store, 1)
    assert store.missing(3) == []
    dataset = store.beside(ROWS, SIZES)
    assert np.array_equal(np.array(dataset["label"][:], np.float32), VECTORS)
    assert dataset["text"][:] == TEXTS
    assert dataset.features["label"].feature.dtype == "float32"


def test_texts_in_another_order_stay_beside_their_embeddings(store):
    write(store, 0, 1, 2)
    turned = Dataset.from_dict({"text": TEXTS[::-1]}).select(range(18, -1, -1))
    assert store.beside(turned, SIZES)["text"][:] == TEXTS
    with pytest.raises(InputError, match="holds 3 rows, not 8"):
        store.beside(turned, (8, 8, 8))


def test_a_shard_is_joined_to_its_own_rows_alone(store, own_cache):
    """Of a mapped text, each piece remembers how it was cut: alike, however many shards are before it."""
    texts = mapped_dataset(((text,) for text in TEXTS), ["text"])
    for number in range(19):
        store.write(number, TEXTS[number : number + 1], VECTORS[number : number + 1])
    blocks = store.beside(texts, [1] * 19).data.blocks
    assert len({len(cut[0].replays) for cut in blocks}) == 1


def test_a_data_set_stays_on_the_disk(store):
    """Also in the workers of a loader, to which it is pickled."""
    write(store, 0, 1, 2)
    dataset = store.beside(ROWS, SIZES)
    assert [Path(file["filename"]) for file in dataset.cache_files] == [store.path_of(number) for number in range(3)]
    copied = pickle.loads(pickle.dumps(dataset)).with_format("numpy")
    assert np.array_equal(copied[[18, 0, 9]]["label"], VECTORS[[18, 0, 9]])
    assert np.array_equal(copied.select([11, 3])["label"][:], VECTORS[[11, 3]])


@pytest.mark.parametrize("error", [SystemExit(), OSError(28, "No space left on device")])
def test_a_shard_that_is_not_whole_is_not_there(store, monkeypatch, error):
    """A kill leaves a file under another name, and a full disk none; the next run writes the shard anew."""

    def fail(file, place):
        assert file.stat().st_size
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(type(error)):
            write(store, 0)
    assert len(list(store.folder.iterdir())) == isinstance(error, SystemExit)
    assert store.missing(3) == [0, 1, 2]
    write(store, 0, 1, 2)
    assert len(store.beside(ROWS, SIZES)) == 19
    assert len(list(store.folder.iterdir())) == 3


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_not_kept(store, number):
    """A single NaN makes a loss NaN from that batch on, an epoch later."""
    vectors = VECTORS.copy()
    vectors[13, 4] = number
    with pytest.raises(InputError) as caught:
        write(store, 1, vectors=vectors)
    assert str(caught.value) == "m gives NaN or infinity for 'text 13'; use another model"
    assert store.missing(2) == [0, 1]


def test_a_shard_cut_short_anywhere_is_refused(store):
    """Of the last 8 bytes, which only mark the end, nothing is lost."""
    write(store, 0, 1, 2)
    file = store.path_of(1)
    whole = file.read_bytes()
    remedy = "delete it and run again, and it is computed anew"
    for length in range(len(whole) - 8):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            list(store.shards(SIZES))
        assert str(caught.value).startswith((f"{file} cannot be read (", f"{file} holds 0 rows, not 8"))
        assert str(caught.value).endswith(f"; {remedy}")
    file.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        store.beside(ROWS, SIZES)
    assert store.missing(3) == [1]


@pytest.mark.parametrize("rows", [7, 9])
@pytest.mark.parametrize("output", [False, True])
def test_a_shard_of_another_length_is_refused(tmp_path, rows, output):
    """Joined as it is, every later text would meet its neighbour's embedding, silently."""
    store = Output(tmp_path / "v.npy", "m") if output else Store(tmp_path, "label", "m")
    store.folder.mkdir(exist_ok=True)
    write(store, 0, 1, 2)
    store.write(1, TEXTS[:rows], VECTORS[:rows])
    with pytest.raises(InputError) as caught:
        store.join(SIZES, 5) if output else store.beside(ROWS, SIZES)
    remedy = "delete it and run again, and it is computed anew"
    assert str(caught.value) == f"{store.path_of(1)} holds {rows} rows, not 8; {remedy}"


def test_two_processes_do_not_write_at_once(store):
    """The folder of one that has come to nothing does not stay."""
    with FileLock(store.folder / "lock"), pytest.raises(InputError, match="another process is writing to"):
        store.locked().__enter__()
    with store.locked():
        assert store.folder.is_dir()
    assert not store.folder.exists()
    with store.locked():
        write(store, 0)
    assert [file.name for file in store.folder.iterdir()] == ["000000000.arrow"]


def test_a_disk_without_room_is_refused(store, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(5_000_000))
    store.check_room(5_000_000, "another")
    with pytest.raises(InputError) as caught:
        store.check_room(6_000_000, "another")
    problem = f"6.0 MB are needed in {store.folder} and 5.0 MB are free there; free some space or name another"
    assert str(caught.value) == problem
