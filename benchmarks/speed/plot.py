"""Draw STS mean against sentences a second, from what ``run_speed.py`` measured and from results of scores.

    python benchmarks/plot_speed.py --output benchmarks/results/speed.png

A model is a line of points, one a runtime, at the height of its score in fp32: what int8 costs of it, the export says.
The scores of the two shapes in random weights are those of their papers' models (``peers.yaml``). A second or two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.series.plot_curves import read
from benchmarks.speed.models import BERT, PAPER, STUDENT, USUAL
from benchmarks.sts.comparison import published
from benchmarks.sts.plot import rows_of
from distilface.console import run_command
from distilface.evaluation.scores import means
from distilface.settings import InputError, parse, setting

#: Colours that the colour-blind tell apart (Okabe and Ito), and a marker, by runtime.
STYLES = {
    "torch fp32": ("#000000", "o"),
    "torch bf16": ("#999999", "o"),
    "ONNX fp32": ("#56b4e9", "s"),
    "ONNX int8": ("#0072b2", "s"),
    "OpenVINO int8": ("#d55e00", "D"),
}
#: What the shapes stand for, by the names in ``peers.yaml``.
PEERS = {PAPER: "DistilFace (the paper's)", BERT: "unsupervised SimCSE, BERT-base"}


@dataclass
class Settings:
    """What the drawing can be told."""

    speed: str = setting("benchmarks/results/speed.json", "the result of run_speed.py")
    student: str = setting("benchmarks/results/minilm-l3.json", "the student's scores: run_seeds.py or run_mteb.py")
    usual: str = setting("benchmarks/results/all-MiniLM-L6-v2.json", "those of all-MiniLM-L6-v2")
    output: str = setting("benchmarks/results/speed.png", "the picture to write")


def scores_of(settings: Settings) -> dict[str, float]:
    """Return the mean of the paper's five STS tasks of each model.

    Raises:
        InputError: if a result has not all five.
    """
    peers = {row.name: row for row in published()}
    rows = {name: rows_of(file)[0] for name, file in ((STUDENT, settings.student), (USUAL, settings.usual))}
    rows |= {name: peers[peer] for name, peer in PEERS.items()}
    found = {name: means(row.scores)["mean_of_5"] for name, row in rows.items()}
    for name, score in found.items():
        if score is None:
            raise InputError(f"the result of {name} has not all of the five STS tasks whose mean is drawn")
    return {name: score for name, score in found.items() if score is not None}


def draw(rows: list[dict[str, Any]], scores: dict[str, float], cores: int, file: str) -> Figure:
    """Draw each model on each runtime, speed with its least and most, on a log scale."""
    figure = Figure(figsize=(8.5, 4.6), dpi=150, layout="constrained")
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
            style: dict[str, Any] = {"fmt": marker, "color": colour, "markersize": 7, "capsize": 2, "zorder": 3}
            axes.errorbar(middle, heights, xerr=reach, label=runtime, **style)
    axes.set_xscale("log")
    axes.set_ylim(min(scores.values()) - 2, max(scores.values()) + 2.5)
    axes.set_xlabel(f"short sentences a second, {cores} cores (log scale)")
    axes.set_ylabel("mean of STS12–15 and STS-B (Spearman × 100)")
    axes.grid(alpha=0.25, which="both", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=len(STYLES), fontsize=8.5, frameon=False)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    return figure


def main(argv: list[str] | None = None) -> Figure:
    """Draw the picture."""
    settings = parse(Settings, argv, __doc__ or "")
    speed = read(settings.speed)
    if "rows" not in speed or "peak_gops" not in speed:
        raise InputError(f"{settings.speed} is no result of run_speed.py")
    figure = draw(speed["rows"], scores_of(settings), speed["machine"]["cores"], settings.output)
    print(f"figure: {settings.output}")
    return figure


if __name__ == "__main__":
    run_command(main)
