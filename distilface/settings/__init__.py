"""Settings of a command: declared as dataclasses, read from default < recipe < command line; the mistakes of a user.

Imports nothing of the package. A setting says at its own declaration which others it excludes, and which it needs.
"""

from distilface.settings.conflicts import is_default, unused, warn_unused
from distilface.settings.declaring import setting
from distilface.settings.errors import InputError, check_known, did_you_mean
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
