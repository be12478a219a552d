"""Weights as whole numbers of 8 bits, and what is moved to them from the rows that they multiply."""

import numpy as np

#: The largest whole number of a weight.
WIDEST = 127
#: How much of what makes a column large goes from the rows to the weights.
POWERS = (0.3, 0.4, 0.5, 0.6, 0.7)
#: It is done where the error falls to this share.
PAYS = 0.8
#: The least size of a row, by which its numbers are divided.
TINY = 1e-6
#: Rows that one grid serves are expected to be this much larger than those that were looked at; it may raise the error
#: of their product to so many times that of a grid for each.
MARGIN, MAY_COST = 1.25, 1.4


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
    exact = rows @ weight

    def error(shares: np.ndarray) -> float:
        """Return the size of what the product misses."""
        codes, steps = to_int8(weight * shares[:, None], in_pairs)
        return float(np.linalg.norm(_rounded(rows / shares) @ (codes * steps) - exact))

    columns, lines = (np.maximum(np.abs(each).max(axis=axis), TINY) for each, axis in ((rows, 0), (weight, 1)))
    tried = []
    for power in POWERS:
        shares = columns**power / lines ** (1 - power)
        tried.append((shares / np.exp(np.log(shares).mean())).astype(np.float32))
    errors = [error(shares) for shares in tried]
    return tried[int(np.argmin(errors))] if min(errors) < PAYS * error(np.ones_like(tried[0])) else None


def one_grid(
    rows: np.ndarray, weight: np.ndarray, codes: np.ndarray, steps: np.ndarray
) -> tuple[np.float32, np.uint8] | None:
    """Return one grid of 256 numbers for all rows, if a product with it loses little more than with one for each row.

    The rows that a normalization gives are nearly of one size.

    Args:
        rows: X, shape (n, K).
        weight: W, shape (K, N).
        codes: of the weight, as :func:`to_int8` gives them.
        steps: of the codes.

    Returns:
        The step, and the code of 0; ``None`` if it loses more, as where all rows are 0.
    """
    low, high = MARGIN * min(float(rows.min()), 0), MARGIN * max(float(rows.max()), TINY)
    step = (high - low) / 255
    zero = np.round(-low / step)
    on_it = (np.clip(np.round(rows / step) + zero, 0, 255) - zero) * step
    exact, rounded = rows @ weight, codes * steps
    fixed, by_row = (np.linalg.norm(each @ rounded - exact) for each in (on_it, _rounded(rows)))
    return (np.float32(step), np.uint8(zero)) if 0 < fixed <= MAY_COST * by_row else None


def _rounded(rows: np.ndarray) -> np.ndarray:
    """Return rows rounded to 127 numbers on either side of 0, each on a scale of its own."""
    sizes = np.maximum(np.abs(rows).max(axis=1, keepdims=True), TINY) / 127
    return np.asarray(np.round(rows / sizes) * sizes)
