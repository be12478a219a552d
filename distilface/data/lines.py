"""Files of text and their lines: which are read, how they are compressed, where a line ends."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from distilface.settings import InputError

#: Files of lines; each may also be .gz. The case of a suffix does not matter.
LINES = (".txt", ".csv", ".tsv", ".jsonl")
SUFFIXES = (*LINES, ".parquet")
#: What a message says of them.
KINDS = f"{', '.join(LINES)} (each also .gz) and .parquet"
#: How the names of other files end that hold text, but are not read.
_OTHERS = (".gz", ".bz2", ".xz", ".zst", ".zip", ".json")
#: Bytes that are looked at for a line feed.
_HEAD = 2**20


def suffix_of(path: Path) -> str:
    """Return the suffix that says how a file is read, without ``.gz``, in lower case."""
    return Path(path.stem if is_gzip(path) else path.name).suffix.lower()


def is_gzip(path: Path) -> bool:
    """Return whether a file is compressed, by its name."""
    return path.suffix.lower() == ".gz"


def is_readable(path: Path) -> bool:
    """Return whether text is read from files of this name."""
    return suffix_of(path) in (LINES if is_gzip(path) else SUFFIXES)


def names_file(name: str) -> bool:
    """Return whether a name is a file's by its suffix, even of a file that does not exist or is of another kind."""
    return is_readable(Path(name)) or name.lower().endswith(_OTHERS)


def kind_of(path: Path) -> str:
    """Return the suffix that says how a file is read: one of :data:`SUFFIXES`, without ``.gz``.

    Raises:
        InputError: on any other suffix.
    """
    if not is_readable(path):
        raise InputError(f"{path}: {suffix_of(path) or 'no'} suffix; text is read from {KINDS}")
    return suffix_of(path)


def existing_file(path: str | Path) -> Path:
    """Return the path of a file.

    Raises:
        InputError: if it does not exist, or is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file in it")
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a file, a folder of files, or a Hub data set")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for its bytes, decompressed."""
    try:
        with gzip.open(path, "rb") if is_gzip(path) else path.open("rb") as file:
            yield file  # type: ignore[misc]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} is a broken gzip file ({error}); compress it again") from None


def decoded_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a text or gzip file; each ends in ``\n``, whether it did in ``\n``, ``\r\n`` or ``\r``.

    Raises:
        InputError: on a line that is not UTF-8 (with its number) or a broken gzip file.
    """
    return _decoded(path, None)


def table_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a text or gzip file, with their ends, where a lone ``\r`` may stand inside a field.

    A lone ``\r`` ends a line only in a file without a ``\n``, as old Macs wrote them.

    Raises:
        InputError: as :func:`decoded_lines`.
    """
    with _opened(path) as file:
        head = file.read(_HEAD)
    return _decoded(path, "" if b"\r" in head and b"\n" not in head else "\n")


def _decoded(path: Path, newline: str | None) -> Iterator[str]:
    with (
        _opened(path) as file,
        # The mark that Windows editors put first is not text. A byte that is not UTF-8 becomes half a surrogate pair,
        # which UTF-8 cannot hold: so the line of a wrong byte is known.
        io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline=newline) as lines,
    ):
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise InputError(f"{path}, line {number}: a NUL byte; this is not a text file")
            if not line.isascii():
                _check_decoded(line, f"{path}, line {number}")
            yield line


def _check_decoded(line: str, where: str) -> None:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) - 0xDC00
        raise InputError(f"{where}: byte 0x{byte:02x} is not UTF-8; convert the file (iconv -t UTF-8) first") from None
