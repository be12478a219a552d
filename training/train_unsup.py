"""Train a sentence encoder by unsupervised SimCSE: no labels, no teacher (DistilFace, arXiv 2401.12472).

    python training/train_unsup.py

is the paper's recipe on its own backbone and data, from the Hub: 20,000 steps of 128 sentences, about two hours on a
GPU and two days on 2 cores; the paper's STS mean of five is 72.1 (70.6 in its second run). On your own text:

    python training/train_mlm.py --config training/recipes/minilm-mlm.yaml --data TEXT.txt
    python training/train_unsup.py --config training/recipes/minilm-simcse.yaml --data TEXT.txt
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from transformers import set_seed

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.hub_ids import DEFAULT_BACKBONE
from distilface.methods import simcse
from distilface.settings import parse, setting
from distilface.training.fitting import encoder_trainer, fit, make_student
from distilface.training.run_folder import check_settings
from distilface.training.settings import StudentSettings

PAPER = Path(__file__).parent / "recipes" / "distilface.yaml"


@dataclass
class Settings(StudentSettings):
    """What unsupervised SimCSE can be told."""

    default_config: ClassVar[Path] = PAPER
    backbone: str = setting(DEFAULT_BACKBONE, "a Hub id or folder of a masked-LM backbone")
    dropout: float | None = setting(None, "the backbone's dropout, which makes the two views; default its own")
    scale: float = setting(20.0, "1 / temperature")
    mlp_head: bool = setting(False, "a linear layer and tanh on the embeddings, in training only")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train by SimCSE and write the folder; return what stands in ``run.json``."""
    settings = parse(Settings, argv, __doc__ or "")
    check_settings(settings)
    set_seed(settings.seed)
    texts = read_texts(settings.data, settings.max_sentences, settings.text_column)
    dev = read_sts(settings.dev)
    student = make_student(settings, settings.backbone)
    loss = simcse.SimCSELoss(student, settings.scale, settings.mlp_head)
    trainer, measure = encoder_trainer(student, loss, simcse.prepare(texts), dev, settings)
    run = {
        "method": "simcse",
        "baseline_model": settings.backbone,
        "layers": settings.layers,
        "teacher": None,
    }
    return fit(trainer, measure, settings, texts, {**run, "loss_settings": loss.get_config_dict()})


if __name__ == "__main__":
    run_command(main)
