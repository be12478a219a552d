"""How a training ends: what is known of it, its folder scored as reloaded from disk and moved into place, a verdict."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distilface.environment import environment
from distilface.storage import put_in_place
from distilface.training.checkpoints import WholeCheckpoints, writing


@dataclass(frozen=True)
class Measure:
    """How one kind of model is scored, saved and loaded; a higher score is better, or a lower one.

    ``data`` is what the score is measured on, for ``run.json``.
    """

    name: str
    score: Callable[[Any], float]
    save: Callable[[Any, Path], Any]
    load: Callable[[Path], Any]
    key: str
    higher: bool = True
    margin: float = 1.0
    data: dict[str, Any] = field(default_factory=dict)

    def gain(self, score: float, baseline: float) -> float:
        """Return by how much ``score`` is better than ``baseline``."""
        return score - baseline if self.higher else baseline - score


def record_of(
    trainer: WholeCheckpoints,
    measure: Measure,
    begun: dict[str, Any],
    run: dict[str, Any],
    teacher_score: float | None,
) -> dict[str, Any]:
    """Put together what is known of a finished training, but for its final score."""
    history = trainer.state.log_history
    return {
        **run,
        "settings": begun["settings"],
        "data": begun["data"],
        "seed": begun["settings"]["seed"],
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_seconds": round(trainer.seconds, 1),
        "bf16": trainer.args.bf16,
        "curve": [[row["step"], round(row[measure.key], 4)] for row in history if measure.key in row],
        "loss": [[row["step"], round(row["loss"], 4)] for row in history if "loss" in row],
        "scores": {f"baseline_{measure.name}": begun["baseline"], f"teacher_{measure.name}": teacher_score},
        **environment(),
    }


def finish(
    model: Any, measure: Measure, staging: Path, output: Path, record: dict[str, Any], overwrite: bool
) -> dict[str, Any]:
    """Write the folder aside, score it as reloaded from disk, move it into place, and print the verdict.

    Returns:
        What stands in ``run.json``.
    """
    shutil.rmtree(staging, ignore_errors=True)
    baseline, teacher = record["scores"][f"baseline_{measure.name}"], record["scores"][f"teacher_{measure.name}"]
    with writing(staging, f"the model folder {output}"):
        measure.save(model, staging)
        record["scores"][measure.name] = score = measure.score(measure.load(staging))
        gain = measure.gain(score, baseline)
        record["verdict"] = "WIN" if gain >= measure.margin else "MARGINAL" if gain > 0 else "REGRESSION"
        (staging / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    put_in_place(staging, output, overwrite=overwrite)
    shutil.rmtree(staging.parent, ignore_errors=True)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"folder: {output} ({size / 1e6:.1f} MB), {record['parameters']:,} parameters")
    shown = "none" if teacher is None else f"{teacher:.2f}"
    print(
        f"VERDICT: {record['verdict']} score={score:.2f} baseline={baseline:.2f} teacher={shown} delta={gain:+.2f}",
        flush=True,
    )
    return dict(json.loads((output / "run.json").read_text()))
