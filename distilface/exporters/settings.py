"""The settings of an export."""

from dataclasses import dataclass

from distilface.exporters.formats import FORMATS
from distilface.settings import setting


@dataclass
class ExportSettings:
    """Options of ``export``."""

    folder: str = setting("", "the model folder, or with --output_dir a Hub id; also as the first word")
    output_dir: str | None = setting(None, "save the model in this folder first, as one of the Hub must be")
    formats: list[str] = setting([], f"of {', '.join(FORMATS)}; default: all whose packages are installed")
    dev: str = setting("sample", "scored pairs to measure on: a file, a Hub data set, or 'sample', 180 of our own")
    calibration: list[str] = setting(
        ["python"],
        "text that sets the scales of static int8 and the rounding to 4 bits, as training reads it",
        needs={"formats": lambda names: not names or any(FORMATS[name].reads_text for name in names)},
    )
    most_lost: float | None = setting(
        None,
        "q4: 1 - mean cosine to the folder's vectors on the calibration text, at most; else some weights take 8 bits",
        needs={"formats": lambda names: not names or "q4" in names},
    )
