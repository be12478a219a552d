"""One training of several: made, found again, or gone on with; mean and deviation of several. Shared by the series."""

import importlib.util
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distilface.model.folder import Folder
from distilface.settings import InputError, parse
from distilface.training.run_folder import work_folder
from distilface.training.settings import other_settings


def load_script(path: str) -> Any:
    """Import a training script as a module.

    Raises:
        InputError: if it is not there.
    """
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; the training scripts are in training/")
    spec: Any = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[Path(path).stem] = module
    spec.loader.exec_module(module)
    return module


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


def trained(script: Any, words: list[str], folder: str) -> dict[str, Any]:
    """Train into ``folder``, go on with an unfinished run of it, or find the finished one; return its ``run.json``.

    Raises:
        InputError: as the script does, also where the folder holds a model of other settings.
    """
    settings = parse(script.Settings, [*words, "--output_dir", folder], "")
    run = Folder(Path(folder)).run
    if run and not other_settings(run, settings):
        print(f"{folder} is there; not trained again", file=sys.stderr)
        return run.as_dict()
    resume = ["--resume", "true"] if work_folder(settings).exists() else []
    return dict(script.main([*words, "--output_dir", folder, *resume]))


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
