"""The rows of a file of any size: read once for their mistakes, then a chunk at a time."""

import hashlib
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from distilface.data.lines import kind_of
from distilface.data.rows import read_column
from distilface.settings import InputError


def is_empty(text: str) -> bool:
    """Return whether a text holds nothing but white space."""
    return not text.strip()


@dataclass(frozen=True)
class Survey:
    """What one reading of a whole file says of it.

    Attributes:
        sizes: rows of each chunk.
        empty: how many of all the rows hold nothing but white space.
        bytes: of all their text in UTF-8.
        text_sha256: of the text of every chunk, in hex.
        state: of the file before it was read, by which a later change is noticed (:meth:`TextFile.state`).
    """

    sizes: tuple[int, ...]
    empty: int
    bytes: int
    text_sha256: str
    state: tuple[int, int]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return sum(self.sizes)


@dataclass(frozen=True)
class TextFile:
    """A .txt (a row a line), .csv, .tsv or .jsonl file (each also .gz), or a .parquet file, and its column of text.

    What a row is, :func:`distilface.data.rows.read_column` says. Only one chunk of text is held in memory.

    Attributes:
        path: the file.
        column: the column that holds the text, in files with columns.
        chunk_rows: rows of a chunk; the last one may hold fewer.
    """

    path: Path
    column: str
    chunk_rows: int

    def check(self) -> None:
        """Check that the file exists and is of a kind that can be read.

        Raises:
            InputError: if not.
        """
        if not self.path.is_file():
            problem = "is a folder" if self.path.exists() else "does not exist"
            raise InputError(f"{self.path} {problem}; give one file of text")
        kind_of(self.path)

    def texts(self) -> Iterator[str]:
        """Yield the text of each row, in order.

        Raises:
            InputError: on what is not UTF-8 text, a missing column or a damaged file, with the line or row.
        """
        return read_column(self.path, self.column)

    def chunks(self) -> Iterator[list[str]]:
        """Yield the texts of :attr:`chunk_rows` rows at a time."""
        texts = self.texts()
        while chunk := list(islice(texts, self.chunk_rows)):
            yield chunk

    def survey(self) -> Survey:
        """Read all rows once, so that a mistake is found before anything is computed.

        Raises:
            InputError: as :meth:`texts`, and on a file without a row.
        """
        state, text_hash = self.state(), hashlib.sha256()
        sizes = []
        empty = size = 0
        for chunk in self.chunks():
            sizes.append(len(chunk))
            text_hash.update(json.dumps(chunk).encode())
            empty += sum(map(is_empty, chunk))
            size += sum(len(text.encode()) for text in chunk)
        if not sizes:
            raise InputError(f"{self.path} holds no row; it is empty")
        return Survey(tuple(sizes), empty, size, text_hash.hexdigest(), state)

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
        chosen_numbers = frozenset(numbers)
        for number, chunk in enumerate(self.chunks()):
            self._check_unchanged(survey)  # after the chunk is read: a later change does not reach it
            if number in chosen_numbers:
                yield number, chunk
        self._check_unchanged(survey)  # a file that became shorter ends early

    def _check_unchanged(self, survey: Survey) -> None:
        if self.state() != survey.state:
            raise InputError(f"{self.path} was changed while it was read; run again when it is finished")
