"""Distil a teacher's intermediate layers (CoDIR, arXiv 2009.14167): ``distilface train codir``.

python training/train_codir.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "codir")
