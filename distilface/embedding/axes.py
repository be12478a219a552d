"""The principal axes of embeddings: a rotation after which the first numbers are the ones that say most."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilface.storage import whole_file

#: Rows whose products are added up at a time.
BLOCK = 2_048


@dataclass(frozen=True)
class Axes:
    """The principal axes of embeddings about the origin.

    About the origin, because it is inner products that they are to keep: all axes are a rotation, which keeps every
    cosine, and the first d of them keep the inner products as well as any d can (Eckart and Young). A PCA of centred
    rows moves the origin, and with it every cosine.

    Attributes:
        directions: shape (wide, width), at right angles and of unit length, the strongest first.
        strengths: shape (wide,), the mean squared length along each of all the axes.
    """

    directions: np.ndarray
    strengths: np.ndarray

    def kept(self, count: int) -> float:
        """Return the share of the squared length that the first ``count`` axes hold, on the rows of the fit."""
        return float(self.strengths[:count].sum() / self.strengths.sum())

    @property
    def sha256(self) -> str:
        """Of the directions: a student that has begun to learn others cannot go on with these."""
        return hashlib.sha256(np.ascontiguousarray(self.directions).tobytes()).hexdigest()

    def save(self, file: Path) -> None:
        """Write them whole or not at all."""
        with whole_file(file) as stream:
            np.savez(stream, directions=self.directions, strengths=self.strengths)

    @classmethod
    def load(cls, file: Path) -> "Axes":
        """Read what :meth:`save` wrote."""
        with np.load(file) as content:
            return cls(content["directions"], content["strengths"])


def fit_axes(rows: np.ndarray, width: int) -> Axes:
    """Return the first ``width`` principal axes of rows, about the origin.

    The largest number of each axis is positive: its sign would otherwise be the library's choice.

    Args:
        rows: shape (n, wide).
        width: how many axes, from 1 to ``wide``.
    """
    moment = np.zeros((rows.shape[1], rows.shape[1]))
    for block in _blocks(rows):
        moment += block.T @ block
    strengths, directions = np.linalg.eigh(moment / len(rows))  # the weakest first
    directions = directions[:, ::-1]
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(len(largest))])
    return Axes(directions[:, :width].astype(np.float32), np.maximum(strengths[::-1], 0))


def _blocks(rows: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK].astype(np.float64)
