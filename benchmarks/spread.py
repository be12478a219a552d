"""Several measurements of one quantity, summarised as a result holds them."""

import statistics
from collections.abc import Sequence


def mean_and_sd(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean and the sample deviation (n - 1), rounded to two digits; one value has no deviation.

    >>> mean_and_sd([1.0, 2.0, 3.0]), mean_and_sd([4.0])
    ({'mean': 2.0, 'sd': 1.0}, {'mean': 4.0, 'sd': None})
    """
    sd = round(statistics.stdev(values), 2) if len(values) > 1 else None
    return {"mean": round(statistics.mean(values), 2), "sd": sd}


def as_text(summary: dict[str, float | None]) -> str:
    """Format a summary of :func:`mean_and_sd` for a table.

    >>> as_text({'mean': 2.0, 'sd': 1.0}), as_text({'mean': 4.0, 'sd': None})
    ('2.00 ± 1.00', '4.00')
    """
    return f"{summary['mean']:.2f}" + ("" if summary["sd"] is None else f" ± {summary['sd']:.2f}")


def median_and_range(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Return the median, the least and the greatest value, rounded.

    >>> median_and_range([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }
