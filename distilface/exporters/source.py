"""The folder that an export writes beside: the model's own, or one that a model of the Hub is saved in first."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distilface.compression.positions import cut_positions
from distilface.json_files import read_json
from distilface.model.folder import Folder, save_folder
from distilface.model.loading import load_model
from distilface.runtimes.base import file_refusal
from distilface.runtimes.extras import ONNX
from distilface.settings import InputError
from distilface.storage import check_output

logger = logging.getLogger(__name__)


@contextmanager
def source_of(model: str | Path | Folder, output_dir: str | Path | None) -> Iterator[str | Path | Folder]:
    """Give the folder whose files are to be written; one that is saved first goes again if the block refuses it.

    Args:
        model: a model folder; with ``output_dir`` also a Hub id, or a folder that stays as it is.
        output_dir: a folder to save the model in first, in fp32, with no more absolute positions than it reads, and
            with its ``run.json``, if it has one; ``None`` takes its own folder.

    Raises:
        InputError: if it is not a model, cannot be exported, has a part that cannot be written portably, or
            ``output_dir`` is taken.
    """
    if output_dir is None:
        yield model
        return
    check_output(output_dir)
    ONNX.check()
    place = model.path if isinstance(model, Folder) else Path(model)
    loaded = load_model(place if place.is_dir() else str(model))
    if reason := file_refusal(loaded):
        raise InputError(f"{model} cannot be exported: {reason}")
    cut_positions(loaded)
    own = place / "run.json"
    folder = save_folder(loaded, output_dir, read_json(own) if own.is_file() else None)
    logger.info(f"{model} is saved in {folder.path}")
    try:
        yield folder
    except InputError:
        shutil.rmtree(folder.path)
        raise
