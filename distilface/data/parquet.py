"""The rows of a .parquet file, or of some of its row groups, with the place of every mistake."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from distilface.data.columns import check_columns, check_once
from distilface.settings import InputError

#: Rows that are held in memory at a time.
ROWS = 1024


@contextmanager
def opened_parquet(source: Path | BinaryIO, columns: Sequence[str], name: str) -> Iterator[pq.ParquetFile]:
    """Open a .parquet that has ``columns``; ``name`` is its own in messages.

    Raises:
        InputError: if it is damaged, also where it is read in the block, lacks a column, or names one twice.
    """
    try:
        # Small buffers hold only a little of a large file in memory.
        with pq.ParquetFile(source, pre_buffer=False, buffer_size=2**20) as file:
            names = file.schema_arrow.names
            check_columns(names, columns, name)
            check_once(names, columns, name)
            yield file
    except (pa.ArrowException, OSError) as error:
        problem = " ".join(str(error).split())[:200]
        raise InputError(f"{name} cannot be read as Parquet ({problem}); write it again") from None


def parquet_rows(
    source: Path | BinaryIO, columns: Sequence[str], name: str, groups: Sequence[int] | None = None, first: int = 0
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a .parquet, of which only ``columns``, each with its number in the file, from 1.

    Args:
        source: the file.
        columns: of the rows.
        name: of the file, in messages.
        groups: the row groups to read; default all.
        first: how many rows of the file stand before them.

    Raises:
        InputError: as :func:`opened_parquet`, and on text that is not UTF-8.
    """
    number = first
    with opened_parquet(source, columns, name) as file:
        for batch in file.iter_batches(ROWS, row_groups=groups, columns=list(columns)):
            for values in zip(*map(batch.column, columns), strict=True):
                number += 1
                try:
                    yield number, {c: value.as_py() for c, value in zip(columns, values, strict=True)}
                except UnicodeDecodeError as error:
                    bad = error.object[error.start]
                    problem = f"byte 0x{bad:02x} is not UTF-8; write the file again"
                    raise InputError(f"{name}, row {number}: {problem}") from None
