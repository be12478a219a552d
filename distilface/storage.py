"""Files and folders that are written whole or not at all."""

import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from distilface.locks import beside, check_writable, locked, temporary_folder
from distilface.settings import InputError

#: One of these is in every folder of a model: that of an encoder, or sentence-transformers' own.
MODEL_FILES = ("config.json", "modules.json")


@contextmanager
def whole_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Give a new folder to write into, and put it at ``path`` when the block ends without an error.

    ``path`` is at any moment, a kill or a full disk included, what it was or the new folder; what it was is
    then removed. A failure leaves nothing behind; a kill leaves ``.NAME.*.tmp`` beside it, which the next writing of
    ``path`` clears away.

    Args:
        path: the folder to write.
        overwrite: replace a model folder that is at ``path``.

    Raises:
        InputError: if ``path`` is taken (:func:`check_output`), or another process writes to it.
        OSError: if it cannot be written; ``errno`` is ``ENOSPC`` on a full disk, whichever library met it.
    """
    check_output(path, overwrite)
    place = Path(path).resolve()
    try:
        with locked(path), temporary_folder(place) as new:
            yield new
            put_in_place(new, place, overwrite)
    except Exception as error:
        if "No space left on device" in str(error):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def check_output(path: str | Path, overwrite: bool = False) -> None:
    """Make sure that a model folder can be put at ``path``; nothing is written.

    Args:
        path: the folder to write; it must be empty or not exist yet.
        overwrite: whether a model folder that is there may be replaced; anything else never is.

    Raises:
        InputError: if it cannot be put there.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file; name a folder")
    if path.is_dir() and any(path.iterdir()):
        if not overwrite:
            raise InputError(f"{path} is not empty; name another folder or remove it")
        if not any((path / name).is_file() for name in MODEL_FILES):
            raise InputError(f"{path} is not empty and no model, so it is not replaced; name another folder")
    check_writable(path)


def put_in_place(new: str | Path, path: str | Path, overwrite: bool = False) -> None:
    """Move the finished folder ``new`` to ``path`` in one step, and remove the model folder that was there.

    Args:
        new: a finished folder, on the file system of ``path``.
        path: where to: not there yet, or an empty directory.
        overwrite: replace a model folder that is at ``path``.

    Raises:
        InputError: if ``path`` is taken (:func:`check_output`).
    """
    check_output(path, overwrite)
    new, place = Path(new), Path(path).resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    _settle(new)
    if not (place.is_dir() and any(place.iterdir())):
        new.replace(place)
        return
    aside = new if _exchange(new, place) else _replace(new, place)
    shutil.rmtree(aside, ignore_errors=True)


def _settle(folder: Path) -> None:
    """Have the files on the disk before the folder gets its name."""
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, as Linux can on most file systems; say whether it was done."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return int(rename(here, os.fsencode(first), here, os.fsencode(second), exchange)) == 0


def _replace(new: Path, place: Path) -> Path:
    """Give ``new`` the name ``place`` in two steps, and return where the folder that had it lies now."""
    aside = beside(place, ".old")
    place.rename(aside)
    try:
        new.rename(place)
    except OSError:
        aside.rename(place)
        raise
    return aside


@contextmanager
def whole_file(place: Path) -> Iterator[BinaryIO]:
    """Give a file to write; it is on the disk before it gets its name, and without a name where the block fails."""
    partial = place.with_name(f"{place.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place)
    except Exception:
        partial.unlink(missing_ok=True)
        raise


def replace_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with whole_file(file) as new:
        new.write(text.encode())


def write_whole(file: Path, content: Any, indent: int | None = None) -> None:
    """Write a JSON file whole or not at all; one for people (indented) ends its last line.

    One without an indent loses its meaning with its last character, so that a copy cut short is known.
    """
    replace_text(file, json.dumps(content, indent=indent) + ("\n" if indent else ""))


def write_result(file: str | Path, result: dict[str, Any]) -> None:
    """Write a result, to be read by people too; its folder is made if it is not there."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    write_whole(Path(file), result, indent=2)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file of a folder; what JSON has no word for (a path, a date) is written as its text."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def disk_is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that it was raised from, is a full disk: libraries wrap it in their own."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
