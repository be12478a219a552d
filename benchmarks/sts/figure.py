"""The figure of a comparison: STS mean against parameters."""

from collections.abc import Sequence
from itertools import product
from math import sqrt
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from benchmarks.drawing import BLUE, GREEN, GREY, PURPLE, VERMILION, new_figure, save_figure, style
from benchmarks.sts.comparison import MEASURED, Row
from distilface.evaluation.scores import means

#: By league.
COLOURS = {
    MEASURED: VERMILION,
    "distilled": PURPLE,
    "large-scale contrastive": BLUE,
    "unsupervised": GREEN,
    "untrained": GREY,
}
#: By role: the marker, and its area in square points.
MARKERS = {"model": ("*", 340), "teacher": ("D", 80), "untrained": ("v", 90), "peer": ("o", 60)}
TICKS = (5, 10, 20, 50, 100, 200, 500)


def _points(rows: Sequence[Row]) -> list[tuple[Row, float, float]]:
    """Return the rows that have a mean of five and a size, with their place; no peer that is also measured here."""
    measured = {row.name for row in rows if row.league == MEASURED}
    points = []
    for row in rows:
        score = means(row.scores)["mean_of_5"]
        if score is not None and row.parameters and (row.league == MEASURED or row.name not in measured):
            points.append((row, row.parameters / 1e6, score))
    return points


def _label_points(axes: Any, points: Sequence[tuple[Row, float, float]]) -> None:
    """Write each name beside its point, at the first place where it covers no point and no other name."""
    frame = axes.get_window_extent()
    taken = []
    for row, x, y in points:
        across, up = axes.transData.transform((x, y))
        reach = (sqrt(MARKERS[row.role][1]) / 2 + 1) * axes.figure.dpi / 72
        taken.append(Bbox.from_extents(across - reach, up - reach, across + reach, up + reach))
    for row, x, y in points:
        weight = "normal" if row.role == "peer" else "bold"
        note = axes.annotate(
            row.label, (x, y), (0, 0), textcoords="offset points", va="center", size=8.5, weight=weight
        )
        note.set_in_layout(False)
        gap = sqrt(MARKERS[row.role][1]) / 2 + 3
        # If every place is covered, the name stays at the last: crowded, but not lost.
        for far, dx, dy in product((1, 1.6, 2.5), (gap, -gap, 0), (0, 8, -8, 15, -15)):
            note.xyann = (dx * far, dy * far)
            note.set_horizontalalignment("left" if dx > 0 else "right" if dx < 0 else "center")
            box = note.get_window_extent()
            inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)


def _legend(figure: Figure, points: Sequence[tuple[Row, float, float]]) -> None:
    """Explain the colours, one for each league, below the picture."""
    leagues = {row.league for row, _, _ in points}
    handles = [
        Line2D([], [], marker="o", linestyle="", color=COLOURS[league], markersize=7, label=league)
        for league in COLOURS
        if league in leagues
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5, frameon=False)


def sts_against_parameters(rows: Sequence[Row], file: str | Path) -> Figure:
    """Draw the mean of the paper's five STS tasks against the number of parameters, on a log scale.

    Args:
        rows: the models, measured and published; one without that mean or a size is left out.
        file: the picture to write; its suffix is its format.
    """
    figure = new_figure(8.5, 5.6)
    FigureCanvasAgg(figure)  # without a canvas that draws, the names have no extent
    axes = figure.add_subplot()
    points = _points(rows)
    for row, x, y in points:
        marker, area = MARKERS[row.role]
        layer = 3 if row.role == "peer" else 4
        axes.scatter(x, y, s=area, c=COLOURS[row.league], marker=marker, edgecolors="white", zorder=layer)
    sizes, scores = [x for _, x, _ in points], [y for _, _, y in points]
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick}M" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(min(sizes) / 1.6, max(sizes) * 1.6)
    axes.set_ylim(min(scores) - 3, max(scores) + 3)
    style(axes, "parameters (log scale)", "mean of STS12–15 and STS-B (Spearman × 100)")
    _legend(figure, points)
    figure.draw_without_rendering()
    _label_points(axes, points)
    save_figure(figure, file)
    return figure
