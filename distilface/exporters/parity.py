"""The parity gate: how near an encoder's vectors come to those of the folder in fp32, and whether it passes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from distilface.model.static import token_table
from distilface.runtimes.base import Encoder, FileEncoder
from distilface.runtimes.torch import TorchEncoder

#: Least cosine to the folder's own vectors, of a file that computes as the folder does.
SAME = 1 - 1e-5
#: Least cosine to the folder's own vectors, of a smaller file: 4 bits leave 0.90, and less than this is no rounding.
NEAR = 0.8
#: Most points of Spearman x 100 that a smaller file may lose.
LOSS = 1.0
#: Sentences that are also encoded one by one: the scale of a dynamic int8 activation is its batch's.
ALONE = 100
#: Texts at the edges of what an encoder meets: one token, marks, other scripts, and longer than any encoder here reads.
EDGES = (
    *("a", "Ω", ".", "  two  spaces, and\ta tab ", "UPPER Case and lower", "👍🏽 !!! ... $1,000.00 (50%)"),
    *("Привет, мир! Как дела?", "مرحبا بالعالم", "我爱北京天安门", "नमस्ते दुनिया", "Ünïcödé naïve café"),
    "the quick brown fox jumps over the lazy dog " * 1000,
)


@dataclass(frozen=True)
class Reference:
    """What a file is compared with: the vectors of its folder, in torch and in fp32.

    Attributes:
        pairs: ``sentence1``, ``sentence2``, ``score``.
        embeddings: of all first sentences, then of all second ones, without a prompt.
        edges: of :data:`EDGES`, by the prompt before each: none, and every one of the model.
    """

    pairs: Dataset
    embeddings: np.ndarray
    edges: dict[str, np.ndarray]


def texts_of(pairs: Dataset) -> list[str]:
    """Return all first sentences of scored pairs, then all second ones."""
    return [*pairs["sentence1"], *pairs["sentence2"]]


def reference_of(model: SentenceTransformer, pairs: Dataset) -> Reference:
    """Embed the pairs and the edges by the model itself; a model without prompts gets one that is not its own."""
    encoder = TorchEncoder(model)
    own = [prompt for prompt in model.prompts.values() if prompt]
    prompts = dict.fromkeys(["", *(own or ["query: "])])
    edges = {prompt: encoder.encode(EDGES, prompt=prompt) for prompt in prompts}
    return Reference(pairs, encoder.encode(texts_of(pairs)), edges)


@dataclass(frozen=True)
class Parity:
    """How near an encoder comes to the folder in fp32, on given sentences.

    Attributes:
        megabytes: of its weights, 10^6 bytes.
        min_cosine: the least cosine of a vector to the folder's.
        mean_cosine: their mean.
        min_alone: the least cosine of a sentence encoded alone to itself in a batch.
        min_edge: the least cosine of a text of :data:`EDGES` to the folder's, with every prompt, alone and in a batch.
        score: Spearman x 100 on the scored pairs.
        score_change: from the folder's.
        sentences_per_second: of one pass in batches of 32, by length, after a short one that is not counted.
        refused: the reason, if it does not pass.
        table_megabytes: of the table of token embeddings, 10^6 bytes; ``None`` where the file holds none by its shape.
    """

    megabytes: float
    min_cosine: float
    mean_cosine: float
    min_alone: float
    score: float
    score_change: float
    sentences_per_second: float
    min_edge: float | None = None
    refused: str | None = None
    table_megabytes: float | None = None


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one array with that of the other; NaN where they differ in their width."""
    if one.shape != other.shape:
        return np.full(len(one), np.nan)
    return np.asarray((_unit(one) * _unit(other)).sum(1))


def _score(embeddings: np.ndarray, scores: Sequence[float]) -> float:
    """Return Spearman x 100 of the cosines of the first half with the second."""
    first, second = np.split(_unit(embeddings), 2)
    return 100 * float(spearmanr((first * second).sum(1), scores).statistic)


def compare(encoder: Encoder, reference: Reference, exact: bool) -> Parity:
    """Measure an encoder against the folder's own vectors, and decide whether it passes.

    Args:
        encoder: a file on its own runtime, or a model in another precision.
        reference: the vectors of the folder.
        exact: whether every vector must be the folder's (:data:`SAME`), or near it (:data:`NEAR`), with its score
            (:data:`LOSS`).
    """
    texts, scores = texts_of(reference.pairs), reference.pairs["score"]
    encoder.encode(texts[:ALONE])  # a runtime allocates and compiles at first, which is not its rate
    began = time.perf_counter()
    embeddings = encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - began)
    similar = cosines(embeddings, reference.embeddings)
    alone = cosines(encoder.encode(texts[:ALONE], batch_size=1), embeddings[:ALONE])
    edge = min_edge(encoder, reference)
    score = _score(embeddings, scores)
    change = score - _score(reference.embeddings, scores)
    return Parity(
        megabytes=encoder.megabytes,
        min_cosine=round(float(similar.min()), 6),
        mean_cosine=round(float(similar.mean()), 6),
        min_alone=round(float(alone.min()), 6),
        score=round(score, 4),
        score_change=round(change, 4),
        sentences_per_second=round(rate, 1),
        min_edge=round(edge, 6),
        refused=_refusal(float(similar.min()), edge, score, change, exact),
        table_megabytes=_table_megabytes(encoder),
    )


def min_edge(encoder: Encoder, reference: Reference) -> float:
    """Return the least cosine of a text of :data:`EDGES` to the folder's, with every prompt, alone and in a batch."""
    return min(
        float(cosines(encoder.encode(EDGES, size, prompt), embeddings).min())
        for prompt, embeddings in reference.edges.items()
        for size in (1, len(EDGES))
    )


def _refusal(cosine: float, edge: float, score: float, change: float, exact: bool) -> str | None:
    """Return why an encoder does not pass; NaN, which is not above any bound, does not."""
    if exact and not cosine >= SAME:
        return f"the least cosine to the folder's vectors is {cosine:.6f}, below {SAME}"
    if exact and not edge >= SAME:
        return (
            f"the least cosine to the folder's vectors is {edge:.6f}, below {SAME}, on texts of one token, "
            "of other scripts or over the length, with and without a prompt"
        )
    if not min(cosine, edge) >= NEAR:
        return f"the least cosine to the folder's vectors is {min(cosine, edge):.6f}, below {NEAR}"
    if not change >= -LOSS:
        return f"Spearman falls by {-change:.2f} points to {score:.2f}, and {LOSS} are allowed"
    return None


def _table_megabytes(encoder: Encoder) -> float | None:
    """Return the size of the table of token embeddings in a file, which is known by its shape."""
    if not isinstance(encoder, FileEncoder):
        return None
    size = encoder.table_bytes(token_table(encoder.model).weight.shape)
    return None if size is None else round(size / 1e6, 2)
