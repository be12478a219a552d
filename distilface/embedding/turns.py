"""Several teachers in the space of the first: each of the others is turned to where the first has the same texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import polar

from distilface.settings import InputError
from distilface.storage import whole_file


@dataclass(frozen=True)
class Turns:
    """For each teacher but the first the map that turns its embeddings onto the first's.

    A map is the polar factor of the product of both teachers' embeddings: of all maps with columns (or, of a narrower
    teacher, rows) at right angles and of unit length, the one with the largest sum of inner products with the first
    teacher's. Where the widths are the same this is the least squared distance too (Schoenemann 1966, the orthogonal
    Procrustes problem). Of a wider teacher the directions that have least to do with the first are left out, and its
    vectors become as much shorter.

    Attributes:
        maps: of each of the others, shape (its width, the first's width).
        cosines: the mean cosine of what each gives to the first teacher's, on texts that its map was not fitted to.
        target_cosine: the same of the sum of all.
    """

    maps: Sequence[np.ndarray]
    cosines: Sequence[float]
    target_cosine: float

    def add(self, embeddings: Sequence[np.ndarray]) -> np.ndarray:
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
            np.savez(stream, *self.maps, cosines=np.array([*self.cosines, self.target_cosine]))

    @classmethod
    def load(cls, file: Path) -> "Turns":
        """Read what :meth:`save` wrote."""
        with np.load(file) as content:
            maps = [content[f"arr_{number}"] for number in range(len(content.files) - 1)]
            *cosines, target_cosine = content["cosines"].tolist()
            return cls(maps, cosines, target_cosine)


def check_enough(count: int, widths: Sequence[int]) -> None:
    """Refuse fewer texts than twice as many as a teacher has numbers: a map of fewer fits any.

    Raises:
        InputError: saying how many are needed.
    """
    if count < (least := 2 * max(widths)):
        raise InputError(
            f"{count:,} texts are too few to turn a teacher's {least // 2} numbers into another's space; give "
            f"{least:,}, beside those of --search_data"
        )


def fit_turns(embeddings: Sequence[np.ndarray]) -> Turns:
    """Return the turns of teachers' embeddings of the same texts onto the first's.

    The maps are of all the texts; the cosines are of every second text, by maps of the others.

    Args:
        embeddings: of each teacher, of unit length, shape (n, its width).

    Raises:
        InputError: if there are fewer than twice as many texts as a teacher has numbers: a map of fewer fits any.
    """
    check_enough(len(embeddings[0]), [rows.shape[1] for rows in embeddings])
    maps, held = _maps(embeddings), [rows[1::2] for rows in embeddings]
    tried = Turns(_maps([rows[::2] for rows in embeddings]), [], 0)
    turned = [rows @ turn for rows, turn in zip(held[1:], tried.maps, strict=True)]
    *cosines, target_cosine = (_mean_cosine(rows, held[0]) for rows in [*turned, tried.add(held)])
    return Turns(maps, cosines, target_cosine)


def _maps(embeddings: Sequence[np.ndarray]) -> list[np.ndarray]:
    first, *others = embeddings
    return [polar(rows.T.astype(np.float64) @ first)[0].astype(np.float32) for rows in others]


def _mean_cosine(rows: np.ndarray, others: np.ndarray) -> float:
    """Return the mean cosine of rows to others of unit length."""
    return round(float(((rows * others).sum(1) / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)).mean()), 4)
