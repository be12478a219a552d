"""Means of the scores of tasks: by type, over the tasks, over the types."""

from collections.abc import Mapping

#: How the two means over all tasks are called; a benchmark with more tasks of one type has two different ones.
OVER_TASKS, OVER_TYPES = "mean over tasks", "mean over types"


def means_by_type(scores: Mapping[str, float], types: Mapping[str, str]) -> dict[str, float]:
    """Return the mean of each type of tasks, in the order of the types, then the two means over all.

    >>> means_by_type({"A": 1, "B": 3, "C": 5}, {"A": "STS", "B": "STS", "C": "Retrieval"})
    {'mean STS': 2.0, 'mean Retrieval': 5.0, 'mean over tasks': 3.0, 'mean over types': 3.5}

    Args:
        scores: of tasks; those without a type, as the subsets of a task, are left out.
        types: of each task.
    """
    tasks = {name: score for name, score in scores.items() if name in types}
    by_type: dict[str, list[float]] = {}
    for name, score in tasks.items():
        by_type.setdefault(types[name], []).append(score)
    if not tasks:
        return {}
    means = {f"mean {kind}": _mean(values) for kind, values in by_type.items()}
    return {
        **{name: round(mean, 4) for name, mean in means.items()},
        OVER_TASKS: round(_mean(list(tasks.values())), 4),
        OVER_TYPES: round(_mean(list(means.values())), 4),
    }


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
