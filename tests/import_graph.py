"""The imports of a package as a graph of its rooms: counted, ordered, drawn.

    python tests/import_graph.py [--package distilface] [--depth 1] [--figure imports.png]

prints how many rooms there are, how many arrows (a room imports another one) and how many floors (the longest chain of
arrows). A room is a sub-package or a module at the top; depth 2 counts the modules inside the rooms in their place.
"""

import argparse
import ast
from collections.abc import Mapping
from functools import cache
from pathlib import Path

Graph = dict[str, set[str]]


def module_of(file: Path, package: Path) -> str:
    """Name the module of a file below its package: ``data.rows``, ``data`` of its ``__init__``, empty for the top."""
    return ".".join(file.relative_to(package).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def imports_of(file: Path, package: Path) -> set[str]:
    """Name the modules of the package that a file imports, at its top or inside a function."""
    here, names = file.relative_to(package.parent).parts[:-1], set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*here[: len(here) + 1 - node.level], node.module] if node.level else [node.module]
            names |= {".".join([*filter(None, base), alias.name]) for alias in node.names}
    own = (name.removeprefix(f"{package.name}.") for name in names if name.startswith(f"{package.name}."))
    known = {module_of(each, package) for each in package.rglob("*.py")}
    return {module for name in own if (module := name if name in known else name.rpartition(".")[0])}


def graph(package: Path, depth: int) -> Graph:
    """Return what each room imports, itself left out; a module's name counts up to ``depth`` parts."""
    rooms: Graph = {}
    for file in sorted(package.rglob("*.py")):
        room = ".".join(module_of(file, package).split(".")[:depth])
        if room:
            imported = {".".join(name.split(".")[:depth]) for name in imports_of(file, package)}
            rooms.setdefault(room, set()).update(imported - {room})
    return rooms


def floors(rooms: Mapping[str, set[str]]) -> dict[str, int]:
    """Return the floor of each room, from 0: one above the highest room that it imports.

    Raises:
        ValueError: on a cycle, naming its rooms.
    """
    path: list[str] = []

    @cache
    def floor(room: str) -> int:
        if room in path:
            raise ValueError(f"a cycle of imports: {' -> '.join([*path[path.index(room) :], room])}")
        path.append(room)
        level = 1 + max((floor(other) for other in rooms[room]), default=-1)
        path.pop()
        return level

    return {room: floor(room) for room in rooms}


def draw(rooms: Graph, file: Path) -> None:
    """Draw the rooms on their floors, with an arrow from each to what it imports."""
    from matplotlib.figure import Figure

    level = floors(rooms)
    figure = Figure(figsize=(11, 1 + 1.1 * max(level.values())), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    places = {}
    for number in range(max(level.values()) + 1):
        names = sorted(name for name in rooms if level[name] == number)
        shift = 0.5 * (number % 2)
        places |= {name: ((place + shift + 0.5) / len(names), number) for place, name in enumerate(names)}
    for name, others in rooms.items():
        for other in others:
            arrow = {"arrowstyle": "-|>", "color": "#0072b2", "alpha": 0.35, "shrinkA": 12, "shrinkB": 12}
            axes.annotate("", places[other], places[name], arrowprops=arrow)
    for name, (x, y) in places.items():
        box = {"boxstyle": "round,pad=0.3", "fc": "white", "ec": "#555"}
        axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box)
    axes.set_xlim(-0.1, 1.6)
    axes.set_ylim(-0.5, max(level.values()) + 0.5)
    figure.savefig(file, dpi=130)


def main() -> None:
    """Count, and draw where a figure was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1] / "distilface")
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--figure", type=Path)
    words = parser.parse_args()
    rooms = graph(words.package.resolve(), words.depth)
    level = floors(rooms)
    lines = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in words.package.rglob("*.py"))
    arrows = sum(map(len, rooms.values()))
    print(f"{len(rooms)} rooms, {arrows} arrows, {1 + max(level.values())} floors, {lines:,} lines")
    if words.figure:
        draw(rooms, words.figure)


if __name__ == "__main__":
    main()
