"""One training of a series: new, resumed, or already done; and the words of a command line that belong to it."""

import logging
from pathlib import Path
from typing import Any

from distilface.methods import find_method
from distilface.methods.base import Method
from distilface.model.folder import Folder
from distilface.settings import parse, variant_words
from distilface.training.run_folder import work_folder
from distilface.training.settings import other_settings

logger = logging.getLogger("distilface.benchmarks.series")


def method_of(script: str) -> Method:
    """Return the method of a training script, as ``training/train_unsup.py``, or of a name, as ``simcse``.

    Raises:
        InputError: on an unknown one.
    """
    return find_method(Path(script).stem.removeprefix("train_"))


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Split a command line at ``--``: the words of the series, and those of the training script."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def read_recipe(method: Method, words: list[str], variants: list[str]) -> Any:
    """Return the settings of the recipe without a variant, once those of every variant are read too.

    Raises:
        InputError: on a mistake, also one in the last variant, before the first is trained.
    """
    for variant in variants:
        parse(method.Settings, [*words, *variant_words(variant)], "")
    return parse(method.Settings, words, "")


def variant_folder(output_dir: str, variant: str) -> str:
    """Return the folder of a variant of a recipe that writes ``output_dir``.

    >>> variant_folder("models/m", "teachers=models/a,models/b pooling=cls")
    'models/m-teachers=models_a,models_b-pooling=cls'
    """
    return f"{output_dir}-{variant.replace(' ', '-').replace('/', '_')}" if variant else output_dir


def train_once(method: Method, words: list[str], folder: str) -> dict[str, Any]:
    """Train into ``folder`` unless it holds the finished training, and return its ``run.json``; resume a stopped one.

    Raises:
        InputError: as the training does, also where the folder holds a model of other settings.
    """
    settings: Any = parse(method.Settings, [*words, "--output_dir", folder], "")
    run = Folder(Path(folder)).run
    if run and not other_settings(run, settings):
        logger.info("%s is there; not trained again", folder)
        return run.as_dict()
    settings.resume = work_folder(settings).exists()
    return method.train(settings)
