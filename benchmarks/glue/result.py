"""GLUE's result: the file that holds every finished training, their means and deviations, the table."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.spread import as_text, mean_and_sd
from distilface.environment import environment
from distilface.evaluation.tables import console, number_table
from distilface.settings import InputError
from distilface.storage import write_result

Row = dict[str, Any]


class Result:
    """The result so far and its file; a training has its task, way and seed as its key.

    Args:
        file: a JSON file; one that is there, of the same settings and data, is continued.
        settings: those that a score depends on.
        data: by task, :meth:`benchmarks.glue.tasks.TaskData.summary`.

    Raises:
        InputError: if the file is not such a result, or was begun with other settings or data.
    """

    def __init__(self, file: str | Path, settings: Row, data: dict[str, Row]) -> None:
        self.file = Path(file)
        self.content: Row = {"settings": json.loads(json.dumps(settings)), "data": data, "runs": [], "summary": {}}
        if self.file.exists():
            self._continue()

    def _continue(self) -> None:
        now = self.content
        try:
            old = json.loads(self.file.read_text(encoding="utf-8"))
            pairs = [(key, old["settings"].get(key), value) for key, value in now["settings"].items()]
            pairs += [(f"the data of {key}", old["data"].get(key, value), value) for key, value in now["data"].items()]
            self.content = {**now, "data": {**old["data"], **now["data"]}, "runs": list(old["runs"])}
        except (ValueError, TypeError, KeyError, AttributeError):
            raise InputError(f"{self.file} is not a result of this benchmark; name another --output") from None
        for key, before, value in pairs:
            if before != value:
                raise InputError(
                    f"{self.file} was begun with other settings: {key} was {before!r} and is {value!r}; "
                    "set it back, or name another --output"
                )

    def find(self, task: str, way: str, seed: int) -> Row | None:
        """Return a finished training, or ``None``."""
        key = (task, way, seed)
        return next((run for run in self.content["runs"] if (run["task"], run["way"], run["seed"]) == key), None)

    def keep(self, run: Row) -> None:
        """Add a finished training and write the file, whole or not at all."""
        if self.find(run["task"], run["way"], run["seed"]) is None:
            self.content["runs"].append(run)
        runs = self.content["runs"]
        self.content |= {"summary": summary(runs), "mean": overall(runs), **environment()}
        write_result(self.file, self.content)


def summary(runs: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return, by task and way, the mean and the sample deviation (n - 1) of every metric over the seeds."""
    summaries: dict[str, dict[str, Row]] = {}
    for task, way in dict.fromkeys((run["task"], run["way"]) for run in runs):
        scores = [run["scores"] for run in runs if (run["task"], run["way"]) == (task, way)]
        summaries.setdefault(task, {})[way] = {
            metric: _spread([score[metric] for score in scores]) for metric in scores[0]
        }
    return summaries


def overall(runs: Sequence[Row]) -> dict[str, Row]:
    """Return, by way, the mean over the tasks of their scores, as mean and deviation over the seeds that have all."""
    tasks = {run["task"] for run in runs}
    scores: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        scores.setdefault(run["way"], {}).setdefault(run["seed"], []).append(run["scores"]["score"])
    means = {
        way: [statistics.mean(of_seed) for of_seed in seeds.values() if len(of_seed) == len(tasks)]
        for way, seeds in scores.items()
    }
    return {way: _spread(values) for way, values in means.items() if values}


def _spread(values: Sequence[float]) -> Row:
    return {**mean_and_sd(values), "seeds": len(values)}


def print_table(content: Row) -> None:
    """Print one table: a row for each way, a column for each task, with the rows it was trained on."""
    means, runs, over = content["summary"], content["runs"], overall(content["runs"])
    scored = "validation" if content["settings"]["report"] else "rows held out of the training set"
    heads = ["parameters", *(f"{task}, {content['data'][task]['train']:,} rows" for task in means), "mean"]
    title = f"GLUE, {scored}, mean of the task's metrics (mean ± sd over seeds)"
    table = number_table(*heads, first="way", wrap_heads=True, title=title)
    for way in dict.fromkeys(run["way"] for run in runs):
        size = next(run["parameters"] for run in runs if run["way"] == way)
        table.add_row(
            way, f"{size / 1e6:.1f}M", *(_cell(task.get(way)) for task in means.values()), _cell(over.get(way))
        )
    console().print(table)


def _cell(summary: Row | None) -> str:
    return "–" if summary is None else as_text(summary.get("score", summary))
