"""Text that is read over the network as it comes: data sets of the Hub, and folders of .parquet in a store."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from datasets import load_dataset

from distilface.data.columns import check_columns, checked_text, pick
from distilface.data.location import Location
from distilface.data.parquet_folder import ParquetFolder
from distilface.hub_ids import HubText
from distilface.settings import InputError

#: Rows that are held in memory at a time, and rows of a part of a store's file: all of it, where its groups allow.
_ROWS, _PART = 1024, 2**40


class Stream(Protocol):
    """Text that is not a file here."""

    def rows(self) -> Iterator[str]:
        """Yield the text of each row."""

    def key(self) -> str:
        """Return what is another after every change of the text."""


def stream_of(source: str, column: str) -> Stream:
    """Return the text behind a URL.

    Args:
        source: of a data set of the Hub (:class:`~distilface.hub_ids.HubText`), or a URL that fsspec knows, of a folder
            of .parquet.
        column: that holds the text.

    Raises:
        InputError: if it is a URL of the Hub, but of no data set.
    """
    if source.startswith("hf://"):
        return HubStream(HubText.of(source), column)
    return StoredStream(ParquetFolder(Location.of(source), column))


@dataclass(frozen=True)
class HubStream:
    """A split of a data set of the Hub, read by ``datasets`` while it is fetched; nothing is kept but the text."""

    text: HubText
    column: str

    def __str__(self) -> str:
        """Return its name in messages."""
        return self.text.url

    def key(self) -> str:
        """Return the commit with the URL."""
        return f"{self.text.commit()} {self.text.url} {self.column}"

    def rows(self) -> Iterator[str]:
        """Yield the text of each row.

        Raises:
            InputError: if the Hub is not in reach, or there is no such configuration, split or column, or what stands
                in the column is not text.
        """
        for number, row in enumerate(self._read(self.text.commit()), 1):
            where = f"{self.text.url}, row {number}"
            yield checked_text(pick(row, [self.column], where)[self.column], f"{where}, column {self.column!r}")

    def _read(self, commit: str) -> Iterator[dict[str, Any]]:
        text = self.text
        try:
            rows = load_dataset(text.id, text.config, split=text.split, revision=commit, streaming=True)
            if rows.column_names is not None:
                check_columns(rows.column_names, [self.column], text.url)
                rows = rows.select_columns([self.column])
            yield from islice(rows, text.rows)
        except InputError:
            raise
        except Exception as error:  # the Hub's, a file's or the library's own
            problem = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
            remedy = "check its configuration and split, or connect and run again"
            raise InputError(f"{text.url} cannot be read ({problem}); {remedy}") from None


@dataclass(frozen=True)
class StoredStream:
    """A folder of .parquet in a store, read file after file."""

    folder: ParquetFolder

    def __str__(self) -> str:
        """Return its name in messages."""
        return str(self.folder.location)

    def key(self) -> str:
        """Return the files with their sizes and stamps."""
        return f"{self.folder.location.place} {self.folder.column} {self.folder.location.entries()}"

    def rows(self) -> Iterator[str]:
        """Yield the text of each row.

        Raises:
            InputError: as :meth:`ParquetFolder.parts` and :meth:`ParquetFolder.chunks`.
        """
        for part in self.folder.parts(_PART):
            for chunk in self.folder.chunks(part, _ROWS):
                yield from chunk
