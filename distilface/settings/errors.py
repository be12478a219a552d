"""The mistakes of a user, and names that are not known."""

from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """A mistake of the user: one sentence with the value seen and the remedy."""

    __module__ = "distilface.settings"  # where a program imports it from, as a traceback should say


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the question after the nearest known name, or ``None`` where none is near.

    Args:
        name: that is not known.
        known: the names that are.
        cutoff: the least similarity, from 0 to 1 (:mod:`difflib`).

    >>> did_you_mean("simces", ["simcse", "mlm"])
    "did you mean 'simcse'?"
    """
    import difflib  # a light encoder that makes no mistake starts without it

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return f"did you mean {close[0]!r}?" if close else None


def check_known(names: Sequence[str], known: Sequence[str], what: str) -> None:
    """Check that all ``names`` are known.

    Raises:
        InputError: on the first name that is not, with the nearest known one.
    """
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known, cutoff=0.4) or f"known: {', '.join(sorted(known))}"
            raise InputError(f"unknown {what} {name!r}: {hint}")
