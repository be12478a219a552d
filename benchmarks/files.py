"""The JSON files that the benchmarks read and write."""

import json
from pathlib import Path
from typing import Any

from distilface.json_files import read_json
from distilface.settings import InputError
from distilface.storage import write_result


def read_result(file: str | Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        InputError: if the file does not exist or is not a JSON object.
    """
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} is not a result that can be read ({type(error).__name__})") from None


def add_result(file: str | None, name: str, result: dict[str, Any]) -> None:
    """Write a result into a file by its name, as of a processor, if ``--output`` names one; the others there stay."""
    if file:
        others = read_json(Path(file)) if Path(file).exists() else {}
        write_result(file, {**others, name: result})


def save_result(file: str | None, result: dict[str, Any]) -> None:
    """Write a result if ``--output`` names a file, and print its name."""
    if file:
        write_result(file, result)
        print(f"result: {file}")
