"""A training in stages: each a run of its own, found again where it is finished, gone on with where it is not."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from distilface.run import read_run
from distilface.settings import InputError, setting
from distilface.training.checkpoints import last_whole
from distilface.training.run_folder import check_settings, work_folder
from distilface.training.settings import TrainSettings, other_settings

#: What may be set for each stage, where a training has it, and the setting that it replaces there.
EACH = {
    "stage_epochs": "epochs",
    "stage_steps": "steps",
    "stage_batch_sizes": "batch_size",
    "stage_learning_rates": "learning_rate",
    "stage_weights": "weight",
}


@dataclass
class StagedSettings(TrainSettings):
    """What a training in stages can be told."""

    stages: list[int] = setting([1, 2, 3, 4], "the stages to run, counted from 1")
    stage_epochs: list[float] | None = setting(None, "passes over the data, of each stage; default --epochs")
    stage_steps: list[int] | None = setting(None, "steps, of each stage; default --steps")
    stage_batch_sizes: list[int] | None = setting(None, "batch size, of each stage; default --batch_size")
    stage_learning_rates: list[float] | None = setting(None, "learning rate, of each stage; default --learning_rate")


S = TypeVar("S", bound=StagedSettings)


def stage_folder(settings: StagedSettings, number: int, names: list[str]) -> Path:
    """Return where a stage writes: the last one the output folder, the others beside it, ``<output>.stages/N-name``."""
    output = Path(settings.output_dir)
    return (
        output if number == len(names) else output.with_name(f"{output.name}.stages") / f"{number}-{names[number - 1]}"
    )


def stage_settings(settings: S, number: int, names: list[str]) -> S:
    """Return the settings of one stage: its own folder and numbers; ``resume`` only where there is something to."""
    own: dict[str, Any] = {"output_dir": str(stage_folder(settings, number, names)), "stages": [number]}
    for several, one in EACH.items():
        if (values := getattr(settings, several, None)) is not None:
            own |= {one: values[number - 1], several: None}
    made = replace(settings, **own)
    return replace(made, resume=settings.resume and last_whole(work_folder(made)) is not None)


def check_stages(settings: StagedSettings, names: list[str]) -> None:
    """Refuse stages that cannot be run, before anything is read or written.

    Raises:
        InputError: on a stage that there is not, a list without one value a stage, and as
            :func:`distilface.training.run_folder.check_settings` on each stage that is still to be trained.
    """
    for number in settings.stages:
        if not 1 <= number <= len(names):
            raise InputError(f"there is no stage {number}; name stages from 1 to {len(names)}")
    for several in EACH:
        values = getattr(settings, several, None)
        if values is not None and len(values) != len(names):
            raise InputError(f"--{several} has {len(values)} values; give {len(names)}, one a stage")
    check_settings(replace(settings, resume=False, overwrite=True))
    chosen = [stage_settings(settings, number, names) for number in sorted(settings.stages)]
    if settings.resume and not any(stage.resume or _run_file(stage).is_file() for stage in chosen):
        check_settings(replace(chosen[0], resume=True))
    for stage in chosen:
        if stage.overwrite or not _run_file(stage).is_file():
            check_settings(stage)


def _run_file(settings: TrainSettings) -> Path:
    return Path(settings.output_dir) / "run.json"


def finished(settings: StagedSettings, origin: dict[str, Any], going_on: bool = False) -> dict[str, Any] | None:
    """Return the ``run.json`` of a stage that is there with the same settings, made of the same; else ``None``.

    Args:
        settings: of the stage.
        origin: what the stage is made of, as it keeps it in its ``run.json``.
        going_on: whether the whole training is resumed; else ``overwrite`` makes each stage anew.

    Raises:
        InputError: if the folder holds something else and may not be replaced.
    """
    file = _run_file(settings)
    if not file.is_file() or (settings.overwrite and not going_on):
        return None
    run = read_run(file)
    changed = other_settings(run, settings)
    changed += [] if run.origin == origin else ["what it is made of"]
    if not changed:
        print(f"{settings.output_dir} is there; not trained again", file=sys.stderr)
        return run.as_dict()
    if not settings.overwrite:
        raise InputError(
            f"{settings.output_dir} was trained with other settings ({changed[0]}); "
            "add --overwrite to train it again, or name another --output-dir"
        )
    return None
