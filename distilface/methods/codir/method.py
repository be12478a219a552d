"""CoDIR on unlabelled text as a method: its settings, and how its pieces are put together."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.methods import embedding, simcse
from distilface.methods.base import EncoderMethod, Paper, Task
from distilface.methods.codir.loss import PAPER
from distilface.methods.codir.settings import ContrastSettings, check_contrast, make_contrast
from distilface.methods.codir.text import CoDIRTextLoss, announce, encoder_config, prepare
from distilface.model.pooling import is_normalized
from distilface.settings import check_known, setting
from distilface.training.settings import TeacherSettings
from distilface.training.student import make_student

logger = logging.getLogger(__name__)
#: What may stand beside the contrast, by its name in the settings.
BASES = {"embedding": embedding.PAPER, "simcse": simcse.PAPER}


@dataclass
class CoDIRSettings(ContrastSettings, TeacherSettings):
    """Options of CoDIR on unlabelled text."""

    output_dir: str = setting("models/codir", "the model folder to write")
    base: str = setting("embedding", "what stands beside the contrast: embedding (the teacher's) or simcse")
    metric: str = setting(
        "cosine", "distance to the teacher's embedding: mse, cosine or l2", needs={"base": "embedding"}
    )
    projection: bool = setting(
        False,
        "map the student's embedding to the teacher's width (needed where they differ)",
        needs={"base": "embedding"},
    )
    cache_dir: str | None = setting(None, "where the teacher's embeddings are kept", needs={"base": "embedding"})
    scale: float = setting(20.0, "1 / temperature of SimCSE", needs={"base": "simcse"})
    dropout: float | None = setting(0.0, "the student's dropout in training; SimCSE needs some")


class CoDIR(EncoderMethod):
    """Distil a teacher's intermediate layers into a small student, beside its embeddings (CoDIR, arXiv 2009.14167).

        distilface train codir --config minilm-l3-codir --data TEXT.txt

    makes a 3-layer student of all-MiniLM-L6-v2. The teacher runs in every step: by the layers that are run, a step
    costs 1.7 times that of ``distilface train distill``, whose 300,000 short sentences take 20 minutes on 2 cores. With
    SimCSE in place of the teacher's embeddings:

        distilface train codir --base simcse --dropout 0.1 --teacher ID_OR_FOLDER --layers 0 2 5 --data TEXT.txt

    The memory banks take 1 GB for a million sentences, in each checkpoint too; it is reported first. --queue bounds
    them.
    """

    name = "codir"
    paper = PAPER
    Settings = CoDIRSettings
    alone = "the bank of its negatives would be another one in each"
    least_batch = 2  # the first batch draws its negatives from itself

    def cites(self, settings: Mapping[str, Any]) -> list[Paper]:
        """Return CoDIR's papers and those of what stands beside it."""
        return [PAPER, *filter(None, [BASES.get(settings.get("base", ""))])]

    def learns_space(self, settings: Mapping[str, Any]) -> bool:
        """Return whether the teacher's embeddings stand beside the contrast, and no projection between."""
        return settings.get("base") == "embedding" and not settings.get("projection")

    def check(self, settings: Any) -> None:
        """Refuse what the contrast, or what stands beside it, cannot be."""
        super().check(settings)
        check_contrast(settings)
        check_known([settings.base], list(BASES), "base")
        check_known([settings.metric], get_args(embedding.Metric), "metric")
        if settings.weight == 0:
            logger.warning("--weight 0.0 leaves the contrast without effect; its banks are kept and its teacher runs")

    def student(self, task: Task) -> SentenceTransformer:
        """Return the student: of unit length where its embedding meets a teacher's that is."""
        settings, teacher = task.settings, task.teacher
        meets = settings.base == "embedding"
        normalize = meets and is_normalized(teacher) and not settings.projection
        student = make_student(
            settings, task.source, task.texts, task.compression, counted=task.counted_texts, normalize=normalize
        )
        if meets:
            embedding.check_widths(student, teacher, settings.projection)
        return student

    def prepare(self, task: Task) -> Dataset:
        """Put its own number beside every sentence, which SimCSE reads twice."""
        return prepare(task.texts, views=2 if task.settings.base == "simcse" else 1)

    def loss(self, student: SentenceTransformer, task: Task) -> CoDIRTextLoss:
        """Return the contrast beside the other objective; the teacher's embeddings are computed here."""
        settings, teacher, targets = task.settings, task.teacher, None
        configs = encoder_config(student, "student"), encoder_config(teacher, "teacher")
        contrast = make_contrast(settings, *configs, examples=len(task.texts), seed=settings.seed)
        announce(contrast)
        base: Any = None
        if settings.base == "simcse":
            base = simcse.SimCSELoss(student, settings.scale)
        else:
            targets = embedding.prepare(task.texts, teacher, settings.cache_dir)
            base = embedding.make_loss(student, targets, settings.metric, settings.projection)
        return CoDIRTextLoss(student, contrast, base, teacher, task.texts, settings.weight, targets)
