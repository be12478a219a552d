"""Draw the development score against steps of several variants of a recipe, each under several seeds.

    python benchmarks/plot_variants.py --results simcse.json online.json --output online.png

A line is the mean over the seeds, and the band around it reaches from the lowest seed to the highest. Ticks below the
lines are the steps at which a student's past became its teacher. The results are those of ``run_seeds.py``, with
``--variants`` or without; one without has the name of its file. It takes a second or two. ``python -m
benchmarks.series.plot_variants`` is the same command.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, save_figure, style
from benchmarks.files import read_result
from distilface.console import run_command
from distilface.settings import InputError, parse, setting

COLOURS = (BLACK, SKY, BLUE, GREEN, ORANGE, VERMILION, PURPLE)


@dataclass
class Settings:
    """Options of the figure."""

    results: list[str] = setting([], "results of run_seeds.py")
    output: str = setting("variants.png", "the picture to write")
    labels: list[str] = setting([], "names of the variants, in their order; default their settings")


def curves(models: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the steps, and the scores of each seed at them, from the untrained one at step 0.

    Raises:
        InputError: if the seeds were not scored at the same steps.
    """
    runs = [[[0, model["run"]["scores"]["baseline_stsb_dev"]], *model["run"]["curve"]] for model in models]
    if len({tuple(step for step, _ in run) for run in runs}) > 1:
        raise InputError(f"{models[0]['name']} and the other seeds were scored at different steps; train them alike")
    points = np.array(runs, dtype=float)
    return points[0, :, 0], points[:, :, 1]


def switches(models: list[dict[str, Any]]) -> list[int]:
    """Return the steps after which a new generation began."""
    generations = models[0]["run"].get("generations", [])
    return [generation["steps"][0] - 1 for generation in generations[1:]]


def gather(files: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the models of every series in the results, by the name of the variant or of the file.

    Raises:
        InputError: if there is no file, or one that does not hold a series.
    """
    if not files:
        raise InputError("--results is empty; name at least one file of run_seeds.py")
    models: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        result = read_result(file)
        series = result.get("variants") or {Path(file).stem: result}
        if not all("models" in each for each in series.values()):
            raise InputError(f"{file} does not hold a series of seeds; write it with run_seeds.py")
        models |= {name: each["models"] for name, each in series.items()}
    return models


def draw(series: dict[str, list[dict[str, Any]]], labels: list[str], file: str) -> Figure:
    """Draw all series into one picture."""
    if labels and len(labels) != len(series):
        raise InputError(f"{len(labels)} labels for {len(series)} variants; give one each, or none")
    figure = new_figure(8.5, 4.6)
    axes = figure.subplots()
    lowest = min(curves(models)[1][:, 1:].min() for models in series.values())
    for place, (models, name, colour) in enumerate(zip(series.values(), labels or series, cycle(COLOURS))):
        steps, scores = curves(models)
        axes.plot(steps, scores.mean(0), color=colour, marker="o", markersize=3, label=name)
        axes.fill_between(steps, scores.min(0), scores.max(0), color=colour, alpha=0.12, linewidth=0)
        for step in switches(models):
            axes.plot(step, lowest - 0.4 - 0.25 * place, marker="|", color=colour, markersize=9, clip_on=False)
    style(axes, "steps", "STS-B development (Spearman × 100)")
    axes.set_ylim(bottom=lowest - 0.6 - 0.25 * len(series))
    axes.legend(frameon=False, fontsize=8)
    save_figure(figure, file)
    return figure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Draw the figure; return its file."""
    settings = parse(Settings, argv, __doc__ or "")
    draw(gather(settings.results), settings.labels, settings.output)
    return {"figure": settings.output}


if __name__ == "__main__":
    run_command(main)
