"""Settings that exclude each other, and settings without effect: both are declared at the fields of a dataclass."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

logger = logging.getLogger(__name__)


def is_on(field: Field[Any], value: Any) -> bool:
    """Return whether a setting does anything at this value: by its ``off``, or if it is above 0 or not empty."""
    if off := field.metadata.get("off"):
        return not off(value)
    return value > 0 if isinstance(value, int | float) else bool(value)


def rivals(cls: type, name: str) -> set[str]:
    """Return the settings that a setting excludes, or that exclude it."""
    excludes = {field.name: set(field.metadata.get("excludes", ())) for field in fields(cls)}
    return excludes[name] | {other for other, excluded in excludes.items() if name in excluded}


def _on(cls: type, values: Mapping[str, Any]) -> list[str]:
    return [field.name for field in fields(cls) if field.name in values and is_on(field, values[field.name])]


def exclusive_pair(cls: type, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return two of the settings that exclude each other, or ``None``.

    Args:
        cls: the dataclass of the settings.
        values: those of one source, by name: of the command line, or of a recipe.
    """
    on = _on(cls, values)
    return next(((a, b) for a in on for b in on if b in rivals(cls, a)), None)


def set_aside(cls: type, weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of a weaker source that a stronger one excludes, each with the setting that excludes it."""
    on = _on(cls, weaker)
    return {name: other for other in _on(cls, stronger) for name in on if name in rivals(cls, other)}


def default_of(field: Field[Any]) -> Any:
    """Return the default of a field."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def is_default(settings: Any, name: str) -> bool:
    """Return whether a setting has its default."""
    return any(getattr(settings, name) == default_of(field) for field in fields(settings) if field.name == name)


def _words(name: str, value: Any) -> str:
    """Write a setting as on a command line.

    >>> _words("layers", [0, 2]), _words("queue", None)
    ('--layers 0 2', 'no --queue')
    """
    if value is None or value == []:
        return f"no --{name}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def _is_met(need: Any, field: Field[Any], value: Any) -> bool:
    if isinstance(need, Callable):  # type: ignore[arg-type]
        return bool(need(value))
    return is_on(field, value) is need if isinstance(need, bool) else value == need


def chosen_by(settings: Any) -> set[str]:
    """Return the settings that others choose, which are on."""
    known = {field.name: field for field in fields(settings)}
    on = _on(type(settings), vars(settings))
    return {name for chooser in on for name in known[chooser].metadata.get("chooses", ())}


def unused(settings: Any) -> list[str]:
    """Return a sentence for each setting that differs from its default and has no effect beside the others."""
    known, sentences = {field.name: field for field in fields(settings)}, []
    chosen = chosen_by(settings)
    for field in known.values():
        if is_default(settings, field.name):
            continue
        words = _words(field.name, getattr(settings, field.name))
        if reason := field.metadata.get("unused"):
            sentences.append(f"{words} has no effect: {reason}")
        for other, need in field.metadata.get("needs", {}).items():
            value = getattr(settings, other)
            if other not in chosen and not _is_met(need, known[other], value):
                sentences.append(f"{words} has no effect with {_words(other, value)}")
    return sentences


def warn_unused(settings: Any) -> None:
    """Log a warning for each setting that is not at its default and has no effect beside the others."""
    for sentence in unused(settings):
        logger.warning(sentence)
