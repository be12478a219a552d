"""The methods of training, one paper a file or folder; each is found here by itself, under its own name.

The room imports what a training needs (:mod:`distilface.training` and all that is on its left), and nothing imports a
method by its name but the method that builds on it.
"""

import functools
import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING

from distilface.settings import check_known

if TYPE_CHECKING:
    from distilface.methods.base import Method

__all__ = ["find_method", "methods"]


@functools.cache
def methods() -> "dict[str, Method]":
    """Return every method by its name: one of each subclass of ``Method`` that a file or folder here defines."""
    from distilface.methods.base import Method

    classes = []
    for place in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{place.name}")
        classes += [
            kind
            for kind in vars(module).values()
            if inspect.isclass(kind)
            and issubclass(kind, Method)
            and not inspect.isabstract(kind)
            and f"{kind.__module__}.".startswith(f"{module.__name__}.")
        ]
    return {kind.name: kind() for kind in sorted(classes, key=lambda kind: kind.name)}


def find_method(name: str) -> "Method":
    """Return the method of a name or an alias.

    Raises:
        InputError: on an unknown name (the nearest is named).
    """
    names = {alias: method for method in methods().values() for alias in (method.name, *method.aliases)}
    check_known([name], list(names), "method")
    return names[name]
