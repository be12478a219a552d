"""The folder that an export writes beside: the model's own, or one that a model of the Hub is saved in first."""

import logging
from pathlib import Path

from distilface.compression.positions import cut_positions
from distilface.model.folder import Folder, save_folder
from distilface.model.loading import load_model

logger = logging.getLogger(__name__)


def source_of(model: str | Path | Folder, output_dir: str | Path | None) -> str | Path | Folder:
    """Return the folder whose files are to be written.

    Args:
        model: a model folder; with ``output_dir`` also a Hub id, or a folder that stays as it is.
        output_dir: a folder to save the model in first, in fp32 and with no more positions than it reads; ``None``
            takes its own folder.

    Raises:
        InputError: if it is not a model, has a part that cannot be written portably, or ``output_dir`` is taken.
    """
    if output_dir is None:
        return model
    loaded = load_model(model.path if isinstance(model, Folder) else model)
    cut_positions(loaded)
    folder = save_folder(loaded, output_dir)
    logger.info(f"{model} is saved in {folder.path}")
    return folder
