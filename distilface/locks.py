"""One process at a time writes to a place, and what a killed one has left there is cleared away by the next."""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from distilface.settings import InputError


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Keep other processes from writing to ``path``, and clear away what a killed one has left beside it.

    The lock is ``.NAME.lock`` beside ``path``: a process that ends frees it, however it ends.

    Raises:
        InputError: if another process has the lock, or its place cannot be written to.
    """
    place = Path(path).resolve()
    check_writable(place)
    new_parents = [parent for parent in place.parents if not parent.exists()]
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        problem = f"another process is writing to {path}"
        raise InputError(f"{problem}; wait for it to end, or name another output") from None
    except PermissionError:
        raise InputError(f"{place.parent} cannot be written to; name a folder elsewhere") from None
    try:
        _clear_leftovers(place)
        yield
    finally:
        with contextlib.suppress(OSError):  # before the release: after it, the file may be another process's lock
            Path(lock.lock_file).unlink()
        lock.release()
        for parent in new_parents:  # one that was made for the lock alone does not stay
            with contextlib.suppress(OSError):
                parent.rmdir()


def _clear_leftovers(place: Path) -> None:
    """Remove the temporary folders of killed processes; only for who has the lock of ``place``."""
    name = re.compile(rf"\.{re.escape(place.name)}\.[0-9a-f]{{8}}\.(tmp|old)")
    for left in [entry for entry in place.parent.iterdir() if name.fullmatch(entry.name)]:
        is_free = not any(place.iterdir()) if place.is_dir() else not place.exists()
        # Where no one step swaps two folders, a kill may come after the old one was moved, before the new one was.
        if left.suffix == ".old" and is_free:
            left.rename(place)
        else:
            shutil.rmtree(left, ignore_errors=True)


def beside(place: Path, suffix: str) -> Path:
    """Return a new name beside ``place``, which :func:`_clear_leftovers` knows."""
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}{suffix}")


@contextmanager
def temporary_folder(path: str | Path) -> Iterator[Path]:
    """Give a new folder beside ``path``, on its file system, until the block ends.

    After a kill it stays, and is cleared away by the next :func:`locked` of ``path``.
    """
    folder = beside(Path(path).resolve(), ".tmp")
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def scratch_folder() -> Iterator[str]:
    """Give a folder in the system's place for temporary files until the block ends.

    Those that killed processes have left there are cleared away first: each may have the size of a model.
    """
    system = Path(tempfile.gettempdir())
    for left in system.glob("distilface-*.lock"):
        # a process that lives has its lock; another user's cannot be opened
        with contextlib.suppress(OSError, Timeout), FileLock(left, timeout=0):
            shutil.rmtree(left.with_suffix(""), ignore_errors=True)
            left.unlink()
    folder = system / f"distilface-{secrets.token_hex(8)}"
    with FileLock(f"{folder}.lock") as lock:
        try:
            folder.mkdir(0o700)
            yield str(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Have libraries make their temporary files in ``folder``, which is cleared away after a kill too."""
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def discard(folder: Path, owner: Path) -> None:
    """Remove a folder whole: after a kill, what is left is a temporary folder of ``owner``."""
    if folder.is_dir():
        aside = beside(owner.resolve(), ".tmp")
        folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Make sure that a file or folder can be made at ``path``; nothing is written.

    Raises:
        InputError: if it cannot.
    """
    there = next(parent for parent in path.resolve().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{there} cannot be written to; name a folder elsewhere")
