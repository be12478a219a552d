"""Contrastive distillation on intermediate representations (CoDIR, arXiv 2009.14167)."""

from distilface.methods.codir.banks import MemoryBanks
from distilface.methods.codir.loss import CoDIRLoss
from distilface.methods.codir.method import CoDIR
from distilface.methods.codir.settings import ContrastSettings, check_contrast, make_contrast
from distilface.methods.codir.summary import Summary, even_spread
from distilface.methods.codir.text import CoDIRTextLoss, announce, encoder_config, prepare

__all__ = [
    "CoDIR",
    "CoDIRLoss",
    "CoDIRTextLoss",
    "ContrastSettings",
    "MemoryBanks",
    "Summary",
    "announce",
    "check_contrast",
    "encoder_config",
    "even_spread",
    "make_contrast",
    "prepare",
]
