"""The three objectives, against their papers' equations in float64 numpy, and what each must do to a model."""

from collections.abc import Callable

import numpy as np

# ---- the equations, written from the papers alone


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def simcse_loss(first: np.ndarray, second: np.ndarray, temperature: float = 0.05) -> float:
    """Equation 4 of SimCSE (arXiv 2104.08821): view 1 of a sentence picks its view 2 out of the batch's."""
    return float(-np.diag(log_softmax(unit(first) @ unit(second).T / temperature)).mean())


def distance(metric: str, student: np.ndarray, teacher: np.ndarray) -> float:
    """Equation 7 of EmbedDistill (arXiv 2301.12005) is ``l2``; ``mse`` and ``cosine`` are its usual kin."""
    if metric == "mse":
        return float(((student - teacher) ** 2).mean())
    if metric == "l2":
        return float(np.sqrt(((student - teacher) ** 2).sum(1)).mean())
    return float((1 - (unit(student) * unit(teacher)).sum(1)).mean())


def principal_components(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the mean, the first components as rows, and the mean squared error of what they leave out."""
    mean = x.mean(0)
    _, values, directions = np.linalg.svd(x - mean, full_matrices=False)
    return mean, directions[:count], float((values[count:] ** 2).sum() / x.size)


def masked_lm_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """BERT's objective (arXiv 1810.04805, 3.1): -log p of the token, averaged over the chosen places only."""
    rows, columns = np.nonzero(labels != -100)
    return float(-log_softmax(logits)[rows, columns, labels[rows, columns]].mean())


def finite_differences(f: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-6) -> np.ndarray:
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[place] = h
        gradient[place] = (f(x + step) - f(x - step)) / (2 * h)
    return gradient
