"""A large table that is computed in parts: each written whole, found again after a kill, joined into one file."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from distilface.settings import InputError
from distilface.storage import whole_file, write_whole

#: The files that an output can be, by their suffix.
OUTPUTS = (".parquet", ".npy")


def embedding_table(first: int, embeddings: np.ndarray, texts: Sequence[str] | None) -> pa.Table:
    """Return rows of an output: ``row`` (int64, from ``first``), ``text`` if given, ``embedding``.

    Args:
        first: the number of the first row.
        embeddings: shape (n, width), float32.
        texts: n texts, or ``None``.
    """
    columns: dict[str, Any] = {"row": pa.array(range(first, first + len(embeddings)), pa.int64())}
    if texts is not None:
        columns["text"] = pa.array(texts, pa.large_string())
    flat = pa.array(np.ascontiguousarray(embeddings, np.float32).reshape(-1))
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
    return pa.table(columns)


class Parts:
    """The parts of an output, in ``<output>.parts/`` beside it.

    ``plan.json`` there holds what decides their bytes, and once the whole file is written what it says of itself. At
    any moment, a kill included, the output is what it was or the whole new file.

    Args:
        output: the .parquet or .npy file that they become.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f"{output.name}.parts")
        self._plan, self._whole = self.folder / "plan.json", self.folder / f"whole{output.suffix}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes off the parts.

        Raises:
            InputError: if another one is at work on them.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(f"another process is writing {self.output}; wait for it, or name another file") from None
        try:
            yield
        finally:
            lock.release()
            with contextlib.suppress(OSError):  # where parts are left to go on with, the folder stays
                Path(lock.lock_file).unlink(missing_ok=True)
                self.folder.rmdir()

    @property
    def plan(self) -> dict[str, Any] | None:
        """What the parts are of, or ``None`` where none were begun."""
        return self._read().get("plan")

    @property
    def summary(self) -> dict[str, Any] | None:
        """What the whole file says of itself, or ``None`` where it is not yet written."""
        return self._read().get("summary")

    def _read(self) -> dict[str, Any]:
        if not self._plan.is_file():
            return {}
        found: dict[str, Any] = json.loads(self._plan.read_text(encoding="utf-8"))
        return found

    def begin(self, plan: Mapping[str, Any]) -> None:
        """Drop what is there, and note what the parts to come are of."""
        self._clear()
        write_whole(self._plan, {"plan": plan})

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:09d}.arrow"

    def done(self, count: int) -> list[int]:
        """List the parts that are there, of ``count``."""
        return [number for number in range(count) if self._file(number).is_file()]

    def write(self, number: int, table: pa.Table, truncated: int) -> None:
        """Write one part, and how many of its texts were cut."""
        table = table.replace_schema_metadata({"truncated": str(truncated)})
        with whole_file(self._file(number)) as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def _tables(self, sizes: Sequence[int]) -> Iterator[pa.Table]:
        """Yield the parts in order, each of so many rows."""
        for number, size in enumerate(sizes):
            file = self._file(number)
            try:
                with pa.OSFile(str(file)) as source:
                    table = pa.ipc.open_file(source).read_all()
            except (pa.ArrowException, OSError) as error:
                raise _damaged(file, f"cannot be read ({type(error).__name__})") from None
            if len(table) != size:
                raise _damaged(file, f"holds {len(table)} rows, not {size}")
            yield table

    def join(self, sizes: Sequence[int], width: int) -> tuple[int, int]:
        """Write the whole file, part by part, among the parts; return how many texts were cut, and its bytes.

        Args:
            sizes: rows of each part.
            width: of an embedding.

        Raises:
            InputError: on a part that is damaged.
        """
        write = _join_npy if self.output.suffix == ".npy" else _join_parquet
        cut: list[int] = []
        with whole_file(self._whole) as file:
            write(file, _counting(self._tables(sizes), cut), sum(sizes), width)
        return sum(cut), self._whole.stat().st_size

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Give the whole file its place, and drop the parts."""
        write_whole(self._plan, {"plan": self.plan, "summary": summary})
        self.settle()

    def settle(self) -> None:
        """Do what is left of :meth:`finish`, where a kill has cut it short."""
        if self._whole.is_file():
            self._whole.replace(self.output)
        self._clear()

    def _clear(self) -> None:
        """Drop everything, the plan last: what is half dropped is known by it."""
        known = [*self.folder.glob("*.part"), *self.folder.glob("*.arrow"), self._whole, self._plan]
        for file in known:
            file.unlink(missing_ok=True)


def _damaged(file: Path, problem: str) -> InputError:
    return InputError(f"{file} {problem}; delete it and run again, and it is computed anew")


def _counting(tables: Iterator[pa.Table], cut: list[int]) -> Iterator[pa.Table]:
    """Pass tables on without what a part notes of itself, which goes to ``cut``."""
    for table in tables:
        cut.append(int(table.schema.metadata[b"truncated"]))
        yield table.replace_schema_metadata(None)


def _join_npy(file: BinaryIO, tables: Iterator[pa.Table], rows: int, width: int) -> None:
    order = "<" if sys.byteorder == "little" else ">"
    header = {"descr": f"{order}f4", "fortran_order": False, "shape": (rows, width)}
    np.lib.format.write_array_header_1_0(file, header)
    for table in tables:
        for column in table["embedding"].chunks:
            file.write(column.flatten().to_numpy().data)


def _join_parquet(file: BinaryIO, tables: Iterator[pa.Table], rows: int, width: int) -> None:
    first = next(tables)
    with pq.ParquetWriter(file, first.schema, use_dictionary=False) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)
