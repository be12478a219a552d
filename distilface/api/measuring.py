"""Measure a model: on MTEB's tasks, on a suite, in your own search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilface.extras import check_toolkit

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def evaluate(
    model: str | Path | SentenceTransformer,
    *,
    tasks: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Score a model on MTEB's tasks, by mteb itself, in fp32.

    >>> import distilface
    >>> distilface.evaluate("models/mine", tasks=["STS112"])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown task 'STS112': did you mean 'STS12'?

    Args:
        model: a folder, a Hub id, or a model in memory.
        tasks: names of MTEB tasks and benchmarks; default the seven English STS tasks.
        data_dir: a folder of local data; default the Hub's.
        cache_dir: where mteb keeps its results; default nowhere.
        batch_size: sentences in a batch.

    Returns:
        mteb's main score of each task, times 100.

    Raises:
        InputError: on an unknown task, a model that cannot be used, or data that cannot be downloaded.
    """
    check_toolkit("evaluate")
    from distilface.evaluation import scores

    return scores.evaluate(model, tasks or scores.STS_TASKS, data_dir, cache_dir, batch_size)


def compare(
    model: str | Path | SentenceTransformer,
    *,
    suite: str | Path | None = None,
    search: Sequence[str | Path] = (),
    variants: Sequence[str] = (),
    teacher: str | None = None,
    batch_size: int = 32,
    beside: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a model beside its teacher and its exported files, by mteb: on a suite of tasks, or in your own search.

    >>> import distilface
    >>> distilface.compare("models/mine", suite="suites/none")
    Traceback (most recent call last):
    distilface.settings.InputError: suites/none is not a suite: it has no tasks.json

    Args:
        model: a folder, a Hub id, or a model in memory.
        suite: a folder of ``tasks.json`` and a file for each task.
        search: instead of a suite, three files in BEIR's layout: queries, documents, judgements.
        variants: names of exported files of the folder, as ``q4``.
        teacher: a folder or a Hub id; ``"none"`` for none; default what the folder's run.json names.
        batch_size: texts in a batch.
        beside: folders or Hub ids of other models, as the untrained student that ``train(untrained_dir=...)`` wrote.

    Returns:
        The report: ``tasks`` and ``means`` of a suite, ``scores`` of a search, each by the names of the encoders.

    Raises:
        InputError: on a mistake in the files, a model that cannot be used, or one that has collapsed.
    """
    check_toolkit("evaluate")
    from distilface.evaluation import reports

    return reports.compare(model, suite, search, variants, teacher, batch_size, beside)
