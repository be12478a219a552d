"""A folder that is written whole or not at all."""

import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give a new folder to write into, and put it at ``path`` when the block ends without an error.

    ``path`` is at any moment, a kill or a full disk included, what it was or the new folder; what it was is then
    removed. A failure leaves nothing behind; a kill leaves ``.NAME.*.tmp`` beside it.

    Raises:
        OSError: if it cannot be written; ``errno`` is ``ENOSPC`` on a full disk, whichever library met it.
    """
    place = Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.{secrets.token_hex(4)}.tmp")
    try:
        new.mkdir()
        yield new
        _settle(new)
        _put_in_place(new, place)
    except Exception as error:
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Have the files on the disk before the folder gets its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _put_in_place(new: Path, place: Path) -> None:
    """Give ``new`` the name ``place``; a folder that has it goes by the name ``new`` afterwards."""
    if not place.is_dir() or not any(place.iterdir()):
        new.replace(place)
    elif not _exchange(new, place):
        aside = new.with_suffix(".old")
        place.rename(aside)
        try:
            new.rename(place)
        except OSError:
            aside.rename(place)
            raise
        aside.rename(new)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, as Linux can on most file systems; say whether it was done."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return int(rename(here, os.fsencode(first), here, os.fsencode(second), exchange)) == 0
