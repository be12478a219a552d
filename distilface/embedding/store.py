"""Embeddings that are computed shard by shard: each shard is written whole, found again after a kill, and mapped."""

import contextlib
import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets
from datasets.table import MemoryMappedTable
from filelock import FileLock, Timeout

from distilface.embedding.rounding import rounded
from distilface.settings import InputError
from distilface.storage import whole_file

logger = logging.getLogger(__name__)


class Store:
    """Numbered shards of embeddings in one folder, an Arrow stream each.

    A shard that has its name is whole, and its numbers are finite: both are made sure of when it is written, so that
    reading a shard again costs no more than mapping it.

    Args:
        folder: where the shards lie; :meth:`locked` makes it.
        column: the name of the column that holds the embeddings.
        model: what computes the embeddings, as an error names it.
        dtype: what they are rounded to, of :data:`distilface.embedding.rounding.DTYPES`.
    """

    def __init__(self, folder: Path, column: str, model: str, dtype: str = "float32") -> None:
        self.folder, self.column, self.model, self.dtype = folder, column, model, dtype

    def path_of(self, number: int) -> Path:
        """Return the file of a shard."""
        return self.folder / f"{number:09d}.arrow"

    def missing(self, count: int) -> list[int]:
        """List the shards that are not there, of ``count``."""
        return [number for number in range(count) if not self.path_of(number).is_file()]

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Make the folder, and keep other processes from writing to it.

        Args:
            wait: for the other process to end, instead of an error.

        Raises:
            InputError: if another process writes to the folder and ``wait`` is false.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                problem = f"another process is writing to {self.folder}"
                raise InputError(f"{problem}; wait for it, or name another output") from None
            logger.info("another process is writing to %s; waiting for it", self.folder)
            lock.acquire()
        try:
            yield
        finally:
            if not wait:  # a process that waits would hold a lock without a name
                with contextlib.suppress(OSError):  # before the release: after it, it may be another process's lock
                    Path(lock.lock_file).unlink(missing_ok=True)
            lock.release()
            if not wait:
                with contextlib.suppress(OSError):  # the folder stays where shards are left in it
                    self.folder.rmdir()

    def drop_empty(self) -> None:
        """Remove the folder without a shard that a process leaves which is killed at its very end."""
        if self.folder.is_dir() and not any(file.name != "lock" for file in self.folder.iterdir()):
            with self.locked():
                pass  # it ends with the removal of an empty folder

    def check_room(self, size: int, elsewhere: str) -> None:
        """Refuse a disk that has fewer than ``size`` bytes left; ``elsewhere`` says what else to name.

        Raises:
            InputError: if it has.
        """
        free = shutil.disk_usage(self.folder).free
        if size > free:
            raise InputError(
                f"{size / 1e6:,.1f} MB are needed in {self.folder} and {free / 1e6:,.1f} MB are free there; "
                f"free some space or name {elsewhere}"
            )

    def write(
        self,
        number: int,
        texts: Sequence[str],
        embeddings: np.ndarray,
        columns: Mapping[str, pa.Array] | None = None,
        truncated: int = 0,
    ) -> None:
        """Write one shard.

        Args:
            number: of the shard.
            texts: n texts; an error names the one whose embedding is not finite.
            embeddings: shape (n, width), float32.
            columns: other columns, before the embeddings.
            truncated: how many of the texts the model has not read to their end.

        Raises:
            InputError: on NaN or infinity. Kept, it would be blamed on the shard, and be the same computed anew.
        """
        check_finite(texts, embeddings, f"{self.model} gives NaN or infinity for", "use another model")
        kept = rounded(np.ascontiguousarray(embeddings, np.float32), self.dtype)
        check_finite(texts, kept, f"{self.dtype} is too small for what {self.model} gives for", "keep float32")
        table = pa.table({**(columns or {}), self.column: fixed_lists(kept)}, metadata={"truncated": str(truncated)})
        # A stream, not a file of random access: the only kind that `datasets` maps.
        with whole_file(self.path_of(number)) as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)

    def shards(self, sizes: Sequence[int]) -> Iterator[MemoryMappedTable]:
        """Map the shards in order, each of so many rows.

        Raises:
            InputError: on a shard that is damaged: it cannot be read, or has another number of rows.
        """
        for number, rows in enumerate(sizes):
            file = self.path_of(number)
            remedy = "delete it and run again, and it is computed anew"
            try:
                shard = MemoryMappedTable.from_file(str(file))
            except (pa.ArrowException, OSError) as error:
                raise InputError(f"{file} cannot be read ({type(error).__name__}); {remedy}") from None
            if len(shard) != rows:
                raise InputError(f"{file} holds {len(shard)} rows, not {rows}; {remedy}")
            yield shard

    def beside(self, texts: Dataset, sizes: Sequence[int]) -> Dataset:
        """Return a data set with the embeddings of its rows in one more column; both stay on the disk.

        Each shard is put beside its own rows. Upstream slices what is left of the texts anew for each of the shards,
        and its time and memory grow with the square of their number: of 800 shards it took 20 s for 3.

        Args:
            texts: as many rows as there are embeddings.
            sizes: the rows of each shard.

        Raises:
            InputError: as :meth:`shards`.
        """
        texts = texts if texts._indices is None else texts.flatten_indices()
        rows = (range(end - size, end) for size, end in zip(sizes, itertools.accumulate(sizes), strict=True))
        both = zip(rows, self.shards(sizes), strict=True)
        return concatenate_datasets(
            [concatenate_datasets([texts.select(part), Dataset(shard)], axis=1) for part, shard in both]
        )


def check_finite(texts: Sequence[str], embeddings: np.ndarray, problem: str, remedy: str) -> None:
    """Check that embeddings hold no NaN and no infinity.

    Raises:
        InputError: naming the first text whose embedding does.
    """
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise InputError(f"{problem} {texts[int(bad.argmax())]!r:.60}; {remedy}")


def fixed_lists(embeddings: np.ndarray) -> pa.FixedSizeListArray:
    """Return the rows of an array as lists of one size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(embeddings.reshape(-1)), embeddings.shape[1])
