"""Settings of a command: declared as dataclasses, read from default < recipe < command line; the mistakes of a user.

Imports nothing of the package; the parser, which is built on that of transformers, and what reads recipes are loaded
where they are first used. A setting says at its own declaration which others it excludes, and which it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from distilface.settings.declaring import setting
from distilface.settings.errors import InputError, check_known, did_you_mean

if TYPE_CHECKING:
    from distilface.settings.conflicts import is_default, unused, warn_unused
    from distilface.settings.parsing import NONE, parse, variant_words
    from distilface.settings.recipes import find_recipe, read_recipe, shipped_recipes

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
#: Where a name is that a light encoder does not need: logging, YAML and transformers take a while to import.
_LATER = {
    **dict.fromkeys(("is_default", "unused", "warn_unused"), "conflicts"),
    **dict.fromkeys(("NONE", "parse", "variant_words"), "parsing"),
    **dict.fromkeys(("find_recipe", "read_recipe", "shipped_recipes"), "recipes"),
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
