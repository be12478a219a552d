"""Checks of settings that several benchmarks have; each refuses before minutes of work."""

from pathlib import Path
from typing import Any

from distilface.settings import InputError


def check_counts(settings: Any, *names: str) -> None:
    """Refuse a setting that counts something and is below 1.

    Raises:
        InputError: naming the setting and its value.
    """
    for name in names:
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be 1 or more")


def check_file(file: str | None) -> None:
    """Refuse a folder where a file is to be written.

    Raises:
        InputError: naming the folder.
    """
    if file and Path(file).is_dir():
        raise InputError(f"{file} is a folder; name a file to write")
