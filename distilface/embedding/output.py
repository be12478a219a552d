"""The one file that the shards of an encoding become, and what a later run needs to go on with them."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilface.embedding.store import Store
from distilface.json_files import read_json
from distilface.storage import whole_file, write_whole

#: The files that an output can be.
OUTPUT_SUFFIXES = (".parquet", ".npy")


class Output(Store):
    """A file of embeddings, and the store of its shards, ``<file>.shards/`` beside it.

    At any moment, a kill included, the output is the old file or the whole new one.

    Args:
        file: the .parquet or .npy file.
        model: what computes the embeddings, as an error names it.
    """

    def __init__(self, file: Path, model: str) -> None:
        super().__init__(file.with_name(f"{file.name}.shards"), "embedding", model)
        self.file = file
        self._note, self._whole = self.folder / "note.json", self.folder / f"whole{file.suffix}"

    @property
    def note(self) -> dict[str, Any]:
        """What the store says of itself: nothing before :meth:`begin`.

        ``key`` decides the bytes of the shards; ``report`` is of a run that has written the whole file.
        """
        return dict(read_json(self._note)) if self._note.is_file() else {}

    def begin(self, key: Mapping[str, Any]) -> None:
        """Drop the shards that are there, and note what decides the bytes of those to come."""
        self._clear()
        write_whole(self._note, {"key": key})

    def join(self, sizes: Sequence[int], width: int) -> tuple[int, int]:
        """Write the whole file, shard by shard, beside the shards.

        Args:
            sizes: rows of each shard.
            width: of an embedding.

        Returns:
            How many texts the model has not read to their end, and the bytes of the file.

        Raises:
            InputError: on a shard that is damaged.
        """
        truncated = sum(int(shard.schema.metadata[b"truncated"]) for shard in self.shards(sizes))
        tables = (shard.table.replace_schema_metadata(None) for shard in self.shards(sizes))
        write = _write_npy if self.file.suffix == ".npy" else _write_parquet
        with whole_file(self._whole) as file:
            write(file, tables, sum(sizes), width)
        return truncated, self._whole.stat().st_size

    def finish(self, report: Mapping[str, Any]) -> None:
        """Give the whole file its place, and drop the shards."""
        write_whole(self._note, {**self.note, "report": report})
        self.settle()

    def settle(self) -> None:
        """Do what is left of :meth:`finish` after a kill."""
        if self._whole.is_file():
            self._whole.replace(self.file)
        self._clear()

    def _clear(self) -> None:
        """Drop everything, the note last: the next run knows by it what was half dropped."""
        for file in (*self.folder.glob("*.part"), *self.folder.glob("*.arrow"), self._whole, self._note):
            file.unlink(missing_ok=True)


def columns_of(first: int, texts: Sequence[str], keep_text: bool) -> dict[str, pa.Array]:
    """Return what stands before the embeddings of texts: the number of each row, from ``first`` on, and its text."""
    columns: dict[str, pa.Array] = {"row": pa.array(range(first, first + len(texts)), pa.int64())}
    if keep_text:
        columns["text"] = pa.array(texts, pa.large_string())
    return columns


def _write_npy(file: BinaryIO, tables: Iterator[pa.Table], rows: int, width: int) -> None:
    order = "<" if sys.byteorder == "little" else ">"
    header = {"descr": f"{order}f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, header)
    for table in tables:
        for column in table["embedding"].chunks:
            file.write(column.flatten().to_numpy().data)


def _write_parquet(file: BinaryIO, tables: Iterator[pa.Table], rows: int, width: int) -> None:
    first = next(tables)
    with pq.ParquetWriter(file, first.schema, use_dictionary=False) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
