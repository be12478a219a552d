"""Draw score against steps from the results of trainings.

    python benchmarks/plot_curves.py --backbone benchmarks/results/minilm-mlm.json \
        --sweep benchmarks/results/simcse-sweep.json --output benchmarks/results/curves.png

Left, the held-out loss of masked-LM adaptation; right, STS-B development Spearman of SimCSE on that backbone, from its
untrained score at step 0. A second or two.
"""

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from distilface.console import run_command
from distilface.settings import InputError, parse, setting


@dataclass
class Settings:
    """What the drawing can be told."""

    backbone: str = setting("benchmarks/results/minilm-mlm.json", "the run.json of a masked-LM adaptation")
    sweep: str = setting("benchmarks/results/simcse-sweep.json", "the JSON of a sweep: runs with curve and scores")
    output: str = setting("benchmarks/results/curves.png", "the picture to write")


def read(file: str) -> dict[str, Any]:
    """Read a result.

    Raises:
        InputError: if it is not there or is no JSON object.
    """
    try:
        return dict(json.loads(Path(file).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{file} is no result that can be read ({type(error).__name__})") from None


def draw(backbone: dict[str, Any], sweep: dict[str, Any], file: str) -> Figure:
    """Draw both curves into one picture."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    steps, losses = zip(*backbone["curve"], strict=True)
    left.plot(steps, losses, marker="o", color="#0072b2")
    left.set_title("masked-LM adaptation")
    left.set_xlabel("steps of 128 sentences")
    left.set_ylabel("held-out loss (nats a masked token)")
    for run, colour in zip(
        sweep["runs"], cycle(("#56b4e9", "#009e73", "#d55e00", "#cc79a7", "#e69f00", "#0072b2", "#000000"))
    ):
        curve = [[0, run["scores"]["baseline_stsb_dev"]], *run["curve"]]
        steps, scores = zip(*curve, strict=True)
        right.plot(steps, scores, marker="o", color=colour, label=run["name"])
    right.set_title("SimCSE on that backbone")
    right.set_xlabel(f"steps of {sweep['recipe']['batch_size']} sentences")
    right.set_ylabel("STS-B development (Spearman × 100)")
    right.legend(frameon=False, fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    return figure


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Read, draw, say where."""
    settings = parse(Settings, argv, __doc__ or "")
    draw(read(settings.backbone), read(settings.sweep), settings.output)
    print(f"figure: {settings.output}")
    return {"figure": settings.output}


if __name__ == "__main__":
    run_command(main)
