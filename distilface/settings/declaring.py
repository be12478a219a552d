"""One setting of a dataclass: its default, its help, and what it excludes or needs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field
from typing import Any

#: What a field declares beside the options of argparse.
RULES = ("excludes", "chooses", "off", "needs", "unused")


def setting(
    default: Any = MISSING,
    help: str = "",
    aliases: Sequence[str] = (),
    *,
    excludes: Sequence[str] = (),
    chooses: Sequence[str] = (),
    off: Callable[[Any], bool] | None = None,
    needs: Mapping[str, Any] | None = None,
    unused: str = "",
) -> Any:
    """Declare one setting of a dataclass.

    Args:
        default: its default; a list is copied for each instance. Without a default the setting is required.
        help: the line of ``--help``.
        aliases: its other options on the command line, as ``--parallel``.
        excludes: the settings that it cancels, and that cancel it: of two on the command line both are refused, and one
            on the command line sets aside the other of a recipe.
        chooses: the settings whose values it finds by itself; it excludes them, and what needs them has its effect.
        off: whether a value cancels nothing; default ``None``, ``False``, an empty list and numbers up to 0.
        needs: where the setting has an effect: by another setting, its value, or ``True`` where that must be on and
            ``False`` where it must be off, or a test of its value. Elsewhere a warning names it.
        unused: why it has no effect anywhere, for a setting that a method inherits and does not read.
    """
    text = f"no effect: {unused}" if unused else help
    rules = {"excludes": [*excludes, *chooses], "chooses": list(chooses), "off": off, "needs": dict(needs or {})}
    metadata = {"help": text.replace("%", "%%"), "aliases": list(aliases), "unused": unused, **rules}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)
