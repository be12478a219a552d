"""A frozen teacher, with its own tokenizer and prompts; what tells one model from another."""

from sentence_transformers import SentenceTransformer

from distilface.hub_ids import resolve
from distilface.model.loading import LOAD_ERRORS, load_in_fp32, not_a_model


def load_teacher(model: str, device: str | None = None) -> SentenceTransformer:
    """Load a teacher: frozen (no parameter asks for a gradient), in eval mode and in fp32.

    Its own tokenizer, maximum length and default prompt come with it.

    Raises:
        InputError: if it cannot be downloaded or is not a model.
    """
    folder = resolve(model)
    try:
        return load_in_fp32(folder, device).requires_grad_(False)
    except LOAD_ERRORS as error:
        raise not_a_model(model, error) from None
