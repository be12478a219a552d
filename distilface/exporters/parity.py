"""The parity gate: how near an encoder's vectors come to those of the folder in fp32, and whether it passes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.stats import spearmanr

from distilface.runtimes.base import Encoder, FileEncoder

#: Least cosine to the folder's own vectors, of a file that computes as the folder does.
SAME = 1 - 1e-5
#: Most points of Spearman x 100 that a smaller file may lose.
LOSS = 1.0
#: Sentences that are also encoded one by one: the scale of a dynamic int8 activation is its batch's.
ALONE = 100


@dataclass(frozen=True)
class Parity:
    """How near an encoder comes to the folder in fp32, on given sentences.

    Attributes:
        megabytes: of its weights, 10^6 bytes.
        min_cosine: the least cosine of a vector to the folder's.
        mean_cosine: their mean.
        min_alone: the least cosine of a sentence encoded alone to itself in a batch.
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
    refused: str | None = None
    table_megabytes: float | None = None


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def _score(embeddings: np.ndarray, scores: Sequence[float]) -> float:
    """Return Spearman x 100 of the cosines of the first half with the second."""
    first, second = np.split(_unit(embeddings), 2)
    return 100 * float(spearmanr((first * second).sum(1), scores).statistic)


def compare(encoder: Encoder, pairs: Dataset, reference: np.ndarray, exact: bool) -> Parity:
    """Measure an encoder against the folder's own vectors, and decide whether it passes.

    Args:
        encoder: a file on its own runtime, or a model in another precision.
        pairs: ``sentence1``, ``sentence2``, ``score``.
        reference: the folder's embeddings in fp32 of all first sentences, then of all second ones.
        exact: whether every vector must be the folder's (:data:`SAME`), or only the score (:data:`LOSS`).
    """
    texts = [*pairs["sentence1"], *pairs["sentence2"]]
    encoder.encode(texts[:ALONE])  # a runtime allocates and compiles at first, which is not its rate
    began = time.perf_counter()
    embeddings = encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - began)
    cosines = (_unit(embeddings) * _unit(reference)).sum(1)
    alone = (_unit(encoder.encode(texts[:ALONE], batch_size=1)) * _unit(embeddings[:ALONE])).sum(1)
    score = _score(embeddings, pairs["score"])
    change = score - _score(reference, pairs["score"])
    return Parity(
        megabytes=encoder.megabytes,
        min_cosine=round(float(cosines.min()), 6),
        mean_cosine=round(float(cosines.mean()), 6),
        min_alone=round(float(alone.min()), 6),
        score=round(score, 4),
        score_change=round(change, 4),
        sentences_per_second=round(rate, 1),
        refused=_refusal(float(cosines.min()), score, change, exact),
        table_megabytes=_table_megabytes(encoder),
    )


def _refusal(cosine: float, score: float, change: float, exact: bool) -> str | None:
    """Return why an encoder does not pass; NaN, which is not above any bound, does not."""
    if exact and not cosine >= SAME:
        return f"the least cosine to the folder's vectors is {cosine:.6f}, below {SAME}"
    if not change >= -LOSS:
        return f"Spearman falls by {-change:.2f} points to {score:.2f}, and {LOSS} are allowed"
    return None


def _table_megabytes(encoder: Encoder) -> float | None:
    """Return the size of the table of token embeddings in a file, which is known by its shape."""
    if not isinstance(encoder, FileEncoder):
        return None
    transformer: Any = encoder.model[0]
    size = encoder.table_bytes(transformer.model.get_input_embeddings().weight.shape)
    return None if size is None else round(size / 1e6, 2)
