"""Several teachers in the space of the first: each of the others is turned to where the first has the same texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import polar

from distilface.storage import whole_file


@dataclass(frozen=True)
class Turns:
    """For each teacher but the first the map that turns its embeddings onto the first's.

    A map is the polar factor of the product of both teachers' embeddings: of all maps that keep angles, the one after
    which the squared distances to the first teacher's are the least (Schoenemann 1966, the orthogonal Procrustes
    problem). Of a teacher that is wider than the first, the directions that the first knows nothing of are left out.

    Attributes:
        maps: of each of the others, shape (its width, the first's width).
        cosines: the mean cosine of what each gives to the first teacher's, on the texts of the fit.
    """

    maps: Sequence[np.ndarray]
    cosines: Sequence[float]

    def mean(self, embeddings: Sequence[np.ndarray]) -> np.ndarray:
        """Return the sum of the first teacher's embeddings and of the others', turned; shape (n, the first's width).

        Args:
            embeddings: of each teacher, of unit length, shape (n, its width).
        """
        first, *others = embeddings
        total: np.ndarray = sum((rows @ turn for rows, turn in zip(others, self.maps, strict=True)), start=first)
        return total

    @property
    def sha256(self) -> str:
        """Of the maps: a student that has begun to learn other targets cannot go on with these."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(turn).tobytes() for turn in self.maps)).hexdigest()

    def save(self, file: Path) -> None:
        """Write them whole or not at all."""
        with whole_file(file) as stream:
            np.savez(stream, *self.maps, cosines=np.array(self.cosines))

    @classmethod
    def load(cls, file: Path) -> "Turns":
        """Read what :meth:`save` wrote."""
        with np.load(file) as content:
            maps = [content[f"arr_{number}"] for number in range(len(content.files) - 1)]
            return cls(maps, content["cosines"].tolist())


def fit_turns(embeddings: Sequence[np.ndarray]) -> Turns:
    """Return the turns of teachers' embeddings of the same texts onto the first's.

    Args:
        embeddings: of each teacher, of unit length, shape (n, its width).
    """
    first, *others = embeddings
    maps, cosines = [], []
    for rows in others:
        turn = polar(rows.T.astype(np.float64) @ first)[0].astype(np.float32)
        turned = rows @ turn
        lengths = np.maximum(np.linalg.norm(turned, axis=1), 1e-12)
        maps.append(turn)
        cosines.append(round(float(((turned * first).sum(1) / lengths).mean()), 4))
    return Turns(maps, cosines)
