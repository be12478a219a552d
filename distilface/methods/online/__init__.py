"""DistillCSE (arXiv 2310.13499), and distillation on the fly (hdl 10356/174236)."""

from distilface.methods.online.method import Online

__all__ = ["Online"]
