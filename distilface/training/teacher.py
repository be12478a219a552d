"""A frozen teacher, with its own tokenizer and prompts; what tells one model from another."""

from sentence_transformers import SentenceTransformer

from distilface.hub_ids import is_endpoint, resolve
from distilface.model.loading import LOAD_ERRORS, load_in_fp32, not_a_model
from distilface.runtimes.endpoint import EndpointEncoder


def load_teacher(model: str, device: str | None = None) -> SentenceTransformer:
    """Load a teacher: frozen (no parameter asks for a gradient), in eval mode and in fp32.

    Its own tokenizer, maximum length and default prompt come with it. Of a teacher behind an endpoint
    (:class:`distilface.runtimes.endpoint.EndpointEncoder`) there is none of these.

    Args:
        model: a folder, a Hub id, or ``URL#MODEL`` of an endpoint.
        device: ``None`` takes sentence-transformers' choice.

    Raises:
        InputError: if it cannot be downloaded, is not a model, or the endpoint gives no embeddings.
    """
    if is_endpoint(model):
        return EndpointEncoder(model).model
    folder = resolve(model)
    try:
        return load_in_fp32(folder, device).requires_grad_(False)
    except LOAD_ERRORS as error:
        raise not_a_model(model, error) from None
