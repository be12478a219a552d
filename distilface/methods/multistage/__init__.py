"""Multi-stage cross-lingual distillation (Findings of NAACL 2022, arXiv 2209.05869)."""

from distilface.methods.multistage.method import Multistage

__all__ = ["Multistage"]
