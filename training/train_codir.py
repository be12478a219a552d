"""Distil a teacher's intermediate layers into a small student, beside its embeddings (CoDIR, arXiv 2009.14167).

    python training/train_codir.py --config training/recipes/minilm-l3-codir.yaml --data TEXT.txt

makes a 3-layer student of all-MiniLM-L6-v2. The teacher runs in every step: by the layers that are run, a step costs
1.7 times that of training/train_distill.py, whose 300,000 short sentences take 20 minutes on 2 cores. With SimCSE in
place of the teacher's embeddings:

    python training/train_codir.py --base simcse --dropout 0.1 --teacher ID_OR_FOLDER --layers 0 2 5 --data TEXT.txt

The memory banks take 1 GB for a million sentences, in each checkpoint too; it is said first. --queue bounds them.
"""

from dataclasses import dataclass
from typing import Any

from transformers import set_seed

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods import codir, embedding, simcse
from distilface.model.pooling import is_normalized
from distilface.settings import check_known, parse, setting
from distilface.training.fitting import encoder_trainer, fit, make_student
from distilface.training.run_folder import check_settings
from distilface.training.settings import StudentSettings
from distilface.training.teacher import load_teacher


@dataclass
class Settings(codir.ContrastSettings, StudentSettings):
    """What CoDIR on unlabelled text can be told."""

    output_dir: str = setting("models/codir", "the model folder to write")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder")
    backbone: str | None = setting(None, "a Hub id or folder the student is made of; default: the teacher")
    base: str = setting("embedding", "what stands beside the contrast: embedding (the teacher's) or simcse")
    metric: str = setting("cosine", "distance to the teacher's embedding: mse, cosine or l2")
    projection: bool = setting(False, "map the student's embedding to the teacher's width (needed where they differ)")
    scale: float = setting(20.0, "1 / temperature of SimCSE")
    dropout: float | None = setting(0.0, "the student's dropout in training; SimCSE needs some")
    cache_dir: str | None = setting(None, "where the teacher's embeddings are kept")
    batch_size: int = setting(128, "sentences a step")
    learning_rate: float = setting(3e-4, "peak learning rate of AdamW")
    train_max_length: int = setting(64, "tokens of a sentence that training reads")
    eval_steps: int = setting(250, "steps between two scores on the development set, each with a checkpoint")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and write the folder; return what stands in ``run.json``."""
    settings = parse(Settings, argv, __doc__ or "")
    check_settings(settings)
    codir.check_contrast(settings)
    check_known([settings.base], ["embedding", "simcse"], "base")
    check_known([settings.metric], ["mse", "cosine", "l2"], "metric")
    set_seed(settings.seed)
    texts = read_texts(settings.data, settings.max_sentences, settings.text_column)
    dev = read_sts(settings.dev)
    teacher = load_teacher(settings.teacher)
    distils = settings.base == "embedding"
    normalize = distils and is_normalized(teacher) and not settings.projection
    student = make_student(settings, settings.backbone or settings.teacher, normalize=normalize)
    configs = codir.encoder_config(student, "student"), codir.encoder_config(teacher, "teacher")
    contrast = codir.make_contrast(settings, *configs, examples=len(texts), seed=settings.seed)
    codir.announce(contrast)
    targets = None
    if distils:
        embedding.check_widths(student, teacher, settings.projection)
        targets = embedding.prepare(texts, teacher, settings.cache_dir)
        base: Any = embedding.make_loss(student, targets, settings.metric, settings.projection)  # type: ignore[arg-type]
    else:
        base = simcse.SimCSELoss(student, settings.scale)
    loss = codir.CoDIRTextLoss(student, contrast, base, teacher, texts, settings.weight, targets)
    dataset = codir.prepare(texts, views=1 if distils else 2)
    trainer, measure = encoder_trainer(student, loss, dataset, dev, settings)
    run = {
        "method": "codir",
        "baseline_model": settings.backbone or settings.teacher,
        "layers": settings.layers,
        "teacher": settings.teacher,
        "loss_settings": loss.get_config_dict(),
    }
    return fit(trainer, measure, settings, texts, run, teacher_score=measure.score(teacher))


if __name__ == "__main__":
    run_command(main)
