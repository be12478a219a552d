"""Distil an English teacher into a student of many languages, in stages: ``distilface train multistage``.

python training/train_multistage.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "multistage")
