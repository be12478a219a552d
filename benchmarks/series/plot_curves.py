"""Draw score against steps, from the results of trainings.

    python benchmarks/plot_curves.py --backbone benchmarks/results/minilm-mlm.json \
        --sweep benchmarks/results/simcse-sweep.json --output benchmarks/results/curves.png

Left, the held-out loss of masked-LM adaptation; right, STS-B development Spearman of SimCSE on that backbone, from its
untrained score at step 0. It takes a second or two. ``python -m benchmarks.series.plot_curves`` is the same command.
"""

from dataclasses import dataclass
from itertools import cycle
from typing import Any

from matplotlib.figure import Figure

from benchmarks.drawing import BLACK, BLUE, GREEN, ORANGE, PURPLE, SKY, VERMILION, new_figure, save_figure, style
from benchmarks.files import read_result
from distilface.console import run_command
from distilface.settings import parse, setting

COLOURS = (SKY, GREEN, VERMILION, PURPLE, ORANGE, BLUE, BLACK)


@dataclass
class Settings:
    """Options of the figure."""

    backbone: str = setting("benchmarks/results/minilm-mlm.json", "the run.json of a masked-LM adaptation")
    sweep: str = setting("benchmarks/results/simcse-sweep.json", "the JSON of a sweep: runs with curve and scores")
    output: str = setting("benchmarks/results/curves.png", "the picture to write")


def draw(backbone: dict[str, Any], sweep: dict[str, Any], file: str) -> Figure:
    """Draw both curves into one picture."""
    figure = new_figure(9, 3.6)
    left, right = figure.subplots(1, 2)
    steps, losses = zip(*backbone["curve"], strict=True)
    left.plot(steps, losses, marker="o", color=BLUE)
    left.set_title("masked-LM adaptation")
    style(left, "steps of 128 sentences", "held-out loss (nats a masked token)")
    for run, colour in zip(sweep["runs"], cycle(COLOURS)):
        curve = [[0, run["scores"]["baseline_stsb_dev"]], *run["curve"]]
        steps, scores = zip(*curve, strict=True)
        right.plot(steps, scores, marker="o", color=colour, label=run["name"])
    right.set_title("SimCSE on that backbone")
    style(right, f"steps of {sweep['recipe']['batch_size']} sentences", "STS-B development (Spearman × 100)")
    right.legend(frameon=False, fontsize=7)
    save_figure(figure, file)
    return figure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Draw the figure; return its file."""
    settings = parse(Settings, argv, __doc__ or "")
    draw(read_result(settings.backbone), read_result(settings.sweep), settings.output)
    return {"figure": settings.output}


if __name__ == "__main__":
    run_command(main)
