"""Settings of a script: default < recipe < command line, and how a script ends on a user's mistake."""

import difflib
import errno
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml
from transformers import HfArgumentParser

S = TypeVar("S")


class InputError(ValueError):
    """A mistake in what the user gave: one sentence with the value seen and the remedy."""


def setting(default: Any = MISSING, help: str = "") -> Any:
    """Declare one setting of a dataclass with its default and the line that ``--help`` shows for it.

    A mutable default (a list) is copied for each instance; without a default the setting is required.
    """
    metadata = {"help": help.replace("%", "%%")}
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


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a recipe: a YAML file of one flat mapping from setting to value.

    Raises:
        InputError: if the file is missing, is no YAML or is not a mapping.
    """
    try:
        recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"recipe {path} does not exist; the shipped ones are in training/recipes/") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"recipe {path} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(recipe, dict):
        raise InputError(f"recipe {path} must be a mapping of settings to values, one a line, as 'seed: 42'")
    return recipe


def _as_arguments(recipe: dict[str, Any]) -> list[str]:
    """Spell a recipe as command-line words, so that one parser checks the types of both."""
    words = []
    for key, value in recipe.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{key}", *(str(v) for v in values)]
    return words


class _Parser(HfArgumentParser):
    """An argument parser whose mistakes are sentences: raised, not printed with the usage."""

    def error(self, message: str) -> Any:
        raise InputError(f"{message} (see --help)")


def parse(cls: type[S], argv: Sequence[str] | None, description: str) -> S:
    """Read the settings dataclass ``cls``: its defaults, then ``--config RECIPE.yaml``, then ``argv``.

    Args:
        cls: a dataclass whose fields are made by :func:`setting`.
        argv: the command line without the program's name; ``None`` takes ``sys.argv[1:]``.
        description: the text that ``--help`` opens with.

    Raises:
        InputError: on an unknown key or option (the nearest is named) or a value of the wrong type.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    dataclass_type: Any = cls
    parser: Any = _Parser(dataclass_type, description=description, allow_abbrev=False)
    parser.add_argument("--config", metavar="RECIPE.yaml", help="settings from a file; the command line wins")
    known = [f.name for f in fields(cls)]  # type: ignore[arg-type]
    if "--config" in words or any(w.startswith("--config=") for w in words):
        at = next(i for i, w in enumerate(words) if w.split("=")[0] == "--config")
        path = words[at].partition("=")[2] or (words[at + 1] if at + 1 < len(words) else "")
        recipe = read_recipe(path)
        check_known(list(recipe), known, f"setting in {path}:")
        words = _as_arguments(recipe) + words
    parsed = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
    unknown = [w.split("=")[0].lstrip("-").replace("-", "_") for w in parsed[-1] if w.startswith("--")]
    check_known(unknown, [*known, "config"], "option")
    if parsed[-1]:
        raise InputError(f"unexpected words on the command line: {' '.join(parsed[-1])}")
    settings: S = parsed[0]
    return settings


def cli(main: Callable[[], Any]) -> None:
    """Run a script's ``main`` and leave: one sentence and exit code 2 on a user's mistake, 130 on Ctrl-C.

    A full disk, whatever library meets it, is a user's matter too; any other failure keeps its traceback.
    """
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"\nstopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"error: the disk is full ({error.filename or 'while writing'}); free some space", file=sys.stderr)
        sys.exit(2)
