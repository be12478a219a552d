"""Embeddings on the disk in fewer bytes than float32: how they are rounded, and read again."""

from typing import Literal, TypeVar, get_args

import numpy as np
import torch

Dtype = Literal["float32", "float16", "int8"]
DTYPES = get_args(Dtype)
#: Bytes of the scale that an int8 row begins with: a float32.
SCALE = 4
#: The largest whole number of an int8 row; -128 is left out, so that a row and its negative round alike.
LARGEST = 127
Labels = TypeVar("Labels", np.ndarray, torch.Tensor)


def bytes_of(width: int, dtype: str) -> int:
    """Return the bytes of an embedding of so many numbers."""
    return width + SCALE if dtype == "int8" else width * np.dtype(dtype).itemsize


def rounded(embeddings: np.ndarray, dtype: str) -> np.ndarray:
    """Return embeddings as they are kept.

    A row of int8 is its scale, the bytes of a float32, then whole numbers: the embedding is their product. The scale is
    the largest number of the row over :data:`LARGEST`, so no number is further off than half of it.

    Args:
        embeddings: shape (n, width), float32, finite.
        dtype: of :data:`DTYPES`.

    Returns:
        shape (n, width), or (n, SCALE + width) of int8. What is too large for float16 becomes infinite.
    """
    if dtype != "int8":
        with np.errstate(over="ignore"):
            return embeddings.astype(dtype)
    scales = (np.abs(embeddings).max(axis=1, keepdims=True) / LARGEST).astype(np.float32)
    whole = np.rint(embeddings / np.where(scales > 0, scales, 1)).clip(-LARGEST, LARGEST)
    return np.concatenate([scales.view(np.int8), whole.astype(np.int8)], axis=1)


def restored(labels: Labels) -> Labels:
    """Return embeddings as float32, of what :func:`rounded` gave; float32 as it is.

    Args:
        labels: numbers of any type: those of int8 rows are whole, whatever type a reader made of them.
    """
    if isinstance(labels, np.ndarray):
        return restored(torch.from_numpy(labels)).numpy()
    if labels.is_floating_point():
        return labels.float() if labels.dtype == torch.float16 else labels
    rows = labels.to(torch.int8)
    # a copy: of a single row, a view in place counts as contiguous, however far it is to the next row
    scales = rows[:, :SCALE].clone(memory_format=torch.contiguous_format).view(torch.float32)
    return rows[:, SCALE:].float() * scales
