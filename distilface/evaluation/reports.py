"""An evaluation of a suite or a search, whole: its scores and what they were measured with."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from distilface.environment import stamp
from distilface.evaluation.comparison import comparison_means, score_tasks
from distilface.evaluation.encoders import describe, open_encoders, shares_space
from distilface.evaluation.search import score_search
from distilface.evaluation.search_files import read_search
from distilface.evaluation.suite import read_suite
from distilface.evaluation.tasks import checksum
from distilface.runtimes.base import Encoder
from distilface.settings import InputError


def compare(
    model: str | Path | SentenceTransformer,
    suite: str | Path | None,
    search: Sequence[str | Path],
    variants: Sequence[str] = (),
    teacher: str | None = None,
    batch_size: int = 32,
    beside: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a model beside its teacher and its exported files, on a suite or in a search.

    Args:
        model: a folder, a Hub id or a model in memory.
        suite: the folder of :func:`distilface.evaluation.suite.read_suite`.
        search: the three files of :func:`distilface.evaluation.search_files.read_search`, in their order.
        variants: as of :func:`distilface.evaluation.encoders.open_encoders`.
        teacher: likewise.
        batch_size: texts in a batch.
        beside: as of :func:`distilface.evaluation.encoders.open_encoders`.

    Returns:
        Of a suite ``tasks`` (each with its scores by the names of the encoders) and ``means``, of a search ``scores``
        (of each metric); ``encoders``; the sha256 of the text of each file; the date, the versions and the machine.

    Raises:
        InputError: on a mistake in the files, an encoder that cannot be opened, or a model that has collapsed.
    """
    if (suite is None) == (not search) or len(search) not in (0, 3):
        raise InputError("give a suite, or the three files of a search: queries, documents, judgements")
    measured = _Suite(suite) if suite is not None else _Search([Path(file) for file in search])
    encoders = open_encoders(model, variants, teacher, beside)
    name = "a model in memory" if isinstance(model, SentenceTransformer) else Path(model).name
    return {
        "name": name,
        **measured.scores(encoders, batch_size, shares_space(model, teacher)),
        "encoders": describe(encoders),
        **measured.source,
        "batch_size": batch_size,
        **stamp("scikit-learn", "onnxruntime", "bm25s", "PyStemmer"),
    }


class _Suite:
    def __init__(self, folder: str | Path) -> None:
        self.tasks = read_suite(folder)
        hashes = {task.file.name: task.sha256 for task in self.tasks}
        self.source = {"suite": {"name": Path(folder).resolve().name, "sha256": hashes}}

    def scores(self, encoders: Mapping[str, Encoder], batch_size: int, shared: bool) -> dict[str, Any]:
        """Return the ``tasks`` and ``means`` of a report."""
        results = score_tasks(encoders, self.tasks, batch_size, shared=shared)
        tasks = {name: result.as_dict() for name, result in results.items()}
        return {"tasks": tasks, "means": comparison_means(results)}


class _Search:
    def __init__(self, files: Sequence[Path]) -> None:
        self.search = read_search(*files)
        hashes = {file.name: checksum([file]) for file in files}
        self.source = {"search": {**self.search.counts, "sha256": hashes}}

    def scores(self, encoders: Mapping[str, Encoder], batch_size: int, shared: bool) -> dict[str, Any]:
        """Return the ``scores`` of a report."""
        return {"scores": score_search(encoders, self.search, batch_size, shared=shared)}
