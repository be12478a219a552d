"""Distillation of a teacher's sentence embeddings (EmbedDistill, arXiv 2301.12005; DistilFace's MSE)."""

from distilface.methods.embedding.loss import EmbeddingLoss, Metric, make_loss
from distilface.methods.embedding.method import PAPER, Distillation, prepare
from distilface.methods.embedding.settings import DistillSettings
from distilface.methods.embedding.widths import check_widths, shorter_length

__all__ = [
    "PAPER",
    "DistillSettings",
    "Distillation",
    "EmbeddingLoss",
    "Metric",
    "check_widths",
    "make_loss",
    "prepare",
    "shorter_length",
]
