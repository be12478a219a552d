"""The parity gate: how near an exported file's vectors come to its folder's, and whether it may be written."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer

from distilface.exporters import onnx as onnx_files
from distilface.exporters import openvino as openvino_files
from distilface.runtimes.encoders import megabytes, open_file

#: Least cosine to the folder's own vectors, of a file that computes as the folder does.
SAME = 1 - 1e-5
#: Most points of Spearman x 100 that a smaller file may lose.
LOSS = 1.0
#: Sentences that are also encoded one by one: the scale of a dynamic int8 activation is its batch's.
ALONE = 100


@dataclass(frozen=True)
class Parity:
    """How near a file comes to the folder in fp32, on given sentences.

    ``min_alone`` is the least cosine of a sentence encoded alone to itself in a batch. Scores are Spearman x 100 on
    scored pairs; ``megabytes`` are of 10^6 bytes, and ``table_megabytes`` those of the table of token embeddings;
    ``sentences_per_second`` is one pass in batches of 32, by length, after a short one that is not counted.
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


def compare(file: Path, model: SentenceTransformer, pairs: Dataset, wanted: np.ndarray, exact: bool) -> Parity:
    """Measure a file against the folder's own vectors, and say whether it may be written.

    Args:
        file: an ONNX file, or the ``.xml`` of OpenVINO; its own runtime computes its vectors.
        model: its model folder's, as it was loaded.
        pairs: ``sentence1``, ``sentence2``, ``score``.
        wanted: the folder's embeddings of all first sentences, then of all second ones.
        exact: whether every vector must be the folder's (:data:`SAME`), or only the score (:data:`LOSS`).
    """
    encoder, texts = open_file(file, model), [*pairs["sentence1"], *pairs["sentence2"]]
    encoder.encode(texts[:ALONE])  # what a runtime does at first is not its rate
    began = time.perf_counter()
    given = encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - began)
    cosines = (_unit(given) * _unit(wanted)).sum(1)
    alone = (_unit(encoder.encode(texts[:ALONE], batch_size=1)) * _unit(given[:ALONE])).sum(1)
    score = _score(given, pairs["score"])
    change = score - _score(wanted, pairs["score"])
    refused = None
    if exact and not cosines.min() >= SAME:
        refused = f"the least cosine to the folder's vectors is {cosines.min():.6f}, below {SAME}"
    elif not change >= -LOSS:
        refused = f"Spearman falls by {-change:.2f} points to {score:.2f}, and {LOSS} are allowed"
    return Parity(
        megabytes=megabytes(file),
        min_cosine=round(float(cosines.min()), 6),
        mean_cosine=round(float(cosines.mean()), 6),
        min_alone=round(float(alone.min()), 6),
        score=round(score, 4),
        score_change=round(change, 4),
        sentences_per_second=round(rate, 1),
        refused=refused,
        table_megabytes=_table_megabytes(file, model),
    )


def _table_megabytes(file: Path, model: SentenceTransformer) -> float | None:
    """Weigh the table of token embeddings in a file; ``None`` where it is not found by its shape."""
    encoder: Any = model[0]
    shape = encoder.model.get_input_embeddings().weight.shape
    found = (openvino_files if file.suffix == ".xml" else onnx_files).table_bytes(file, shape)
    return None if found is None else round(found / 1e6, 2)
