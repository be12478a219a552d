"""Settings of a command: default < recipe < command line."""

import argparse
import difflib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import MISSING, field, fields
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml
from transformers import HfArgumentParser

S = TypeVar("S")


class InputError(ValueError):
    """A mistake in what the user gave: one sentence with the value seen and the remedy."""


def setting(default: Any = MISSING, help: str = "", aliases: Sequence[str] = ()) -> Any:
    """Declare one setting of a dataclass with its default and the line that ``--help`` shows for it.

    A mutable default (a list) is copied for each instance; without a default the setting is required. ``aliases``
    are other options of the command line for it, as ``--parallel``.
    """
    metadata = {"help": help.replace("%", "%%"), "aliases": list(aliases)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def check_known(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Refuse a name that is not known, naming the nearest one.

    Raises:
        InputError: on the first of ``names`` that is not in ``known``.
    """
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name!r}: {_nearest(name, known)}")


class _AsWritten(yaml.SafeLoader):
    """Leaves ``1e-5``, ``yes`` and ``007`` as they are written, so that they mean what they do on a command line."""


_AsWritten.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML file of one flat mapping from setting to value, its lists and words as strings.

    Raises:
        InputError: if the file is missing, is no YAML or is not a flat mapping.
    """
    shipped = files("distilface") / "recipes" / f"{path}.yaml"
    source = shipped if not Path(path).suffix and shipped.is_file() else Path(path)
    try:
        recipe = yaml.load(source.read_text(encoding="utf-8"), _AsWritten)
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist; the shipped ones are in distilface/recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"recipe {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"recipe {path} must be a mapping of settings to values, one a line, as 'seed: 42'")
    for key, value in recipe.items():
        values = value if isinstance(value, list) else [value or ""]
        if not all(isinstance(v, str) for v in values):
            raise InputError(f"recipe {path}: the value of {key} must be one value or a list of them, not {value}")
    return {str(key): value for key, value in recipe.items()}


def _as_arguments(recipe: dict[str, Any]) -> list[str]:
    """Spell a recipe as command-line words, so that one parser checks the types of both."""
    words = []
    for key, value in recipe.items():
        if isinstance(value, list):
            words += [f"--{key}", *value]
        elif value is not None:
            words.append(f"--{key}={value}")
    return words


def _none_of(recipe: dict[str, Any], cls: type, path: str) -> dict[str, None]:
    """Return the settings that a recipe sets to null, if they can be."""
    nulls = [key for key, value in recipe.items() if value is None]
    hints = get_type_hints(cls)
    for key in nulls:
        if type(None) not in get_args(hints[key]):
            raise InputError(f"recipe {path}: {key} has no value; give it one or leave the line out")
    return dict.fromkeys(nulls)


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults, and keeps the lines of the description: commands stand in it."""


class _Parser(HfArgumentParser):
    """An argument parser whose mistakes are sentences: raised, not printed with the usage."""

    def error(self, message: str) -> Any:
        """Raise the mistake that upstream would print."""
        raise InputError(f"{message} (see --help)")


def parse(cls: type[S], argv: Sequence[str] | None, description: str) -> S:
    """Read the settings dataclass ``cls``: its defaults, then ``--config RECIPE.yaml``, then ``argv``.

    Args:
        cls: a dataclass whose fields are made by :func:`setting`. Its class variable ``default_config``, if it has
            one, is the recipe where the command line names none.
        argv: the command line without the program's name; ``None`` takes ``sys.argv[1:]``.
        description: the text that ``--help`` opens with.

    Raises:
        InputError: on an unknown key or option (the nearest is named) or a value of the wrong type.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser: Any = _Parser(cls, description=description, allow_abbrev=False, formatter_class=_Help)  # type: ignore[arg-type]
    first: Any = _Parser((), add_help=False, allow_abbrev=False)
    for each in (parser, first):
        each.add_argument(
            "--config",
            metavar="RECIPE.yaml",
            default=getattr(cls, "default_config", None),
            help="settings from a file; the command line wins",
        )
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    path = first.parse_known_args(words)[0].config
    if path is not None:
        recipe = read_recipe(path)
        check_known(list(recipe), known, f"setting in {path}:")
        parser.set_defaults(**_none_of(recipe, cls, path))
        words = _as_arguments(recipe) + words
    parsed = parser.parse_args_into_dataclasses(words, return_remaining_strings=True, look_for_args_file=False)
    unknown = [w.split("=")[0].lstrip("-").replace("-", "_") for w in parsed[-1] if w.startswith("--")]
    check_known(unknown, [*known, "config"], "option")
    if parsed[-1]:
        raise InputError(f"unexpected words: {' '.join(parsed[-1])}")
    settings: S = parsed[0]
    return settings


def variant_words(variant: str) -> list[str]:
    """Spell a variant, as ``learning_rate=1e-4 pooling=cls``, as command-line words; a comma parts a list.

    >>> variant_words("learning_rate=1e-4 layers=0,2")
    ['--learning_rate=1e-4', '--layers', '0', '2']

    Raises:
        InputError: if a part of it is no ``setting=value``.
    """
    parts = shlex.split(variant)
    if not parts or any("=" not in part for part in parts):
        raise InputError(f"the variant {variant!r} must be settings, as 'learning_rate=1e-4 pooling=cls'")
    words: list[str] = []
    for name, _, value in (part.partition("=") for part in parts):
        words += [f"--{name}", *value.split(",")] if "," in value else [f"--{name}={value}"]
    return words
