"""Publish a model: write its card, push it to the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distilface.extras import check_toolkit
from distilface.settings import check_known


def write_card(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    results: Sequence[str | Path] = (),
    facts: str | Path | None = None,
    license: str | None = None,
) -> Path:
    """Write the model card of a folder, README.md: what is known of the model, and what is not.

    >>> import distilface
    >>> distilface.write_card("models/none")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none does not exist; give a model folder

    Args:
        folder: a model folder.
        repo_id: what the snippets call it, ``owner/name``; default the folder's name.
        results: files of scores that the benchmarks have written.
        facts: a YAML file of more facts, as the licence of your text.
        license: the model's; default that of the model whose weights it starts from.

    Returns:
        The card's file.

    Raises:
        InputError: if the folder is not a whole model, or a file cannot be used.
    """
    check_toolkit("card")
    from distilface.cards import card

    return card.write_card(folder, repo_id, results, facts, license)


def push(folder: str | Path, repo_id: str, **settings: Any) -> dict[str, Any]:
    """Publish a model folder on the Hugging Face Hub, weights and card in one commit.

    >>> import distilface
    >>> distilface.push("models/mine", "distilface")
    Traceback (most recent call last):
    distilface.settings.InputError: --repo-id 'distilface' names no owner; give owner/name

    Args:
        folder: a model folder.
        repo_id: where to, ``owner/name``.
        settings: those of ``distilface push --help``, as ``private=True`` or ``tag=["v1"]``.

    Returns:
        ``repo_id``, ``files``, ``score``, ``deleted`` and, if it was published, ``commit`` and ``url``.

    Raises:
        InputError: on whatever must not or cannot be published, saying what is on the Hub then.
    """
    check_toolkit("push")
    from distilface.hub import publishing
    from distilface.hub.settings import PushSettings

    start = PushSettings(folder=str(folder), repo_id=repo_id)
    check_known(list(settings), list(vars(start)), "setting of push:")
    return publishing.push(replace(start, **settings))
