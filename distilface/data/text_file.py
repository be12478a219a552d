"""The rows of a file of any size: looked over once for mistakes, then given a chunk at a time."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distilface.data.rows import SUFFIXES, checked_text, decoded_lines, kind_of, numbered_rows
from distilface.settings import InputError


def is_empty(text: str) -> bool:
    """Tell whether a text holds nothing but white space."""
    return not text.strip()


@dataclass(frozen=True)
class Survey:
    """What one reading of a whole file says of it.

    Attributes:
        sizes: rows of each chunk.
        empty: how many of all the rows hold nothing but white space.
        bytes: of all their text in UTF-8.
        digest: sha256, in hex, of the text of every chunk.
        state: of the file before it was read, by which a later change is noticed (:meth:`TextFile.state`).
    """

    sizes: tuple[int, ...]
    empty: int
    bytes: int
    digest: str
    state: tuple[int, int]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.sizes)


@dataclass(frozen=True)
class TextFile:
    """A .txt (a row a line), .csv, .tsv or .jsonl file (each also .gz), or a .parquet file, and its column of text.

    Of a .txt a row is all of a line but its end; a blank line is a row. Blank lines between the rows of a .csv, .tsv
    or .jsonl are none. Only one chunk of text is held at a time.

    Attributes:
        path: the file.
        column: the column that holds the text, in files with columns.
        chunk_rows: rows of a chunk; the last one may hold fewer.
    """

    path: Path
    column: str
    chunk_rows: int

    def check(self) -> None:
        """Make sure that the file is there and is of a kind that can be read.

        Raises:
            InputError: if it is not.
        """
        if not self.path.is_file():
            what = "is a folder" if self.path.exists() else "does not exist"
            raise InputError(f"{self.path} {what}; give one file of text")
        kind = Path(self.path.stem).suffix if self.path.suffix == ".gz" else self.path.suffix
        if self.path.suffix != ".parquet" and kind not in SUFFIXES:
            known = f"{', '.join(SUFFIXES)} (each also .gz) and .parquet"
            raise InputError(f"{self.path}: {kind or 'no'} suffix; text is read from {known}")

    def texts(self) -> Iterator[str]:
        """Yield the text of each row, in order.

        Raises:
            InputError: on what is no UTF-8 text, a missing column or a damaged file, with the line or row.
        """
        if self.path.suffix == ".parquet":
            yield from self._parquet_texts()
        elif kind_of(self.path) == ".txt":
            yield from (line.removesuffix("\n").removesuffix("\r") for line in decoded_lines(self.path))
        else:
            for number, row in numbered_rows(self.path, [self.column]):
                yield checked_text(row[self.column], f"{self.path}, line {number}, column {self.column!r}")

    def _parquet_texts(self) -> Iterator[str]:
        row = 0
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                names = file.schema_arrow.names
                if self.column not in names:
                    raise InputError(f"{self.path}: no column {self.column!r}; found {', '.join(names) or 'none'}")
                for batch in file.iter_batches(self.chunk_rows, columns=[self.column]):
                    for value in batch.column(0):
                        row += 1
                        yield self._checked(value, row)
        except (pa.ArrowException, OSError) as error:
            problem = " ".join(str(error).split())[:200]
            raise InputError(f"{self.path} is no Parquet file that can be read ({problem}); write it again") from None

    def _checked(self, value: pa.Scalar, row: int) -> str:
        where = f"{self.path}, row {row}"
        try:
            text: Any = value.as_py()
        except UnicodeDecodeError as error:
            raise InputError(f"{where}: byte 0x{error.object[error.start]:02x} is not UTF-8; write it anew") from None
        if text is None:
            raise InputError(f"{where}: nothing in column {self.column!r}; fill it (with '') or leave the row out")
        return checked_text(text, f"{where}, column {self.column!r}")

    def chunks(self) -> Iterator[list[str]]:
        """Yield the texts of :attr:`chunk_rows` rows at a time."""
        texts = self.texts()
        while chunk := list(islice(texts, self.chunk_rows)):
            yield chunk

    def survey(self) -> Survey:
        """Read all rows once, so that a mistake is met before anything is computed.

        Raises:
            InputError: as :meth:`texts`, and on a file without a row.
        """
        state, digest = self.state(), hashlib.sha256()
        sizes = []
        empty = size = 0
        for chunk in self.chunks():
            sizes.append(len(chunk))
            digest.update(json.dumps(chunk).encode())
            empty += sum(map(is_empty, chunk))
            size += sum(len(text.encode()) for text in chunk)
        if not sizes:
            raise InputError(f"{self.path} holds no row; it is empty")
        return Survey(tuple(sizes), empty, size, digest.hexdigest(), state)

    def state(self) -> tuple[int, int]:
        """Return the file's size in bytes and the time of its last change in ns; zeros where it is gone."""
        if not self.path.is_file():
            return 0, 0
        status = self.path.stat()
        return status.st_size, status.st_mtime_ns

    def surveyed_chunks(self, survey: Survey, numbers: Collection[int]) -> Iterator[tuple[int, list[str]]]:
        """Yield the number and the texts of chunks, as the survey has read them.

        Args:
            survey: of this file.
            numbers: of the chunks.

        Raises:
            InputError: if the file was changed since.
        """
        self._check_unchanged(survey)
        wanted = frozenset(numbers)
        for number, chunk in enumerate(self.chunks()):
            self._check_unchanged(survey)  # after the chunk is read: a later change does not reach it
            if number in wanted:
                yield number, chunk
        self._check_unchanged(survey)  # a file that became shorter ends early

    def _check_unchanged(self, survey: Survey) -> None:
        if self.state() != survey.state:
            raise InputError(f"{self.path} was changed while it was read; run again when it is finished")
