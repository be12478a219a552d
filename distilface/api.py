"""The public functions of the package, each one call for one verb of the command."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from distilface.data.texts import as_texts
from distilface.methods import find_method
from distilface.settings import check_known, parse


def train(
    method: str,
    *,
    data: Sequence[str] | Dataset = (),
    config: str | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a model folder by a method; the settings are those of ``distilface train METHOD --help``.

    >>> import distilface
    >>> distilface.train("distil", data=["A cat sat.", "A dog ran."])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown method 'distil': did you mean 'distill'?

    Args:
        method: its name, as ``distill`` or ``simcse``.
        data: files, folders, Hub data sets or ``python``; or the sentences themselves; or a data set with a column
            ``text``.
        config: a recipe, by the name of a shipped one or its file; a method may have a default one.
        output_dir: the folder to write; default the recipe's or the method's.
        settings: whatever else differs, as ``teacher=...`` or ``steps=100``.

    Returns:
        What stands in the folder's ``run.json``.

    Raises:
        InputError: on an unknown method or setting, or data or models that cannot be used.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved; the same call with ``resume=True`` goes on.
    """
    chosen = find_method(method)
    start: Any = parse(chosen.Settings, ["--config", config] if config else [], "")
    check_known(list(settings), list(vars(start)), f"setting of {method}:")
    places = {} if output_dir is None else {"output_dir": str(output_dir)}
    sources, texts = as_texts(data)
    return chosen.train(replace(start, **settings, **places, **({"data": sources} if sources else {})), texts)
