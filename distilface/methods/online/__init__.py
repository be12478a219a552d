"""DistillCSE (arXiv 2310.13499), and distillation on the fly (hdl 10356/174236)."""
