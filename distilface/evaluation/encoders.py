"""The encoders that are compared: the teacher, the model, files exported from it."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from distilface.evaluation.scores import as_encoder
from distilface.hub_ids import is_at_hand
from distilface.light.files import AUTO
from distilface.model.folder import Folder, open_folder
from distilface.runtimes.base import Encoder
from distilface.runtimes.files import FILES
from distilface.runtimes.opening import choose, open_file
from distilface.settings import NONE, InputError, check_known

logger = logging.getLogger(__name__)

TEACHER, MODEL = "teacher", "model"


def open_encoders(
    model: str | Path | SentenceTransformer,
    variants: Sequence[str] = (),
    teacher: str | None = None,
    beside: Sequence[str] = (),
) -> dict[str, Encoder]:
    """Open what is compared, by the names of the columns: ``teacher`` (if there is one), others, ``model``, variants.

    Args:
        model: a folder, a Hub id or a model in memory, in fp32.
        variants: names of :data:`distilface.runtimes.files.FILES`, of a folder's exported files.
        teacher: a folder or a Hub id; ``none`` for none; ``None`` takes what the folder's run.json names, if it can be
            loaded without the Hub.
        beside: folders or Hub ids of other models, whose columns have their last names.

    Raises:
        InputError: on a model or a teacher that cannot be loaded, a variant that is unknown or not exported,
            or a model beside it whose column has another's name.
    """
    check_known(variants, [*FILES, AUTO], "variant")
    is_folder = not isinstance(model, SentenceTransformer) and Path(model).is_dir()
    if variants and not is_folder:
        what = "a model in memory" if isinstance(model, SentenceTransformer) else model
        raise InputError(f"variants are the exported files of a model folder; {what} is not a folder")
    if teacher is None and is_folder:
        teacher = _own_teacher(Folder(Path(str(model))))
    encoders: dict[str, Encoder] = {} if teacher in (None, NONE) else {TEACHER: as_encoder(str(teacher))}
    for other in beside:
        if (name := Path(other).name) in {TEACHER, MODEL, *variants, *encoders}:
            raise InputError(f"{other} would have the column {name!r}, which is another's; rename the folder")
        encoders[name] = as_encoder(other)
    encoders[MODEL] = as_encoder(model)
    if variants:
        folder = open_folder(str(model))
        encoders |= {name: open_file(choose(folder, name), encoders[MODEL].model) for name in variants}
    return encoders


def _own_teacher(folder: Folder) -> str | None:
    """Return the only teacher that run.json names, or that of several whose space it learned, if it is at hand."""
    run = folder.run
    if run is None or (run.index_teacher is None and len(run.teachers) != 1):
        return None
    name = run.teachers[0].name
    if not is_at_hand(name):
        logger.warning(f"the teacher {name} is not here, so it is not compared; fetch it, or give --teacher")
        return None
    return name


def shares_space(model: str | Path | SentenceTransformer, teacher: str | None = None) -> bool:
    """Return whether a model can have a teacher's space: its run.json names no other that it learned.

    Args:
        model: a folder, a Hub id or a model in memory.
        teacher: as of :func:`open_encoders`. Of several, it must be the one whose space was learned, by the same name.
    """
    if isinstance(model, SentenceTransformer) or not Path(model).is_dir():
        return True
    run = Folder(Path(model)).run
    if run is None or run.space is None:
        return True
    learned = run.index_teacher
    return learned is not None and teacher in (None, learned.name)


def describe(encoders: Mapping[str, Encoder]) -> dict[str, Any]:
    """Return what tells each encoder from any other, for a report."""
    return {
        name: {
            "runtime": encoder.name,
            "precision": encoder.precision,
            "megabytes": encoder.megabytes,
            "dimension": encoder.dimension,
            "fingerprint": encoder.fingerprint,
        }
        for name, encoder in encoders.items()
    }
