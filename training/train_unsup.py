"""Train a sentence encoder by unsupervised SimCSE (DistilFace, arXiv 2401.12472): ``distilface train simcse``.

python training/train_unsup.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "simcse")
