"""How a training ends: its folder is scored as reloaded from disk and moved into place; run.json and a verdict."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from distilface.environment import environment
from distilface.locks import discard
from distilface.run import Run, read_run, with_sources
from distilface.storage import put_in_place, write_json
from distilface.training.checkpoints import WholeCheckpoints, writing
from distilface.training.run_folder import note_finished


@dataclass(frozen=True)
class Measure:
    """How one kind of model is scored, saved and loaded.

    Attributes:
        name: of the score, in ``run.json``.
        score: the score of a model.
        save: writes a model into a folder.
        load: loads a model from a folder.
        key: the trainer's name of the score.
        chooses: the trainer's name of what chooses the checkpoint, where that is not the score.
        higher: whether a higher score is the better one.
        margin: the gain over the baseline from which a training has won.
        data: the scored pairs, for ``run.json``.
        agreement: the agreement of a model with its teacher on texts that it was not trained on, where there is one.
        shorter: numbers of a vector at which the finished model is scored too.
    """

    name: str
    score: Callable[[Any], float]
    save: Callable[[Any, Path], Any]
    load: Callable[[Path], Any]
    key: str
    chooses: str | None = None
    higher: bool = True
    margin: float = 1.0
    data: dict[str, Any] = field(default_factory=dict)
    agreement: Callable[[Any], dict[str, Any]] | None = None
    shorter: Sequence[int] = ()

    def gain(self, score: float, baseline: float) -> float:
        """Return by how much ``score`` is better than ``baseline``."""
        return score - baseline if self.higher else baseline - score


def finished_run(
    trainer: WholeCheckpoints,
    measure: Measure,
    start: dict[str, Any],
    run: dict[str, Any],
    teacher_score: float | None,
) -> Run:
    """Return the run of a finished training, without its final score.

    Args:
        trainer: after its last step.
        measure: what chose the checkpoint.
        start: ``settings``, ``data`` and the ``baseline`` score, from before the first step.
        run: what the method adds, by the keys of ``run.json``.
        teacher_score: the teacher on the same measure.
    """
    history = trainer.state.log_history
    content = {
        **run,
        "settings": start["settings"],
        "data": start["data"],
        "seed": start["settings"]["seed"],
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_seconds": round(trainer.seconds, 1),
        "bf16": trainer.args.bf16,
        "curve": [[row["step"], round(row[measure.key], 4)] for row in history if measure.key in row],
        "loss": [[row["step"], round(row["loss"], 4)] for row in history if "loss" in row],
        "agreement": start.get("agreement", {}),
        "scores": {f"baseline_{measure.name}": start["baseline"], f"teacher_{measure.name}": teacher_score},
        **environment(),
    }
    return with_sources(Run.from_dict(content))


def keep_untrained(model: Any, measure: Measure, place: Path, overwrite: bool) -> None:
    """Write a student as it is before its first step; its own weights stay as they are, also where it saves rounded."""
    staging = place.with_name(f"{place.name}.unfinished")
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    shutil.rmtree(staging, ignore_errors=True)
    with writing(staging, f"the model folder {place}"):
        measure.save(model, staging)
    model.load_state_dict(weights)
    put_in_place(staging, place, overwrite=overwrite)


def finish(model: Any, measure: Measure, staging: Path, output: Path, run: Run, overwrite: bool) -> dict[str, Any]:
    """Write the folder aside, score it as reloaded from disk, and move it into place.

    Returns:
        The content of ``run.json``.
    """
    shutil.rmtree(staging, ignore_errors=True)
    baseline = run.scores[f"baseline_{measure.name}"]
    with writing(staging, f"the model folder {output}"):
        measure.save(model, staging)
        saved = measure.load(staging)
        score = measure.score(saved)
        gain = measure.gain(score, baseline)
        agreement = {**run.agreement, "after": measure.agreement(saved)} if measure.agreement else {}
        verdict = judge(gain, measure.margin, agreement)
        run = replace(run, scores={**run.scores, measure.name: score}, verdict=verdict, gain=gain, agreement=agreement)
        if measure.shorter:
            run = replace(run, more={**run.more, "dimensions": _by_dimensions(measure, saved)})
        write_json(staging / "run.json", run.as_dict())
        note_finished(staging.parent, staging / "run.json")
    put_in_place(staging, output, overwrite=overwrite)
    discard(staging.parent, output)
    return read_run(output / "run.json").as_dict()


def _by_dimensions(measure: Measure, model: Any) -> dict[str, Any]:
    """Return the score of the first so many numbers of a model's vectors, by their count; the last is of all."""
    scores = {}
    for count in measure.shorter:
        with model.truncate_embeddings(count):
            scores[str(count)] = round(measure.score(model), 4)
    return {"score": measure.name, "scores": scores}


def judge(gain: float, margin: float, agreement: dict[str, Any]) -> str:
    """Return the verdict on a training.

    Args:
        gain: in the score that chose the checkpoint.
        margin: the gain from which it has won.
        agreement: with the teacher, ``before`` and ``after``; empty for a training without one.

    Returns:
        ``WIN``, ``MARGINAL``, ``REGRESSION``, or ``MIXED`` where the score moves one way and the teacher's neighbours,
        which are what a search would show, by a point the other.

    >>> judge(-0.3, 1.0, {"before": {"recall": 70.0}, "after": {"recall": 74.0}})
    'MIXED'
    """
    before, after = (agreement.get(when, {}).get("recall") for when in ("before", "after"))
    moved = 0.0 if before is None or after is None else after - before
    if abs(moved) >= 1 and gain * moved < 0:
        return "MIXED"
    return "WIN" if gain >= margin else "MARGINAL" if gain > 0 else "REGRESSION"


def agreement_line(agreement: dict[str, Any]) -> str:
    """Say how a student agrees with its teacher, before the training and after it."""
    words = {"cosine": ("mean cosine", 3), "spearman": ("order of the pairs", 1), "recall": ("ten neighbours", 1)}
    moves = []
    for key, (word, digits) in words.items():
        values = [agreement[when][key] for when in ("before", "after")]
        moves += [f"{word} {values[0]:.{digits}f} -> {values[1]:.{digits}f}"] if None not in values else []
    return f"agreement with the teacher on {agreement['texts']} texts: {', '.join(moves)}"


def verdict_lines(run: Run, output: Path) -> list[str]:
    """Return the last lines of a training: its agreement with the teacher, the folder, how its score compares.

    Args:
        run: of the finished training.
        output: its folder.
    """
    [name] = [key for key in run.scores if not key.startswith(("baseline_", "teacher_"))]
    baseline, teacher = run.scores[f"baseline_{name}"], run.scores[f"teacher_{name}"]
    scores = f"score={run.scores[name]:.2f} baseline={baseline:.2f}"
    scores += f" teacher={'none' if teacher is None else f'{teacher:.2f}'}"
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    agreement = [agreement_line(run.agreement)] if run.agreement else []
    return [
        *agreement,
        f"folder: {output} ({size / 1e6:.1f} MB), {run.parameters:,} parameters",
        f"VERDICT: {run.verdict} {scores} delta={run.gain:+.2f}",
    ]
