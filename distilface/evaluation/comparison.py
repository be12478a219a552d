"""Encoders side by side on local tasks: the teacher, the model, its exported files."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mteb.abstasks import AbsTask
from sklearn.exceptions import ConvergenceWarning
from tqdm.auto import tqdm

from distilface.evaluation.encoders import MODEL, TEACHER
from distilface.evaluation.local_tasks import KINDS
from distilface.evaluation.means import means_by_type
from distilface.evaluation.mteb_model import CachedModel, MtebModel, TeacherIndex
from distilface.evaluation.scores import run_task
from distilface.evaluation.suite import SuiteTask
from distilface.runtimes.base import Encoder
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: The label of the retrievals by a student's queries among the teacher's documents.
INDEX_MEAN = "mean retrieval, in the teacher's index"


@dataclass
class TaskScores:
    """The scores of a task, each by the name of its encoder and times 100.

    Attributes:
        type: of the task.
        counts: whether the task counts in the means.
        scores: the main score.
        index: of a retrieval, that of queries by the encoder among documents by the teacher.
        more: other scores of mteb, by their names.
    """

    type: str
    counts: bool = True
    scores: dict[str, float] = field(default_factory=dict)
    index: dict[str, float] = field(default_factory=dict)
    more: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in a report."""
        content = {"type": self.type, "metric": KINDS[self.type].metric, "in_the_means": self.counts}
        index = {"in_the_teachers_index": self.index} if self.index else {}
        return {**content, "scores": self.scores, **index, "more": self.more}


def score_tasks(
    encoders: Mapping[str, Encoder], tasks: Sequence[SuiteTask], batch_size: int = 32, *, shared: bool = True
) -> dict[str, TaskScores]:
    """Score encoders on the tasks of a suite; each embeds a text once, in however many tasks it stands.

    A student of the teacher's width also searches among the documents as the teacher embedded them.

    Args:
        encoders: by their names (:func:`distilface.evaluation.encoders.open_encoders`).
        tasks: of a suite.
        batch_size: texts in a batch.
        shared: whether the model has its teacher's space.

    Raises:
        InputError: on a model whose embeddings are all alike, or not finite.
    """
    results = {task.name: TaskScores(task.type, task.counts) for task in tasks}
    models = {name: CachedModel(encoder) for name, encoder in encoders.items()}
    with tqdm(total=len(models) * len(tasks), unit="task", disable=None) as progress:
        for name, model in models.items():
            index = teacher_index(models, name, shared)
            for task in tasks:
                progress.set_description(f"{name}, {task.name}")
                result = results[task.name]
                result.scores[name], result.more[name] = local_scores(model, task.task, task.type, batch_size)
                if index and task.type == "retrieval":
                    result.index[name], _ = local_scores(index, task.task, task.type, batch_size)
                progress.update()
    return results


def teacher_index(models: Mapping[str, CachedModel], name: str, shared: bool = True) -> TeacherIndex | None:
    """Return the model that searches the teacher's documents; ``None`` for the teacher, or one of another space."""
    if TEACHER not in models or name == TEACHER:
        return None
    if not shared:
        if name == MODEL:
            logger.info("the model has learned a space of its own: it cannot search its teacher's index")
        return None
    width, own = models[TEACHER].encoder.dimension, models[name].encoder.dimension
    if width != own:
        if name == MODEL:
            logger.info(f"the teacher's vectors have {width} numbers, the model's {own}: it cannot search its index")
        return None
    return TeacherIndex(models[name], models[TEACHER])


def local_scores(model: MtebModel, task: AbsTask, kind: str, batch_size: int) -> tuple[float, dict[str, float]]:
    """Score one local task by mteb; return the main score and others, each times 100.

    Raises:
        InputError: where there is no score.
    """
    with warnings.catch_warnings():
        # mteb stops its classifiers after 100 iterations, converged or not: that is its protocol.
        warnings.simplefilter("ignore", ConvergenceWarning)
        (entry,) = run_task(model, task, None, batch_size).scores["test"]
    score = float(entry["main_score"])
    if not math.isfinite(score):
        raise InputError(f"no score on {task.metadata.name}: the model embeds every text alike; it has collapsed")
    more = {name: round(100 * float(entry[name]), 4) for name in KINDS[kind].more}
    if "scores_per_experiment" in entry:
        draws = [float(draw["accuracy"]) for draw in entry["scores_per_experiment"]]
        mean = sum(draws) / len(draws)
        more["accuracy_std"] = round(100 * math.sqrt(sum((draw - mean) ** 2 for draw in draws) / len(draws)), 4)
    return round(100 * score, 4), more


def comparison_means(results: Mapping[str, TaskScores]) -> dict[str, dict[str, float]]:
    """Return the means by type and over all, each by the names of the encoders.

    The mean of the retrievals in the teacher's index follows that of the retrievals.
    """
    counted = {name: result for name, result in results.items() if result.counts}
    types = {name: result.type for name, result in counted.items()}
    means: dict[str, dict[str, float]] = {}
    for column in next(iter(results.values())).scores:
        scores = {name: result.scores[column] for name, result in counted.items()}
        for label, mean in means_by_type(scores, types).items():
            means.setdefault(label, {})[column] = mean
            index = [result.index[column] for result in counted.values() if column in result.index]
            if label == "mean retrieval":
                means.setdefault(INDEX_MEAN, {}).update({column: round(sum(index) / len(index), 4)} if index else {})
    return {label: mean for label, mean in means.items() if mean}
