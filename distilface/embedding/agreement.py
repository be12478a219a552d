"""How far a student agrees with its teacher on texts that nobody has labelled."""

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import spearmanr

#: The teacher's neighbours that a search would show first.
NEIGHBOURS = 10
#: Texts whose cosines to all others are held at once.
BLOCK = 512


@dataclass(frozen=True)
class Agreement:
    """The agreement of two arrays of embeddings of the same texts; NaN where one of them is not finite or collapsed."""

    #: The mean cosine of a text's two embeddings; None where the widths differ.
    cosine: float | None
    #: Spearman's correlation of the cosines of all pairs of texts, times 100.
    spearman: float
    #: Of the teacher's ten nearest neighbours of a text, the share among the student's ten, times 100.
    recall: float

    def as_dict(self) -> dict[str, float | None]:
        """Return the three figures, rounded; a NaN, which JSON has not, is None."""
        values = asdict(self).items()
        return {name: None if value is None or math.isnan(value) else round(value, 4) for name, value in values}


def agreement(teacher: np.ndarray, student: np.ndarray) -> Agreement:
    """Compare the embeddings of a student with those of its teacher, text by text and pair by pair.

    A zero vector has the cosine 0 to every other. Of neighbours equally near, those that come first count. A student
    that embeds every text alike has no ranking: its Spearman is NaN, and its recall is that of chance.

    Args:
        teacher: embeddings, shape (texts, width).
        student: embeddings of the same texts, shape (texts, width of the student).

    Raises:
        ValueError: on arrays of other shapes, of different texts, or of fewer than three texts.
    """
    if teacher.ndim != 2 or student.ndim != 2 or len(teacher) != len(student) or len(teacher) < 3:
        shapes = f"{teacher.shape} and {student.shape}"
        raise ValueError(f"embeddings of shapes {shapes}: give two arrays of the same texts, three or more")
    same_width = teacher.shape[1] == student.shape[1]
    if not (np.isfinite(teacher).all() and np.isfinite(student).all()):
        return Agreement(math.nan if same_width else None, math.nan, math.nan)
    ours, theirs = _normalised(student), _normalised(teacher)
    cosine = float((ours * theirs).sum(axis=1).mean()) if same_width else None
    pairs: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    shared = 0
    count = min(NEIGHBOURS, len(teacher) - 1)
    for start in range(0, len(teacher), BLOCK):
        blocks = _cosines(theirs, start), _cosines(ours, start)
        for values, block in zip(pairs, blocks, strict=True):
            values.append(block[np.arange(block.shape[1]) > np.arange(start, start + len(block))[:, None]])
        near, ours_near = (_neighbours(block, start, count) for block in blocks)
        shared += int((near & ours_near).sum())
    recall = 100 * shared / (count * len(teacher))
    return Agreement(cosine, _spearman(*(np.concatenate(values) for values in pairs)), recall)


def _normalised(embeddings: np.ndarray) -> np.ndarray:
    rows = embeddings.astype(np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _cosines(rows: np.ndarray, start: int) -> np.ndarray:
    # Rounded, so that two equal texts tie: a product of matrices gives equal rows other last bits by their place.
    return np.round(rows[start : start + BLOCK] @ rows.T, 9)


def _neighbours(cosines: np.ndarray, start: int, count: int) -> np.ndarray:
    """Mark the nearest ``count`` texts of each row, the row's own text left out."""
    ranked = -cosines
    rows = np.arange(len(ranked))
    ranked[rows, start + rows] = np.inf
    marked = np.zeros(cosines.shape, bool)
    np.put_along_axis(marked, np.argsort(ranked, axis=1, kind="stable")[:, :count], True, axis=1)
    return marked


def _spearman(teacher: np.ndarray, student: np.ndarray) -> float:
    if np.ptp(teacher) == 0 or np.ptp(student) == 0:
        return math.nan  # scipy says the same, with a warning
    return 100 * float(spearmanr(teacher, student).statistic)
