"""Draw STS mean against parameters, from results: our models, their relatives, and published peers.

    python benchmarks/plot_scores.py --results benchmarks/results/minilm-simcse.json benchmarks/results/minilm-l3.json \
        --output benchmarks/results/sts-against-parameters.png

A result of run_mteb.py is one star, and so is one of run_seeds.py, at the mean of its seeds. It takes a few seconds.
``python -m benchmarks.sts.plot`` is the same command.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.files import read_result
from benchmarks.sts.comparison import MEASURED, Row, published
from benchmarks.sts.figure import sts_against_parameters
from distilface.console import run_command
from distilface.evaluation.scores import STS_TASKS
from distilface.settings import InputError, parse, setting


@dataclass
class Settings:
    """Options of the figure."""

    results: list[str] = setting([], "JSON files of run_seeds.py or run_mteb.py")
    output: str = setting("benchmarks/results/sts-against-parameters.png", "the picture to write")


def _row(model: dict[str, Any], role: str, name: str, scores: dict[str, float]) -> Row:
    return Row(name, MEASURED, scores, model["parameters"], model["megabytes"], role)


def rows_of(file: str) -> list[Row]:
    """Read one result: the model (at the mean of its seeds), its teacher and its untrained self, in this order.

    Raises:
        InputError: if it is not a result of these two scripts.
    """
    result = read_result(file)
    try:
        if "models" in result:
            first = result["models"][0]
            scores = {task: result["summary"][task]["mean"] for task in STS_TASKS}
            name, others = f"{Path(file).stem} ({len(result['models'])} seeds)", result["compared"]
        else:
            first, scores, name = result, result["scores"], Path(result["name"]).name
            others = list(result["compared"].values())
        return [
            _row(first, "model", name, scores),
            *(_row(row, row["role"], _relative_name(row, Path(file).stem), row["scores"]) for row in others),
        ]
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise InputError(f"{file} is not a result of run_seeds.py or run_mteb.py (it lacks {error})") from None


def _relative_name(row: dict[str, Any], name: str) -> str:
    return f"{name}, untrained" if row["role"] == "untrained" else row["name"]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Draw the figure; return its file and rows."""
    settings = parse(Settings, argv, __doc__ or "")
    if not settings.results:
        raise InputError("--results is empty; name at least one file of run_seeds.py or run_mteb.py")
    rows = [row for file in settings.results for row in rows_of(file)]
    distinct = list({row.name: row for row in rows}.values())
    sts_against_parameters([*distinct, *published()], settings.output)
    return {"figure": settings.output, "rows": [row.as_dict() for row in distinct]}


if __name__ == "__main__":
    run_command(main)
