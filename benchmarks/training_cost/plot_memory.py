"""Draw what a training holds in memory, and how fast it goes, against the rows of its text.

    python -m benchmarks.training_cost.plot_memory --result memory.json --output memory.png

The result is that of ``python -m benchmarks.training_cost.memory``.
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.drawing import BLUE, GREEN, GREY, ORANGE, VERMILION, new_figure, save_figure, style
from benchmarks.files import read_result
from distilface.console import run_command
from distilface.settings import InputError, parse, setting

#: The stages of a training: their names in a result and in the figure, and their colours.
STAGES = {
    "read": ("reading", BLUE),
    "order": ("order of an epoch", ORANGE),
    "teacher": ("teacher's pass", GREEN),
    "train": ("training", VERMILION),
}


@dataclass
class Settings:
    """Options of the figure."""

    result: str = setting("", "a result of benchmarks.training_cost.memory")
    output: str = setting("memory.png", "the picture to write")


def draw(result: dict[str, Any], file: str) -> Figure:
    """Draw the memory of each stage on the left, and its rows a second on the right."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    runs = sorted(result["stages"], key=lambda run: run["rows"])
    rows = [run["rows"] for run in runs]
    for stage, (name, colour) in STAGES.items():
        if not all(stage in run for run in runs):
            continue
        left.plot(rows, [run[stage]["megabytes"] for run in runs], marker="o", color=colour, label=name)
        if stage != "train":  # whose steps are as many for any number of rows
            rates = [run["rows"] / max(run[stage]["seconds"], 0.01) for run in runs]
            right.plot(rows, rates, marker="o", color=colour, label=name)
    left.axhline(min(run["start_megabytes"] for run in runs), color=GREY, linestyle="--", label="libraries alone")
    style(left, "rows of text", "memory held (MB)")
    style(right, "rows of text", "rows a second")
    left.set_ylim(bottom=0)
    right.set_yscale("log")
    for axes in (left, right):
        axes.set_xscale("log")
    left.legend(frameon=False, fontsize=8)
    save_figure(figure, file)
    return figure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Draw the figure; return its file.

    Raises:
        InputError: if the result is of something else.
    """
    settings = parse(Settings, argv, __doc__ or "")
    result = read_result(settings.result)
    if not result.get("stages"):
        raise InputError(f"{settings.result} says nothing of stages; give a result of benchmarks.training_cost.memory")
    draw(result, settings.output)
    return {"figure": settings.output}


if __name__ == "__main__":
    run_command(main)
