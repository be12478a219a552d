"""Settings of a command: default < recipe < command line."""

import argparse
import functools
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from distilface.settings.conflicts import exclusive_pair, set_aside
from distilface.settings.declaring import RULES
from distilface.settings.errors import InputError, check_known
from distilface.settings.recipes import as_arguments, nulls, read_recipe

logger = logging.getLogger(__name__)
S = TypeVar("S")
#: The value that unsets a setting on the command line, as ``--layers none``.
NONE = "none"


class _Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults, and keeps the lines of the description: it holds commands."""


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return what reads a word of a setting that can be unset."""

    @functools.wraps(read)  # the name of the type stands in argparse's sentence on a wrong value
    def reader(word: str) -> Any:
        """Return a word as its type, ``none`` as nothing."""
        return None if word == NONE else read(word)

    return reader


class _Parser(HfArgumentParser):
    """An argument parser that raises mistakes as sentences, and reads ``none``; argparse prints them with the usage."""

    def __init__(self, cls: Any, **options: Any) -> None:
        super().__init__(cls, allow_abbrev=False, **options)
        hints = get_type_hints(cls) if cls else {}
        self.lists = {name for name, kind in hints.items() if get_origin(kind) is list}
        optional = {name for name, kind in hints.items() if type(None) in get_args(kind)} | self.lists
        for action in self._actions:
            if action.dest in optional:
                action.type = _or_none(action.type)  # type: ignore[arg-type]

    def add_argument(self, *names: Any, **options: Any) -> Any:
        """Add an option; upstream hands over all that a field declares."""
        return super().add_argument(*names, **{key: value for key, value in options.items() if key not in RULES})

    def error(self, message: str) -> Any:
        """Raise a mistake that argparse would print."""
        raise InputError(f"{message} (see --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and make ``none`` in place of a list no list, or an empty one where there must be one."""
        known, rest = super().parse_known_args(args, namespace)
        for name, value in vars(known).items():
            if isinstance(value, list) and None in value:
                if len(value) > 1:
                    raise InputError(f"--{name} {NONE} unsets it; give no other value beside it")
                setattr(known, name, [] if name in self.lists else None)
        return known, rest


def _named(cls: type, words: Sequence[str]) -> dict[str, Any]:
    """Return the settings that words of a command line name, with their values and without any default."""
    parser: Any = _Parser(cls, add_help=False)
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    named: dict[str, Any] = vars(parser.parse_known_args(words)[0])
    return named


def _check_pairs(cls: type, values: Mapping[str, Any], source: str = "") -> None:
    """Refuse two settings of one source that exclude each other."""
    if pair := exclusive_pair(cls, values):
        one, other = (f"--{name}" for name in pair)
        raise InputError(f"{source}{one} and {other} exclude each other; leave one of them out")


def _name_repeats(parser: Any, words: Sequence[str]) -> None:
    """Warn where an option that takes several values is given twice: argparse keeps the last ones alone."""
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    for action in parser._actions:
        if action.nargs == "+" and sum(options.count(option) for option in action.option_strings) > 1:
            logger.warning(f"--{action.dest} stands there twice, and only its last values count; give all to one")


def _recipe_words(cls: type, path: str, own: Mapping[str, Any]) -> tuple[list[str], dict[str, None]]:
    """Return a recipe as words, without what stronger settings set aside, and its nulls."""
    recipe = read_recipe(path)
    check_known(list(recipe), [each.name for each in fields(cls)], f"setting in {path}:")
    unset, values = nulls(recipe, cls, path), _named(cls, as_arguments(recipe))
    _check_pairs(cls, values, f"recipe {path}: ")
    aside = set_aside(cls, values, own)
    for name, other in aside.items():
        logger.info(f"--{other} sets aside {name} of the recipe {path}")
    return as_arguments({name: value for name, value in recipe.items() if name not in aside}), unset


def parse(cls: type[S], argv: Sequence[str] | None, description: str, values: Mapping[str, Any] | None = None) -> S:
    """Read the settings dataclass ``cls``: its defaults, then ``--config RECIPE.yaml``, then ``argv``, then ``values``.

    A setting that is named later wins over an earlier source in meaning too: it sets aside what it excludes there.

    Args:
        cls: a dataclass whose fields are made by :func:`setting`. Its class variable ``default_config``, if it has
            one, is the recipe where the command line names none.
        argv: the command line without the program's name; ``None`` takes ``sys.argv[1:]``.
        description: the text that ``--help`` opens with.
        values: settings of a program, by name.

    Raises:
        InputError: on an unknown key or option (the nearest is named), a value of the wrong type, or two settings of
            one source that exclude each other.
    """
    words, values = list(sys.argv[1:] if argv is None else argv), dict(values or {})
    parser: Any = _Parser(cls, description=description, formatter_class=_Help, epilog=f"{NONE} unsets a setting.")
    first: Any = _Parser((), add_help=False)
    for each in (parser, first):
        each.add_argument(
            "--config",
            metavar="RECIPE.yaml",
            default=getattr(cls, "default_config", None),
            help="settings from a file or a shipped recipe; the command line wins",
        )
    path = first.parse_known_args(words)[0].config
    own = {**_named(cls, words), **values}
    _check_pairs(cls, own)
    _name_repeats(parser, words)
    if path is not None:
        recipe, unset = _recipe_words(cls, path, own)
        parser.set_defaults(**unset)
        words = recipe + words
    parsed = parser.parse_args_into_dataclasses(words, return_remaining_strings=True, look_for_args_file=False)
    unknown = [w.split("=")[0].lstrip("-").replace("-", "_") for w in parsed[-1] if w.startswith("--")]
    check_known(unknown, [*(each.name for each in fields(cls)), "config"], "option")  # type: ignore[arg-type]
    if parsed[-1]:
        raise InputError(f"unexpected words: {' '.join(parsed[-1])}")
    settings: S = replace(parsed[0], **values)
    return settings


def variant_words(variant: str) -> list[str]:
    """Spell a variant, as ``learning_rate=1e-4 pooling=cls``, as command-line words; a comma parts a list.

    >>> variant_words("learning_rate=1e-4 layers=0,2")
    ['--learning_rate=1e-4', '--layers', '0', '2']

    Raises:
        InputError: if a part of it is not ``setting=value``.
    """
    assignments = shlex.split(variant)
    if not assignments or any("=" not in part for part in assignments):
        raise InputError(f"the variant {variant!r} must be settings, as 'learning_rate=1e-4 pooling=cls'")
    words: list[str] = []
    for name, _, value in (part.partition("=") for part in assignments):
        words += [f"--{name}", *value.split(",")] if "," in value else [f"--{name}={value}"]
    return words
