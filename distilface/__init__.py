"""distilface: makes, measures and publishes small sentence encoders, on sentence-transformers.

Text goes in on the left, a small model folder comes out, and everything after that reads the folder. The functions
below are loaded where they are first used, so that importing the package stays free of torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distilface.api import compare, encode, evaluate, export, load, push, route, shape, train, write_card

__all__ = ["compare", "encode", "evaluate", "export", "load", "push", "route", "shape", "train", "write_card"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from distilface import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
