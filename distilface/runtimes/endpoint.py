"""A model behind an endpoint that speaks as OpenAI's: it gives vectors, and nothing of itself."""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule, Normalize

from distilface.model.identity import fingerprint
from distilface.runtimes.base import Encoder
from distilface.runtimes.endpoint_client import BATCH, EndpointClient
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: What an endpoint is asked first: whether it is there, how wide its embeddings are, and of unit length.
PROBE = ("A dog runs in the park.", "The price of oil rose in March.")


class EndpointModule(InputModule):
    """The module of a model behind an endpoint: its pass is a request.

    Args:
        client: what asks the endpoint; it must know its ``width``.
    """

    config_keys = ["url", "model"]  # noqa: RUF012
    max_seq_length = None
    tokenizer = None  # type: ignore[assignment]

    def __init__(self, client: EndpointClient) -> None:
        super().__init__()
        self.client = client
        self.url, self.model = client.url, client.model

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Return the texts, each with the prompt before it: they are not tokenised here."""
        return {"texts": [f"{prompt or ''}{text}" for text in inputs]}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Ask for the embeddings of the texts."""
        vectors = torch.from_numpy(self.client.embed(features["texts"]))
        return {**features, "sentence_embedding": vectors}

    def get_embedding_dimension(self) -> int:
        """Return the width of an embedding."""
        return self.client.width or 0

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Refuse: what is behind an endpoint cannot be saved."""
        raise InputError(f"{self.url} is an endpoint, which gives embeddings and no weights; it cannot be saved")


class EndpointEncoder(Encoder):
    """A model behind an endpoint.

    It is asked for :data:`PROBE` at once, so that an endpoint that is not there, or does not know the key or the model,
    is seen before any long work.

    Args:
        address: ``URL#MODEL``.

    Raises:
        InputError: if the address cannot be one, or the endpoint gives no embeddings.
    """

    name = "endpoint"
    precision = "unknown"

    def __init__(self, address: str) -> None:
        client = EndpointClient(address)
        lengths = np.linalg.norm(client.embed(PROBE), axis=1)
        end = [Normalize()] if np.allclose(lengths, 1, atol=1e-3) else []
        self.model = SentenceTransformer(modules=[EndpointModule(client), *end], device="cpu").eval()

    @property
    def fingerprint(self) -> str:
        """Sha256, in hex, of URL and model: of what the endpoint computes nothing else is known."""
        return fingerprint(self.model)

    @property
    def megabytes(self) -> float:
        """0: no weights are here."""
        return 0.0

    def encode(self, texts: Sequence[str], batch_size: int = 32, prompt: str = "") -> np.ndarray:
        """Embed texts, each with the prompt before it: float32 of shape (n, dimension), in the order given.

        A request holds as many as the endpoint takes, whatever ``batch_size`` is.
        """
        announce_cost(self.model, texts)
        embeddings = self.model.encode(list(texts), prompt=prompt, batch_size=BATCH, show_progress_bar=False)
        return np.asarray(embeddings, np.float32).reshape(len(texts), self.dimension)


def client_of(model: Any) -> EndpointClient | None:
    """Return what asks the endpoint of a model, or ``None`` for a model that is here."""
    module = next(iter(model), None) if isinstance(model, SentenceTransformer) else None
    return module.client if isinstance(module, EndpointModule) else None


def announce_cost(model: Any, texts: Iterable[str]) -> None:
    """Log, before texts are sent to an endpoint, how much it is: it may cost money. A model that is here logs nothing.

    Args:
        model: that is to embed them.
        texts: read once, if it is an endpoint's.
    """
    if client := client_of(model):
        lengths = [len(text) for text in texts]
        logger.info(client.cost(len(lengths), sum(lengths)))
