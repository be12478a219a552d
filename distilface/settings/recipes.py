"""Recipes: YAML files of settings, the shipped ones by their names."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from distilface.settings.errors import InputError, did_you_mean


class _AsWritten(yaml.SafeLoader):
    """Reads ``1e-5``, ``yes`` and ``007`` as text, so that they mean the same as on a command line."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def shipped_recipes() -> dict[str, Traversable]:
    """Return the recipes of the package by name, as ``minilm-l3``."""
    folder = files("distilface") / "recipes"
    entries = folder.iterdir() if folder.is_dir() else ()
    recipes = {file.name.removesuffix(".yaml"): file for file in entries if file.name.endswith(".yaml")}
    return dict(sorted(recipes.items()))


def find_recipe(recipe: str | Path) -> Traversable:
    """Return the file of a recipe: a shipped one by its name, else a path.

    Raises:
        InputError: if there is none, with the nearest shipped one and a list of all.
    """
    shipped, path = shipped_recipes(), Path(recipe)
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    if not path.exists():
        hint = did_you_mean(path.stem, shipped)
        hint = f"{hint} " if hint else ""
        raise InputError(f"recipe {recipe} does not exist; {hint}the shipped ones are {', '.join(shipped) or 'none'}")
    return path


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a flat YAML mapping from setting to value, with lists and values as text.

    Raises:
        InputError: if the file does not exist, is not YAML or is not a flat mapping.
    """
    file = find_recipe(path)
    try:
        recipe = yaml.load(file.read_text(encoding="utf-8"), _AsWritten)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"recipe {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"recipe {path} must be a mapping of settings to values, one a line, as 'seed: 42'")
    for key, value in recipe.items():
        values = value if isinstance(value, list) else [value or ""]
        if not all(isinstance(v, str) for v in values):
            raise InputError(f"recipe {path}: the value of {key} must be one value or a list of them, not {value}")
    return {str(key): value for key, value in recipe.items()}


def as_arguments(recipe: dict[str, Any]) -> list[str]:
    """Return a recipe as words of a command line, so that one parser checks the types of both."""
    words = []
    for key, value in recipe.items():
        if isinstance(value, list):
            words += [f"--{key}", *value]
        elif value is not None:
            words.append(f"--{key}={value}")
    return words


def nulls(recipe: dict[str, Any], cls: type, path: str) -> dict[str, None]:
    """Return the settings that a recipe sets to null.

    Raises:
        InputError: if a setting cannot be ``None``.
    """
    names = [key for key, value in recipe.items() if value is None]
    hints = get_type_hints(cls)
    for key in names:
        if type(None) not in get_args(hints[key]):
            raise InputError(f"recipe {path}: {key} has no value; give it one or leave the line out")
    return dict.fromkeys(names)
