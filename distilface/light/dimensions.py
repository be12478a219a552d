"""Output dimensions: the first numbers of a vector, where a folder gives no more (``truncate_dim``)."""

import numpy as np


def first_numbers(vectors: np.ndarray, count: int | None, unit: bool) -> np.ndarray:
    """Return the first numbers of vectors; vectors that have no more stay as they are.

    Args:
        vectors: shape (n, width).
        count: how many; ``None`` for all.
        unit: whether what is left is brought to length 1 again, as of a model that ends in ``Normalize``.

    >>> first_numbers(np.array([[0.6, 0.0, 0.8]]), 2, unit=True)
    array([[1., 0.]])
    """
    if count is None or vectors.shape[1] <= count:
        return vectors
    short = vectors[:, :count]
    return short / np.linalg.norm(short, axis=1, keepdims=True).clip(1e-12) if unit else short
