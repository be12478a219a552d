"""Draw the family's front: STS mean against the megabytes of a download, and against short sentences a second.

    python benchmarks/plot_front.py --output benchmarks/results/front.png

Of our models the 4-bit files are scored, and their download is file and tokenizer; a result of run_seeds.py stands at
the mean of its seeds. Published peers stand at their published scores, and at 4 bytes a parameter, as most are
published in fp32; nobody publishes the score of a quantised file. Speeds are measured here alone, all in one run
(``python -m benchmarks.speed.family``). It takes a second or two. ``python -m benchmarks.sts.front`` is the same
command.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.drawing import BLUE, GREY, VERMILION, new_figure, save_figure, style
from benchmarks.files import read_result
from benchmarks.speed.family import USUAL
from benchmarks.sts.comparison import published
from benchmarks.sts.plot import rows_of
from distilface.console import run_command
from distilface.evaluation.scores import means
from distilface.settings import InputError, parse, setting

#: A score, and what it stands against.
Points = dict[str, tuple[float, float]]
FAMILY = ("minilm-10mb", "minilm-5mb", "minilm-2mb", "minilm-static")
TEACHER = "all-MiniLM-L6-v2"
TICKS = tuple(digit * 10**power for power in range(5) for digit in (1, 2, 5))


@dataclass
class Settings:
    """Options of the figure."""

    results: str = setting("benchmarks/results", "the folder of the results: NAME-q4.json, or NAME.json of seeds")
    names: list[str] = setting(list(FAMILY), "the family's models, as speed-family.json names them")
    speed: str = setting("benchmarks/results/speed-family.json", "the result of benchmarks.speed.family")
    processor: str | None = setting(None, "one of that result; default its last")
    output: str = setting("benchmarks/results/front.png", "the picture to write")


def scores_of(folder: str, names: list[str]) -> dict[str, float]:
    """Return the mean of the paper's five STS tasks of each model's 4-bit file, and of the teacher.

    Raises:
        InputError: if a result is missing, or does not have all five.
    """
    scores = {}
    for name in (*names, TEACHER):
        files = [file for file in (Path(folder, f"{name}-q4.json"), Path(folder, f"{name}.json")) if file.exists()]
        if not files:
            raise InputError(f"{folder} has neither {name}-q4.json nor {name}.json; score it with run_mteb.py")
        score = means(rows_of(str(files[0]))[0].scores)["mean_of_5"]
        if score is None:
            raise InputError(f"{files[0]} does not have all of the five STS tasks whose mean is drawn")
        scores[name] = score
    return scores


def measured_points(scores: Mapping[str, float], rows: Mapping[str, Any]) -> tuple[Points, Points]:
    """Return of each model its (megabytes, score), and its (short sentences a second, score).

    Raises:
        InputError: if the speeds lack a model.
    """
    sizes, speeds = {}, {}
    for name, score in scores.items():
        own = [row for way, row in rows.items() if (way == USUAL if name == TEACHER else way.startswith(f"{name}, "))]
        row = max(own, key=lambda each: each["short"]["texts_per_second"], default=None)
        if row is None:
            raise InputError(f"the speeds lack {name}; measure it with python -m benchmarks.speed.family")
        sizes[name] = (own[0]["megabytes"], score)  # of the small file: the first is the plainest
        speeds[name] = (row["short"]["texts_per_second"], score)
    return sizes, speeds


def peer_points(test_set: str) -> Points:
    """Return (megabytes in fp32, score) of the trained published peers that have a size and that mean.

    Args:
        test_set: on which they were scored, as ``peers.yaml`` names it: ``MTEB`` or ``SentEval``.
    """
    points = {}
    for row in published():
        score, theirs = means(row.scores)["mean_of_5"], row.source.endswith(f"test set: {test_set}")
        if score is not None and row.parameters and row.label != TEACHER and row.league != "untrained" and theirs:
            points[row.label] = (row.parameters * 4 / 1e6, score)
    return points


def _scatter(
    axes: Any, points: Points, colour: str, marker: str, size: int, weight: str, up: int = 13, hollow: bool = False
) -> None:
    for name, (x, y) in points.items():
        inside, edge = ("white", colour) if hollow else (colour, "white")
        axes.scatter(x, y, s=size, c=inside, marker=marker, edgecolors=edge, zorder=4)
        place = {"xytext": (0, up), "ha": "center"} if weight == "bold" else {"xytext": (7, 0), "ha": "left"}
        if weight != "bold" and x > 200:  # it would leave the picture
            place = {"xytext": (-7, 0), "ha": "right"}
        axes.annotate(
            name, (x, y), textcoords="offset points", va="center_baseline", fontsize=8, weight=weight, **place
        )


def draw(scores: Mapping[str, float], rows: Mapping[str, Any], processor: str, file: str) -> Figure:
    """Draw both panels."""
    figure = new_figure(11, 4.8)
    left, right = figure.subplots(1, 2, sharey=True)
    sizes, speeds = measured_points(scores, rows)
    _scatter(left, peer_points("MTEB"), GREY, "o", 45, "normal")
    _scatter(left, peer_points("SentEval"), GREY, "o", 45, "normal", hollow=True)
    for axes, points in ((left, sizes), (right, speeds)):
        ours = [name for name in points if name != TEACHER]
        for number, name in enumerate(ours):  # a name above, the next below: neighbours are close
            _scatter(axes, {name: points[name]}, VERMILION, "*", 260, "bold", up=-13 if number % 2 else 13)
        _scatter(axes, {TEACHER: points[TEACHER]}, BLUE, "D", 60, "bold", up=-13)
        axes.set_xscale("log")
        axes.margins(x=0.16, y=0.1)
        first, last = axes.get_xlim()
        shown = [tick for tick in TICKS if first <= tick <= last]
        axes.set_xticks(shown, [f"{tick:,}" for tick in shown])
        axes.minorticks_off()
    scored = "scored by MTEB; the hollow ones by SentEval, on the same pairs"
    style(
        left,
        f"download, MB (log scale): ours 4 bits, others fp32\n{scored}",
        "mean of STS12–15 and STS-B (Spearman × 100)",
    )
    style(right, f"short sentences a second in the fastest way (log scale)\n{processor.partition(' (')[0]}", "")
    save_figure(figure, file)
    return figure


def main(argv: list[str] | None = None) -> Figure:
    """Draw the picture."""
    settings = parse(Settings, argv, __doc__ or "")
    speed = read_result(settings.speed)
    processor = settings.processor or next(reversed(speed), "")
    if "rows" not in speed.get(processor, {}):
        raise InputError(f"{settings.speed} has no speeds of the processor {processor!r}; it has {', '.join(speed)}")
    return draw(scores_of(settings.results, settings.names), speed[processor]["rows"], processor, settings.output)


if __name__ == "__main__":
    run_command(main)
