"""The mistakes of a user, and names that are not known."""

import difflib
from collections.abc import Sequence


class InputError(ValueError):
    """A mistake of the user: one sentence with the value seen and the remedy."""

    __module__ = "distilface.settings"  # where a program imports it from, as a traceback should say


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"


def check_known(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Check that all ``names`` are known.

    Raises:
        InputError: on the first name that is not, with the nearest known one.
    """
    for name in names:
        if name not in known:
            raise InputError(f"unknown {what} {name!r}: {_nearest(name, known)}")
