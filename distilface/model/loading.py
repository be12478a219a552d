"""Loading a model, and one sentence where it cannot be loaded."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from distilface.hub_ids import resolve
from distilface.model.families import make_usable
from distilface.settings import InputError

#: What loading a folder that is not a whole model raises.
LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)


def not_a_model(source: str, error: Exception) -> InputError:
    """One sentence for whatever a library raises when a folder is not a model, or a damaged one; our own stays."""
    if isinstance(error, InputError):
        return error
    problem = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{source} cannot be loaded as a model: {problem}")


def load_in_fp32(folder: str | Path, device: str | None = None, **options: Any) -> SentenceTransformer:
    """Load a model in fp32, whatever precision its weights are stored in, ready for use and in evaluation mode.

    transformers would compute in the precision of the file.

    Args:
        folder: of the model.
        device: ``None`` takes sentence-transformers' choice.
        options: of ``SentenceTransformer``.
    """
    model = SentenceTransformer(str(folder), device=device, model_kwargs={"dtype": torch.float32}, **options)
    return make_usable(model.float()).eval()  # float: a Dense is loaded as it is stored, whatever the encoder is


def load_model(model: str | Path) -> SentenceTransformer:
    """Load a folder, or a model by its Hub id, in fp32 whatever precision its weights are stored in.

    Raises:
        InputError: if it is not a model, its weights are broken or not finite, or the Hub is not in reach.
    """
    folder = Path(resolve(str(model)))
    if not any((folder / name).is_file() for name in ("modules.json", "config.json")):
        raise InputError(f"{model} is not a model: the folder has neither modules.json nor config.json")
    try:
        loaded = load_in_fp32(folder)
    except LOAD_ERRORS as error:
        raise not_a_model(str(model), error) from None
    if not all(weight.isfinite().all() for weight in loaded.parameters()):
        raise InputError(f"{model} holds weights that are NaN or infinite; its training has diverged")
    return loaded
