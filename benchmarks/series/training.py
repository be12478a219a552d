"""One training of several: made, found again, or gone on with; mean and deviation of several. Shared by the series."""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.sts.run import read_run
from distilface.methods import find_method
from distilface.methods.base import Method
from distilface.settings import parse
from distilface.training.run_folder import work_folder
from distilface.training.settings import other_settings


def method_of(script: str) -> Method:
    """Return the method of a training script, ``training/train_unsup.py``, or of its name, ``simcse``.

    Raises:
        InputError: on an unknown one.
    """
    return find_method(Path(script).stem.removeprefix("train_"))


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line at ``--``: the series' own words, and those of the training script."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def variant_folder(output_dir: str, variant: str) -> str:
    """Name the folder of a variant of a recipe that writes ``output_dir``.

    >>> variant_folder("models/m", "teachers=models/a,models/b pooling=cls")
    'models/m-teachers=models_a,models_b-pooling=cls'
    """
    return f"{output_dir}-{variant.replace(' ', '-').replace('/', '_')}" if variant else output_dir


def train_once(method: Method, words: list[str], folder: str) -> dict[str, Any]:
    """Train into ``folder``, go on with an unfinished run of it, or find the finished one; return its ``run.json``.

    Raises:
        InputError: as the training does, also where the folder holds a model of other settings.
    """
    settings: Any = parse(method.Settings, [*words, "--output_dir", folder], "")
    run = read_run(folder)
    if run and not other_settings(run, settings):
        print(f"{folder} is there; not trained again", file=sys.stderr)
        return run
    settings.resume = work_folder(settings).exists()
    return method.train(settings)


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and sample deviation (n - 1) of some scores; one score has no deviation.

    >>> spread([1.0, 2.0, 3.0]), spread([4.0])
    ({'mean': 2.0, 'sd': 1.0}, {'mean': 4.0, 'sd': None})
    """
    sd = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 2), "sd": sd}


def shown(value: dict[str, float | None]) -> str:
    """Write what :func:`spread` has found.

    >>> shown({'mean': 2.0, 'sd': 1.0}), shown({'mean': 4.0, 'sd': None})
    ('2.00 ± 1.00', '4.00')
    """
    return f"{value['mean']:.2f}" + ("" if value["sd"] is None else f" ± {value['sd']:.2f}")
