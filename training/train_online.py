"""Train by SimCSE beside teachers, or beside the student's own past: ``distilface train online``.

python training/train_online.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "online")
