"""How vectors are compared, by the names that sentence-transformers gives."""

from collections.abc import Callable

import numpy as np


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12))


def _cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(_unit(one) @ _unit(other).T)


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(one @ other.T)


def _manhattan(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.stack([-np.abs(row - other).sum(1) for row in one])


def _euclidean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.stack([-np.linalg.norm(row - other, axis=1) for row in one])


#: Each compares rows of shape (n, d) with rows of shape (m, d): of shape (n, m), more where they are more alike.
SIMILARITIES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "cosine": _cosine,
    "dot": _dot,
    "manhattan": _manhattan,
    "euclidean": _euclidean,
}
