"""Settings of a command: declared as dataclasses, read from default < recipe < command line; the mistakes of a user.

Imports nothing of the package; the parser, which is built on that of transformers, is loaded where it is first used. A
setting says at its own declaration which others it excludes, and which it needs.
"""

from typing import TYPE_CHECKING, Any

from distilface.settings.conflicts import is_default, unused, warn_unused
from distilface.settings.declaring import setting
from distilface.settings.errors import InputError, check_known, did_you_mean
from distilface.settings.recipes import find_recipe, read_recipe, shipped_recipes

if TYPE_CHECKING:
    from distilface.settings.parsing import NONE, parse, variant_words

__all__ = [
    "NONE",
    "InputError",
    "check_known",
    "did_you_mean",
    "find_recipe",
    "is_default",
    "parse",
    "read_recipe",
    "setting",
    "shipped_recipes",
    "unused",
    "variant_words",
    "warn_unused",
]


def __getattr__(name: str) -> Any:
    if name in ("NONE", "parse", "variant_words"):
        from distilface.settings import parsing

        return getattr(parsing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
