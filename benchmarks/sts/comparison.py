"""The models of a comparison: those measured here, and published peers with the league of their training data."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distilface.compression.student import load_student
from distilface.evaluation.scores import Scored, means, model_size
from distilface.hub_ids import resolve
from distilface.model.loading import load_model
from distilface.run import Run
from distilface.settings import InputError

logger = logging.getLogger("distilface.benchmarks.sts")

PEERS = Path(__file__).parent / "peers.yaml"
MEASURED = "measured here"
#: Scores a model: :func:`distilface.evaluation.scores.evaluate` with every argument set but the model.
Scorer = Callable[[Scored], dict[str, float]]


@dataclass(frozen=True)
class Row:
    """One model of a comparison.

    Attributes:
        name: its Hub id, its folder, or a name for it.
        league: :data:`MEASURED`, or the kind of data that a published model learned from.
        scores: per task, times 100.
        parameters: their number, or ``None`` where it is not known.
        megabytes: of its weights, or ``None``.
        role: ``model``, ``teacher`` or ``untrained`` of a model that is measured here, else ``peer``.
        source: where a published score stands, and on which test set.
    """

    name: str
    league: str
    scores: dict[str, float]
    parameters: float | None = None
    megabytes: float | None = None
    role: str = "peer"
    source: str = ""

    @property
    def label(self) -> str:
        """The name without its owner or folder; a teacher is marked as one."""
        mark = " (teacher)" if self.role == "teacher" else ""
        return self.name.rstrip("/").rpartition("/")[2] + mark

    def as_dict(self) -> dict[str, Any]:
        """Return the row as a results file holds it."""
        return {
            "name": self.name,
            "role": self.role,
            "scores": self.scores,
            **means(self.scores),
            "parameters": self.parameters,
            "megabytes": self.megabytes,
        }


def published() -> list[Row]:
    """Read the published peers of ``peers.yaml``, in its order of leagues."""
    peers = yaml.safe_load(PEERS.read_text(encoding="utf-8"))
    return [
        Row(
            name=peer["name"],
            league=peer["league"],
            scores=peer["scores"],
            parameters=peer["parameters"],
            megabytes=peer.get("megabytes"),
            source=f"{peer['source']}; test set: {peer['test_set']}",
        )
        for peer in peers
    ]


def measure(name: str, model: Scored, role: str, score: Scorer) -> Row:
    """Score one model, and count its parameters and megabytes."""
    logger.info("scoring %s (%s)", name, role)
    size = model_size(model)
    return Row(name, MEASURED, score(model), size["parameters"], size["megabytes"], role)


def measure_relatives(folder: str, run: Run, score: Scorer) -> list[Row]:
    """Score the teacher and the untrained self of a folder; one that cannot be loaded is left out, with a warning.

    Args:
        folder: the trained model.
        run: its ``run.json``: the teachers, the backbone, and how the untrained self is made of the latter.
        score: scores a model.
    """
    rows = []
    for teacher in run.teachers:
        try:
            rows.append(measure(teacher.name, resolve(teacher.name), "teacher", score))
        except InputError as problem:
            logger.warning("without its teacher: %s", problem)
    if run.baseline_model:
        pooling = run.settings.get("pooling", "mean")
        length = load_model(folder).max_seq_length
        try:
            untrained = load_student(run.baseline_model, run.layers, pooling, max_seq_length=length)
            rows.append(measure(f"{Path(folder).name}, untrained", untrained, "untrained", score))
        except InputError as problem:
            logger.warning("without its untrained self: %s", problem)
    return rows
