"""A folder of .parquet files as parts: whole files, or some row groups of a large one, each read where it is used."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from distilface.data.columns import checked_text, pick
from distilface.data.location import Entry, Location
from distilface.data.parquet import opened_parquet, parquet_rows
from distilface.settings import InputError

#: Files whose ends are read at the same time: each is a request to a store.
READERS = 16


@dataclass(frozen=True)
class Part:
    """Rows that stand together in a file.

    Attributes:
        number: of the part, from 0.
        file: its name in the folder.
        size: of the file, in bytes.
        stamp: of the file, by which a change is noticed.
        first_group: the first of its row groups.
        end_group: the first that is not one of them.
        first_of_file: the number of its first row in the file, from 0.
        first: that number among all the rows of the folder, its files taken in the order of their names.
        rows: in it.
    """

    number: int
    file: str
    size: int
    stamp: str
    first_group: int
    end_group: int
    first_of_file: int
    first: int
    rows: int


@dataclass(frozen=True)
class ParquetFolder:
    """A folder of .parquet files with a column of text; what begins with a dot or an underscore is not read.

    Attributes:
        location: of the folder.
        column: that holds the text.
    """

    location: Location
    column: str

    def parts(self, rows: int) -> list[Part]:
        """Return the parts, from the ends of the files alone: a file that is larger is cut between its row groups.

        Args:
            rows: of a part at most, where its first row group does not hold more.

        Raises:
            InputError: if there is no row, a file is damaged, or it lacks the column.
        """
        entries = [entry for entry in self.location.entries() if _is_read(entry.name)]
        if not entries:
            raise InputError(f"{self.location} holds no .parquet file; give a folder of them, or one file of text")
        with ThreadPoolExecutor(READERS) as pool:
            sizes = list(pool.map(self._group_sizes, entries))
        parts: list[Part] = []
        first = 0
        for entry, groups in zip(entries, sizes, strict=True):
            for start, end in _cuts(groups, rows):
                count, before = sum(groups[start:end]), sum(groups[:start])
                parts.append(Part(len(parts), entry.name, entry.size, entry.stamp, start, end, before, first, count))
                first += count
        if not parts:
            raise InputError(f"{self.location} holds no row; its .parquet files are empty")
        return parts

    def _group_sizes(self, entry: Entry) -> list[int]:
        """Return the number of rows of each row group of a file."""
        name = f"{self.location}/{entry.name}"
        with self.location.opened(entry.name) as opened, opened_parquet(opened, [self.column], name) as file:
            return [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]

    def chunks(self, part: Part, rows: int) -> Iterator[list[str]]:
        """Yield the texts of a part, ``rows`` at a time; only these are held in memory.

        Raises:
            InputError: on what is not text, with its row, or a file that was changed since the parts were made.
        """
        texts = self._texts(part)
        while chunk := list(islice(texts, rows)):
            yield chunk

    def _texts(self, part: Part) -> Iterator[str]:
        name, groups = f"{self.location}/{part.file}", range(part.first_group, part.end_group)
        self._check_unchanged(part)
        with self.location.opened(part.file) as file:
            for number, row in parquet_rows(file, [self.column], name, groups, part.first_of_file):
                where = f"{name}, row {number}"
                yield checked_text(pick(row, [self.column], where)[self.column], f"{where}, column {self.column!r}")
        self._check_unchanged(part)

    def _check_unchanged(self, part: Part) -> None:
        entry, name = self.location.entry(part.file), f"{self.location}/{part.file}"
        if entry is None:
            raise InputError(f"{name} is gone, or not on this machine; give a folder that all machines share")
        if entry != Entry(part.file, part.size, part.stamp):
            raise InputError(f"{name} was changed while it was read; run again when it is finished")


def _is_read(name: str) -> bool:
    return name.lower().endswith(".parquet") and not any(part[0] in "._" for part in name.split("/"))


def _cuts(groups: Sequence[int], rows: int) -> Iterator[tuple[int, int]]:
    """Yield where each part of a file begins and ends.

    >>> list(_cuts([4, 4, 4, 9, 1], 8))
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    start = 0
    for end in range(1, len(groups) + 1):
        if end == len(groups) or sum(groups[start : end + 1]) > rows:
            if sum(groups[start:end]):
                yield start, end
            start = end
