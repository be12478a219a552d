"""Distil a teacher's sentence embeddings into a small student: ``distilface train distill``.

python training/train_distill.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "distill")
