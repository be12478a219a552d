"""JSON files of a folder, read: apart from :mod:`distilface.storage`, whose imports cost a light encoder its start."""

import json
from pathlib import Path
from typing import Any

from distilface.settings import InputError


def read_json(path: Path) -> Any:
    """Read a JSON file of a folder.

    Raises:
        InputError: if it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise InputError(f"{path} is damaged: it is not JSON; save or download the folder again") from None
