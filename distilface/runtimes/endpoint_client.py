"""Requests to an endpoint that speaks as OpenAI's: texts to ``/embeddings``, vectors back, checked."""

import logging
import math
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests

from distilface.hub_ids import is_endpoint
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Texts in one request at most; a server that takes fewer at a time is sent fewer.
BATCH = 128
#: Seconds before each new try of a request that failed for a reason that passes; a server may ask for longer.
WAITS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
#: The longest wait that a server is granted, in seconds.
LONGEST_WAIT = 300.0
#: Seconds to connect, and to wait for the next byte of an answer.
TIMEOUT = (10, 300)
#: Answers that pass: a time-out, too many requests, and a server that is down for a moment.
PASSING = (408, 429, 500, 502, 503, 504)
#: Answers of servers with a limit on the texts of one request.
TOO_LARGE = (413, 422)
#: Characters of English text in one token, about.
CHARACTERS_PER_TOKEN = 4


def parse_address(name: str) -> tuple[str, str]:
    """Return the URL and the model of an endpoint that is written as ``URL#MODEL``.

    Raises:
        InputError: without a model, or if the URL holds a password or a query: it would stand in run.json and on the
            card.
    """
    parts = urlsplit(name)
    if parts.username is not None or parts.password is not None or parts.query:
        safe = f"{parts.scheme}://{parts.hostname}"
        raise InputError(f"the URL of {safe} holds a user or a query, which would be published; set OPENAI_API_KEY")
    url, _, model = name.partition("#")
    if not (is_endpoint(url) and parts.hostname and model):
        raise InputError(f"{name} does not say which model of the endpoint; write it as {url}#MODEL")
    return url.rstrip("/"), model


class EndpointClient:
    """What asks one model of an endpoint for embeddings.

    The key is that of the environment's ``OPENAI_API_KEY``; without one, none is sent.

    Args:
        name: ``URL#MODEL``, the URL as ``http://127.0.0.1:8000/v1``.

    Attributes:
        url: of the endpoint, without ``/embeddings``.
        model: the name that the endpoint knows it by.
        width: of an embedding; ``None`` before the first request.
        batch: texts in one request at most.
    """

    def __init__(self, name: str) -> None:
        self.url, self.model = parse_address(name)
        self.width: int | None = None
        self.batch = BATCH
        self._key = os.environ.get("OPENAI_API_KEY", "")
        self._session = requests.Session()
        if self._key:  # a header alone would give way to a password of ~/.netrc
            self._session.auth = self._authorised

    def _authorised(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts: float32 of shape (n, width), in the order given.

        Raises:
            InputError: if the endpoint refuses, cannot be reached after all tries, or answers with anything else than
                one finite embedding of the same width for each text.
        """
        rows: list[np.ndarray] = []
        start = 0
        while start < len(texts):
            some = list(texts[start : start + self.batch])
            response = self._post({"model": self.model, "input": some, "encoding_format": "float"})
            if response.status_code in TOO_LARGE and len(some) > 1:
                self.batch = len(some) // 2
                logger.info(f"{self.url} does not take {len(some)} texts at a time; {self.batch} from now on")
                continue
            rows.append(self._vectors(response, len(some)))
            start += len(some)
        return np.concatenate(rows) if rows else np.empty((0, self.width or 0), np.float32)

    def _post(self, body: dict[str, Any]) -> requests.Response:
        """Send one request, again after a while where the failure may pass; redirections are not followed."""
        for wait in (*WAITS, None):
            try:
                # A redirection would turn the request into a GET, and take the key elsewhere.
                response = self._session.post(
                    f"{self.url}/embeddings", json=body, timeout=TIMEOUT, allow_redirects=False
                )
                if response.status_code not in PASSING:
                    return response
                problem, asked = f"status {response.status_code}{self._words(response)}", _seconds_asked(response)
            except requests.RequestException as error:
                problem, asked = type(error).__name__, 0.0
            if wait is None:
                break
            seconds = max(wait, min(asked, LONGEST_WAIT))
            logger.warning(f"{self.url}: {problem}; trying again in {seconds:g} s")
            time.sleep(seconds)
        raise InputError(
            f"{self.url} gave no embeddings in {len(WAITS) + 1} tries ({problem}); run the same again when it is back, "
            "and it goes on"
        )

    def _vectors(self, response: requests.Response, count: int) -> np.ndarray:
        """Return the embeddings of an answer, in the order of its texts."""
        status = response.status_code
        if status != 200:
            remedy = "; set OPENAI_API_KEY to a key that it knows" if status in (401, 403) else ""
            raise InputError(f"{self.url} refuses {self.model} (status {status}{self._words(response)}){remedy}")
        try:
            data = response.json()["data"]
            indices = [item["index"] for item in data]
            vectors = np.array([item["embedding"] for item in data], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self.url} answers with something else than OpenAI's embeddings ({type(error).__name__}); "
                "give the address that /embeddings is below"
            ) from None
        if sorted(indices) != list(range(count)):
            raise InputError(f"{self.url} answers with {len(indices)} embeddings for {count} texts; use another server")
        if vectors.ndim != 2 or vectors.shape[1] != (self.width or vectors.shape[1]) or not vectors.shape[1]:
            raise InputError(
                f"{self.url} answers with embeddings of shape {vectors.shape}, before of {self.width} numbers each; "
                "has it another model now?"
            )
        if not np.isfinite(vectors).all():
            raise InputError(f"{self.url}#{self.model} gives NaN or infinity; use another model")
        self.width = vectors.shape[1]
        return vectors[np.argsort(indices)]

    def _words(self, response: requests.Response) -> str:
        """Return what an answer says of its refusal, on one line, without the key."""
        try:
            error = response.json()
            error = error.get("error", error)
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError):
            text = response.text
        text = " ".join(text.split())[:200]
        return f": {text.replace(self._key, '...') if self._key else text}" if text else ""

    def cost(self, texts: int, characters: int) -> str:
        """Say what sending so many texts costs."""
        tokens, count = characters / CHARACTERS_PER_TOKEN, math.ceil(texts / self.batch)
        return f"{self.url}#{self.model}: {texts:,} texts, about {tokens:,.0f} tokens, in about {count:,} requests"


def _seconds_asked(response: requests.Response) -> float:
    """Return the seconds that a server asks to be left alone, 0 where it names none."""
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:  # a date, which the usual servers do not send
        return 0.0
