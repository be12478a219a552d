"""The static student whose token vectors a student of one layer starts from: trained first, on the same texts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import set_seed

from distilface.compression.static import check_teacher
from distilface.data.fingerprints import fingerprint
from distilface.methods.embedding.settings import DistillSettings, joins
from distilface.methods.task import Task
from distilface.model.static import token_table
from distilface.run import read_run
from distilface.settings import InputError, parse
from distilface.training.fitting import STOPPED
from distilface.training.run_folder import is_taken, is_unfinished
from distilface.training.settings import NEW, other_settings

logger = logging.getLogger(__name__)

#: How it is trained.
RECIPE = "minilm-static"
#: What it has of the settings of the student.
SHARED = ["teacher", "data", "dev", "held_out", "vocabulary", "vocabulary_data", "cache_dir", "teacher_dtype"]
SHARED += ["normalize", "seed", "bf16", "overwrite"]


def table_folder(settings: DistillSettings) -> Path:
    """Return where the static student lies: beside the output folder."""
    output = Path(settings.output_dir)
    return output.with_name(f"{output.name}.table")


def begins_again(settings: DistillSettings) -> bool:
    """Return whether a training that is to be resumed was stopped before its student: of itself there is nothing."""
    may = settings.table_from == NEW or (settings.table_from is None and settings.megabytes is not None)
    output = Path(settings.output_dir)
    if not (settings.resume and may and output.name) or is_unfinished(settings):
        return False
    folder = table_folder(settings)
    if is_unfinished(replace(settings, output_dir=str(folder))):
        return True
    made, before = folder / "run.json", output / "run.json"  # the second is of a model that is to be replaced
    return made.is_file() and not (before.is_file() and before.stat().st_mtime >= made.stat().st_mtime)


def can_start(task: Task) -> bool:
    """Return whether a student that a budget chooses can start over a static student's table, and nothing forbids it.

    It is made of its only teacher, which has a transformer inside and embeds in the width of its token table.
    """
    settings = task.settings
    if settings.table_from not in (None, NEW) or settings.projection or joins(settings):
        return False
    if task.source != task.teacher_names[0]:
        return False
    try:
        check_table(task.teacher, task.teacher, task.source)
    except InputError:
        return False
    return True


def wants_table(task: Task) -> bool:
    """Return whether a static student is trained first: ``--table_from new``, or a budget for one layer of several."""
    settings = task.settings
    if settings.megabytes is None:
        return bool(settings.table_from == NEW)
    if not can_start(task):
        return False
    transformer: Any = task.teacher[0]
    return len(settings.layers) == 1 < int(transformer.model.config.num_hidden_layers)


def check_table(student: SentenceTransformer, teacher: SentenceTransformer, name: str) -> None:
    """Refuse a student that cannot start from a static student of its teacher, before that is trained.

    Args:
        student: any with the token table of the one that is to be trained.
        teacher: its only one.
        name: of the teacher, for messages.

    Raises:
        InputError: if no static student can be made of the teacher, or its width is not that of the table.
    """
    check_teacher(teacher, name, f"--table_from {NEW}")
    width, own = teacher.get_embedding_dimension(), token_table(student).weight.shape[1]
    if width != own:
        raise InputError(
            f"--table_from {NEW} trains a static student of the teacher's {width} dimensions, and the student's table "
            f"has {own}; set --table_from none"
        )


def trained_table(task: Task, train: Callable[[DistillSettings, Dataset], Any]) -> str:
    """Train the static student of a task, or find it finished; return its folder.

    One that was stopped goes on. The student of the task is the same in all three cases.

    Args:
        task: with the texts that its student is trained on, so that the teacher embeds them once.
        train: a distillation.

    Raises:
        InputError: if the folder holds another, or it cannot be trained.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved and the words to go on.
    """
    settings, folder = task.settings, table_folder(task.settings)
    own = replace(
        parse(DistillSettings, ["--config", RECIPE], ""),
        **{name: getattr(settings, name) for name in SHARED},
        output_dir=str(folder),
        relation_weight=0.0,  # what they give a static student was measured, what such a start gives was not
    )
    if settings.vocabulary_data:
        own = replace(own, text_column=settings.text_column)
    again, begun = settings.overwrite and not settings.resume, is_unfinished(own)
    there = (folder / "run.json").is_file() and not again and not (settings.overwrite and begun)
    if there and is_taken(folder, _changes(folder, own, task.texts), settings.overwrite):
        return str(folder)
    logger.info(f"first a static student, for its token vectors: {folder}")
    try:
        run = train(replace(own, resume=begun and not again), task.texts)
        if run.get(STOPPED):
            raise KeyboardInterrupt("finished")
    except InputError as error:
        raise InputError(f"the static student {folder}: {error}") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"the static student {folder}: {stop}" if stop.args else "") from None
    set_seed(settings.seed)
    return str(folder)


def _changes(folder: Path, settings: DistillSettings, texts: Dataset) -> list[str]:
    """Name what a finished static student was trained with that is not so now."""
    run = read_run(folder / "run.json")
    known = {each.get("sha256") for each in run.data}
    return [*other_settings(run, settings), *([] if fingerprint(texts) in known else ["data"])]
