"""Distil a teacher's sentence embeddings into a small student.

    python training/train_distill.py --config training/recipes/minilm-l3.yaml --data TEXT.txt

makes a 3-layer student of all-MiniLM-L6-v2: 300,000 short sentences take about 20 minutes on 2 cores. Another
teacher, another student:

    python training/train_distill.py --teacher ID_OR_FOLDER --backbone ID_OR_FOLDER --data TEXT.txt --output-dir DIR

The teacher's embeddings are computed once and kept on disk; their size is said first.
"""

from dataclasses import dataclass
from typing import Any

from transformers import set_seed

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods import embedding
from distilface.model.pooling import is_normalized
from distilface.settings import check_known, parse, setting
from distilface.training.fitting import encoder_trainer, fit, make_student
from distilface.training.run_folder import check_settings
from distilface.training.settings import StudentSettings
from distilface.training.teacher import load_teacher


@dataclass
class Settings(StudentSettings):
    """What embedding distillation can be told."""

    output_dir: str = setting("models/distilled", "the model folder to write")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder")
    backbone: str | None = setting(None, "a Hub id or folder the student is made of; default: the teacher")
    max_seq_length: int | None = setting(
        None, "tokens that the published model reads; default: the teacher's, if it can"
    )
    dropout: float | None = setting(0.0, "the student's dropout in training")
    metric: str = setting("mse", "distance to the teacher: mse, cosine or l2")
    projection: bool = setting(False, "map the student's width to the teacher's (needed where they differ)")
    normalize: str = setting("auto", "end in unit length: 'auto' (as the teacher, if not projected), 'yes' or 'no'")
    cache_dir: str | None = setting(None, "where the teacher's embeddings are kept")
    batch_size: int = setting(128, "sentences a step")
    learning_rate: float = setting(3e-4, "peak learning rate of AdamW")
    train_max_length: int = setting(64, "tokens of a sentence that training reads")
    eval_steps: int = setting(250, "steps between two scores on the development set, each with a checkpoint")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Distil and write the folder; return what stands in ``run.json``."""
    settings = parse(Settings, argv, __doc__ or "")
    check_settings(settings)
    set_seed(settings.seed)
    check_known([settings.metric], ["mse", "cosine", "l2"], "metric")
    check_known([settings.normalize], ["auto", "yes", "no"], "value of --normalize")
    texts = read_texts(settings.data, settings.max_sentences, settings.text_column)
    dev = read_sts(settings.dev)
    teacher = load_teacher(settings.teacher)
    as_teacher = is_normalized(teacher) and not settings.projection
    normalize = as_teacher if settings.normalize == "auto" else settings.normalize == "yes"
    student = make_student(settings, settings.backbone or settings.teacher, normalize=normalize)
    if settings.max_seq_length is None:
        student.max_seq_length = min(filter(None, (student.max_seq_length, teacher.max_seq_length)))
    embedding.check_widths(student, teacher, settings.projection)
    dataset = embedding.prepare(texts, teacher, settings.cache_dir)
    loss = embedding.make_loss(student, dataset, settings.metric, settings.projection)  # type: ignore[arg-type]
    trainer, measure = encoder_trainer(student, loss, dataset, dev, settings)
    run = {
        "method": "embedding",
        "baseline_model": settings.backbone or settings.teacher,
        "layers": settings.layers,
        "teacher": settings.teacher,
        "loss_settings": loss.get_config_dict(),
    }
    return fit(trainer, measure, settings, texts, run, teacher_score=measure.score(teacher))


if __name__ == "__main__":
    run_command(main)
