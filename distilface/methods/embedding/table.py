"""The static student whose token vectors a student of one layer starts from: trained first, on the same texts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from transformers import PreTrainedModel, set_seed

from distilface.compression.static import check_teacher
from distilface.data.fingerprints import fingerprint
from distilface.methods.embedding.settings import NEW, DistillSettings, joins
from distilface.methods.task import Task
from distilface.run import read_run
from distilface.settings import InputError, parse
from distilface.training.run_folder import is_unfinished
from distilface.training.settings import other_settings

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


def begins_again(settings: DistillSettings) -> DistillSettings:
    """Return the settings of a training that was stopped at its static student: of itself nothing can be resumed."""
    if not settings.resume or not Path(settings.output_dir).name or is_unfinished(settings):
        return settings
    folder = table_folder(settings)
    begun = is_unfinished(replace(settings, output_dir=str(folder))) or (folder / "run.json").is_file()
    return replace(settings, resume=not begun)


def wants_table(task: Task) -> bool:
    """Return whether a static student is to be trained first.

    It is asked for by ``--table_from new``. A budget has one trained for a single layer (docs/sizes.md), where one can
    be made: of one teacher with a transformer inside.
    """
    settings = task.settings
    if settings.table_from is not None:
        return bool(settings.table_from == NEW)
    alone = settings.megabytes is not None and len(settings.layers or []) == 1 and not joins(settings)
    return alone and settings.backbone is None and isinstance(getattr(task.teacher[0], "model", None), PreTrainedModel)


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
    encoder: Any = student[0]
    width, own = teacher.get_embedding_dimension(), encoder.model.get_input_embeddings().weight.shape[1]
    if width != own:
        raise InputError(
            f"--table_from {NEW} trains a static student of the teacher's {width} dimensions, and the student's table "
            f"has {own}; leave it out"
        )


def trained_table(task: Task, train: Callable[[DistillSettings, Dataset], Any]) -> str:
    """Train the static student of a task, or find it finished; return its folder.

    One that was stopped goes on. The student of the task is the same in all three cases.

    Args:
        task: with the texts that its student is trained on, so that the teacher embeds them once.
        train: a distillation.

    Raises:
        InputError: if the folder holds another.
    """
    settings, folder = task.settings, table_folder(task.settings)
    own = replace(
        parse(DistillSettings, ["--config", RECIPE], ""),
        **{name: getattr(settings, name) for name in SHARED},
        output_dir=str(folder),
    )
    if settings.vocabulary_data:
        own = replace(own, text_column=settings.text_column)
    if not settings.overwrite and _is_there(folder, own, task.texts):
        logger.info(f"{folder} is there; not trained again")
        return str(folder)
    logger.info(f"first a static student, for its token vectors: {folder}")
    train(replace(own, resume=not own.overwrite and is_unfinished(own)), task.texts)
    set_seed(settings.seed)
    return str(folder)


def _is_there(folder: Path, settings: DistillSettings, texts: Dataset) -> bool:
    """Return whether a folder holds the static student of these settings and texts."""
    if not (folder / "run.json").is_file():
        return False
    run = read_run(folder / "run.json")
    known = {each.get("sha256") for each in run.data}
    return not other_settings(run, settings) and fingerprint(texts) in known
