"""Weights as whole numbers of 8 bits, and what is moved to them from the rows that they multiply."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: The largest whole number of a weight.
WIDEST = 127
#: How much of what makes a column large goes from the rows to the weights.
POWERS = (0.3, 0.4, 0.5, 0.6, 0.7)
#: The same, of rows that one grid serves: they are rounded more coarsely than the weight.
POWERS_OF_ONE = (0.5, 0.6, 0.7, 0.8)
#: It is done where the error falls to this share.
PAYS = 0.8
#: The least size of a row, by which its numbers are divided.
TINY = 1e-6
#: One grid is so many times as wide as the rows that it is made for: those of a normalization, and others, which are
#: larger in some texts.
MARGINS, WIDE_MARGINS = (1.0, 1.2), (1.6,)
#: One grid for all rows may raise the error of their product to so many times that of a grid for each.
MAY_COST = 2.0


def to_int8(weight: np.ndarray, in_pairs: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Round the columns of a weight to whole numbers of :data:`WIDEST` at most.

    In pairs, the steps of a column are so wide that of its numbers 2k and 2k + 1 those above 0 add up to 128 at most,
    and those below 0 to no less than -128: whatever two bytes they are multiplied by, the sum of both products then
    fits into 16 bits, for 255 x 128 does. It is the column's largest pair that counts, and not twice its largest
    number, so a step is about 1.3 times as wide as without, where whole numbers of 7 bits have it twice as wide.

    Args:
        weight: shape (K, N).
        in_pairs: keep the sums of two in 16 bits.

    Returns:
        The codes in int8, shape (K, N), and the step of each column in float32, shape (N,).
    """
    largest = np.abs(weight).max(axis=0)
    if in_pairs:  # 127 steps: the rounding of two adds one at most
        pairs = np.concatenate([weight, np.zeros((len(weight) % 2, weight.shape[1]), weight.dtype)])
        pairs = pairs.reshape(-1, 2, weight.shape[1])
        sums = [np.maximum(side, 0).sum(axis=1).max(axis=0) for side in (pairs, -pairs)]
        largest = np.maximum(*sums)
    steps = np.maximum(largest, np.finfo(np.float32).tiny * WIDEST) / np.float32(WIDEST)
    return np.round(weight / steps).astype(np.int8), steps.astype(np.float32)


def smoothing(rows: np.ndarray, weight: np.ndarray, in_pairs: bool = False) -> np.ndarray | None:
    """Return by what the columns of some rows are divided, and the rows of the weight multiplied; ``None`` for nothing.

    With c_j = max |X_j|^a / max |W_j|^(1 - a) (SmoothQuant, arXiv 2211.10438, eq. 4), of that a of :data:`POWERS` which
    leaves the least error, if it falls to :data:`PAYS` of what it is without.

    Args:
        rows: X, shape (n, K).
        weight: W, shape (K, N).
        in_pairs: as :func:`to_int8` has it.

    Returns:
        c, shape (K,), in float32, with a geometric mean of 1.
    """
    exact, tried = rows @ weight, _shares(rows, weight, POWERS)
    errors = [_miss(shares, rows, weight, exact, in_pairs) for shares in tried]
    unmoved = _miss(None, rows, weight, exact, in_pairs)
    return tried[int(np.argmin(errors))] if min(errors) < PAYS * unmoved else None


def _shares(rows: np.ndarray, weight: np.ndarray, powers: Sequence[float]) -> list[np.ndarray]:
    """Return c of some powers a."""
    columns, lines = (np.maximum(np.abs(each).max(axis=axis), TINY) for each, axis in ((rows, 0), (weight, 1)))
    tried = [columns**power / lines ** (1 - power) for power in powers]
    return [(shares / np.exp(np.log(shares).mean())).astype(np.float32) for shares in tried]


def _miss(shares: np.ndarray | None, rows: np.ndarray, weight: np.ndarray, exact: np.ndarray, in_pairs: bool) -> float:
    """Return the size of what a product misses, of rows that have a scale each."""
    moved = np.ones(len(weight), np.float32) if shares is None else shares
    codes, steps = to_int8(weight * moved[:, None], in_pairs)
    return float(np.linalg.norm(_rounded(rows / moved) @ (codes * steps) - exact))


@dataclass(frozen=True)
class Grid:
    """256 numbers that serve all rows: ``step`` times a whole number of 8 bits, from which ``zero`` is taken off.

    Attributes:
        shares: c, shape (K,), by which the rows are divided, and the rows of the weight multiplied.
        step: from one number to the next.
        zero: the code of 0.
    """

    shares: np.ndarray
    step: np.float32
    zero: np.uint8


def one_grid(
    rows: np.ndarray,
    weight: np.ndarray,
    moved: np.ndarray | None,
    in_pairs: bool = False,
    margins: Sequence[float] = MARGINS,
) -> Grid | None:
    """Return one grid for all rows, if a product with it loses little more than with one for each row.

    The rows that a normalization gives are nearly of one size, and those of attention, means of values, not far from
    it. They are smoothed for the grid, as :func:`smoothing` does it for scales of their own. Every other row makes
    grids, of some powers and margins; the rest judge them, for beyond a grid's ends a number is cut off.

    Args:
        rows: X, shape (n, K).
        weight: W, shape (K, N).
        moved: what :func:`smoothing` gives for rows of scales of their own.
        in_pairs: as :func:`to_int8` has it.
        margins: that are tried.

    Returns:
        The grid of the least error; ``None`` if it loses more, as where all rows are 0.
    """
    making, judging = rows[::2], rows[1::2]
    exact, found = judging @ weight, []
    for shares in _shares(making, weight, POWERS_OF_ONE):
        codes, steps = to_int8(weight * shares[:, None], in_pairs)
        rounded, made, judged = codes * steps, making / shares, judging / shares
        for margin in margins:
            low, high = margin * min(float(made.min()), 0), margin * max(float(made.max()), TINY)
            step = (high - low) / 255
            zero = np.round(-low / step)
            on_it = (np.clip(np.round(judged / step) + zero, 0, 255) - zero) * step
            grid = Grid(shares, np.float32(step), np.uint8(zero))
            found.append((float(np.linalg.norm(on_it @ rounded - exact)), grid))
    error, grid = min(found, key=lambda each: each[0])
    return grid if 0 < error <= MAY_COST * _miss(moved, judging, weight, exact, in_pairs) else None


def _rounded(rows: np.ndarray) -> np.ndarray:
    """Return rows rounded to 127 numbers on either side of 0, each on a scale of its own."""
    sizes = np.maximum(np.abs(rows).max(axis=1, keepdims=True), TINY) / 127
    return np.asarray(np.round(rows / sizes) * sizes)
