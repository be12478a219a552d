"""Draw STS mean against sentences a second, from a result of ``run_speed.py`` and from results of scores.

    python benchmarks/plot_speed.py --output benchmarks/results/speed.png

A model is a line of points, one a runtime, at the height of its score in fp32; ``distilface export`` measures what int8
costs of it. The scores of the two shapes in random weights are those of their papers' models (``peers.yaml``). It takes
a second or two. ``python -m benchmarks.speed.plot`` is the same command.
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from benchmarks.drawing import BLACK, BLUE, GREY, SKY, VERMILION, new_figure, save_figure, style
from benchmarks.files import read_result
from benchmarks.speed.models import BERT, PAPER, STUDENT, USUAL
from benchmarks.sts.comparison import published
from benchmarks.sts.plot import rows_of
from distilface.console import run_command
from distilface.evaluation.scores import means
from distilface.settings import InputError, parse, setting

#: The colour and the marker of each runtime.
STYLES = {
    "torch fp32": (BLACK, "o"),
    "torch bf16": (GREY, "o"),
    "ONNX fp32": (SKY, "s"),
    "ONNX int8": (BLUE, "s"),
    "OpenVINO int8": (VERMILION, "D"),
}
#: The model of each shape, by its name in ``peers.yaml``.
PEERS = {PAPER: "DistilFace (the paper's)", BERT: "unsupervised SimCSE, BERT-base"}


@dataclass
class Settings:
    """Options of the figure."""

    speed: str = setting("benchmarks/results/speed.json", "the result of run_speed.py")
    student: str = setting("benchmarks/results/minilm-l3.json", "the student's scores: run_seeds.py or run_mteb.py")
    usual: str = setting("benchmarks/results/all-MiniLM-L6-v2.json", "those of all-MiniLM-L6-v2")
    output: str = setting("benchmarks/results/speed.png", "the picture to write")


def scores_of(settings: Settings) -> dict[str, float]:
    """Return the mean of the paper's five STS tasks of each model.

    Raises:
        InputError: if a result does not have all five.
    """
    peers = {row.name: row for row in published()}
    rows = {name: rows_of(file)[0] for name, file in ((STUDENT, settings.student), (USUAL, settings.usual))}
    rows |= {name: peers[peer] for name, peer in PEERS.items()}
    scores = {name: means(row.scores)["mean_of_5"] for name, row in rows.items()}
    for name, score in scores.items():
        if score is None:
            raise InputError(f"the result of {name} does not have all of the five STS tasks whose mean is drawn")
    return {name: score for name, score in scores.items() if score is not None}


def draw(rows: list[dict[str, Any]], scores: dict[str, float], cores: int, file: str) -> Figure:
    """Draw each model on each runtime, speed with its least and most, on a log scale."""
    figure = new_figure(8.5, 4.6)
    axes = figure.add_subplot()
    for name, score in scores.items():
        own = [row["texts"]["short"]["sentences_per_second"] for row in rows if row["model"] == name]
        if not own:
            continue
        axes.plot([rate["median"] for rate in own], [score] * len(own), color="#cccccc", zorder=1)
        left = min(rate["median"] for rate in own)
        axes.annotate(name, (left, score), (0, 9), textcoords="offset points", fontsize=9, weight="bold")
    for runtime, (colour, marker) in STYLES.items():
        own = [row for row in rows if row["runtime"] == runtime]
        rates = [row["texts"]["short"]["sentences_per_second"] for row in own]
        middle = [rate["median"] for rate in rates]
        reach = [[rate["median"] - rate["min"] for rate in rates], [rate["max"] - rate["median"] for rate in rates]]
        heights = [scores[row["model"]] for row in own]
        if own:
            look: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 7, "capsize": 2, "zorder": 3}
            axes.errorbar(middle, heights, xerr=reach, label=runtime, **look)
    axes.set_xscale("log")
    axes.set_ylim(min(scores.values()) - 2, max(scores.values()) + 2.5)
    speeds = f"short sentences a second, {cores} cores (log scale)"
    style(axes, speeds, "mean of STS12–15 and STS-B (Spearman × 100)", grid="both")
    figure.legend(loc="outside lower center", ncols=len(STYLES), fontsize=8.5, frameon=False)
    save_figure(figure, file)
    return figure


def main(argv: list[str] | None = None) -> Figure:
    """Draw the picture."""
    settings = parse(Settings, argv, __doc__ or "")
    speed = read_result(settings.speed)
    if "rows" not in speed or "peak_gops" not in speed:
        raise InputError(f"{settings.speed} is not a result of run_speed.py")
    return draw(speed["rows"], scores_of(settings), speed["machine"]["cores"], settings.output)


if __name__ == "__main__":
    run_command(main)
