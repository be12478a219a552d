"""The style of the benchmarks' figures."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

#: Colours that the colour-blind tell apart (Okabe and Ito), and a grey.
BLACK, ORANGE, SKY, GREEN = "#000000", "#e69f00", "#56b4e9", "#009e73"
BLUE, VERMILION, PURPLE, GREY = "#0072b2", "#d55e00", "#cc79a7", "#999999"


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def style(axes: Any, x: str, y: str, grid: str = "major") -> None:
    """Label the axes, and draw a faint grid in place of the frame's upper and right lines."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25, which=grid, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, file: str | Path) -> None:
    """Write a figure and print its name; the suffix is the format."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    print(f"figure: {file}")
