"""Where the unfinished state of a run lies, and whether it is the run to go on with."""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distilface import processes
from distilface.locks import discard, locked
from distilface.settings import InputError
from distilface.settings.conflicts import chosen_by
from distilface.storage import check_output, replace_text, write_whole
from distilface.training.checkpoints import last_whole
from distilface.training.settings import TrainSettings, comparable, effective
from distilface.training.values import check_values

logger = logging.getLogger(__name__)

#: In the work folder of a run that is about to end: the ``run.json`` of its model folder.
FINISHED = "finished.json"


def work_folder(settings: TrainSettings) -> Path:
    """Return where an unfinished run keeps its checkpoints: beside the output folder."""
    output = Path(settings.output_dir)
    return output.with_name(output.name + ".unfinished")


def is_unfinished(settings: TrainSettings) -> bool:
    """Return whether there is an unfinished run of the output folder, with a checkpoint to go on from."""
    work = work_folder(settings)
    return (work / "run.json").is_file() and last_whole(work) is not None


@contextmanager
def claimed(settings: TrainSettings) -> Iterator[None]:
    """Keep other trainings off the output folder, and clear away what a killed one has left there for no other.

    Of several processes that train together, the first one claims it for all.

    Raises:
        InputError: if another process trains into it, or it has no name of its own.
    """
    processes.join()
    _check_name(settings)
    if not processes.is_first():
        processes.wait()
        yield
        return
    with locked(settings.output_dir):
        drop_finished(settings)
        processes.wait()
        yield


def _check_name(settings: TrainSettings) -> None:
    if Path(settings.output_dir).name in ("", ".."):
        raise InputError(f"--output-dir {settings.output_dir} has no name of its own; name a folder, as models/mine")


def is_taken(output: Path, changed: Sequence[str], overwrite: bool) -> bool:
    """Return whether a finished training is taken as it is, which is logged.

    Args:
        output: its folder.
        changed: what it was trained with that is not so now.
        overwrite: train it again where that is anything.

    Raises:
        InputError: if something changed, and it is not to be overwritten.
    """
    if changed and not overwrite:
        raise InputError(
            f"{output} was trained with other settings ({changed[0]}); "
            "add --overwrite to train it again, or name another --output-dir"
        )
    if not changed:
        logger.info(f"{output} is there; not trained again")
    return not changed


def note_finished(work: Path, run_file: Path) -> None:
    """Note in the work folder, before the model folder is moved to its place, which one it is."""
    replace_text(work / FINISHED, run_file.read_text(encoding="utf-8"))


def drop_finished(settings: TrainSettings) -> None:
    """Drop the work folder of a run that was killed after its model folder got its place."""
    output, work = Path(settings.output_dir), work_folder(settings)
    note, run_file = work / FINISHED, output / "run.json"
    if note.is_file() and run_file.is_file() and note.read_bytes() == run_file.read_bytes():
        discard(work, output)


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot be run, before anything is read or written.

    Raises:
        InputError: on an output folder that is not empty or cannot be written, ``--resume`` with nothing to resume
            or with changed settings, an unfinished run in the way, or a value out of its range.
    """
    check_values(settings)
    _check_name(settings)
    output = Path(settings.output_dir)
    if not settings.overwrite and output.is_dir() and any(output.iterdir()):
        raise InputError(f"{output} is not empty; name another --output-dir, or add --overwrite")
    check_output(output, settings.overwrite)
    _check_untrained(settings)
    work = work_folder(settings)
    unfinished = is_unfinished(settings)
    if settings.resume and not unfinished:
        raise InputError(f"nothing to resume: {work} holds no whole checkpoint; start without --resume")
    if settings.resume:
        _check_unchanged(work, settings, {"settings": effective(settings)}, early=True)
    elif unfinished and not settings.overwrite:
        raise InputError(f"{work} holds an unfinished run; go on with --resume, or add --overwrite to drop it")


def _check_untrained(settings: TrainSettings) -> None:
    """Refuse a folder of the untrained student that is the output folder or is taken; after a stop it is there."""
    place = getattr(settings, "untrained_dir", None)
    if place is None:
        return
    if Path(place).resolve() == Path(settings.output_dir).resolve():
        raise InputError(f"--untrained_dir {place} is the output folder; name another")
    if not settings.resume:
        check_output(place, settings.overwrite)


def _check_unchanged(work: Path, settings: TrainSettings, now: dict[str, Any], early: bool = False) -> dict[str, Any]:
    """Return what the unfinished run in ``work`` was begun with, if settings (and data) are the same.

    Args:
        work: of the run.
        settings: how to train.
        now: what is compared, as it was kept.
        early: before a budget in megabytes or a search has chosen settings, which are then not compared.

    Raises:
        InputError: naming the key, its old value and its new one.
    """
    begun: dict[str, Any] = json.loads((work / "run.json").read_text())
    old = begun["settings"]
    chosen = chosen_by(settings) if early else set()
    keys = [key for key in comparable(old, settings) if key not in chosen]
    changes = [(key, old.get(key), now["settings"][key]) for key in keys]
    changes += [(key, begun.get(key), now[key]) for key in ("data", "origin") if key in now]
    for key, was, new in changes:
        if was != new:
            raise InputError(
                f"--resume with changed settings: {key} was {was!r} and is {new!r}; "
                "set it back, or start over with --overwrite"
            )
    return begun


def claim(settings: TrainSettings, data: list[dict[str, Any]], origin: dict[str, Any] | None = None) -> dict[str, Any]:
    """Open the work folder: a new one, or the one to resume if settings, data and origin are the same.

    Args:
        settings: how to train. With ``overwrite`` and ``resume`` both, a checkpoint of another origin is dropped.
        data: what is trained on.
        origin: what is trained, where that is made by another training: its checkpoints fit no other.

    Returns:
        What the run was begun with: ``settings``, ``data``, ``origin``, and, once :func:`keep` was called, more.

    Raises:
        InputError: on changed settings, data or origin at a resume.
    """
    work = work_folder(settings)
    now = json.loads(json.dumps({"settings": effective(settings), "data": data, "origin": origin}))
    if settings.resume and is_unfinished(settings) and not (settings.overwrite and _origin(work) != now["origin"]):
        return _check_unchanged(work, settings, now)
    discard(work, Path(settings.output_dir))
    work.mkdir(parents=True)
    return dict(now)


def _origin(work: Path) -> Any:
    return json.loads((work / "run.json").read_text()).get("origin")


def keep(settings: TrainSettings, begun: dict[str, Any]) -> None:
    """Keep what a run was begun with, for its resume."""
    write_whole(work_folder(settings) / "run.json", begun)
