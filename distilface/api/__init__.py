"""The public functions of the package, each one call for one verb of the command.

Each imports what it needs where it is called: :func:`load` works where torch is not installed.
"""

from distilface.api.making import export, shape, train
from distilface.api.measuring import compare, evaluate
from distilface.api.publishing import push, write_card
from distilface.api.using import encode, load, route

__all__ = ["compare", "encode", "evaluate", "export", "load", "push", "route", "shape", "train", "write_card"]
