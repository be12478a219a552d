"""Adapt a backbone to your own text by masked-LM: ``distilface train mlm``.

python training/train_mlm.py --help
"""

from distilface.cli import main

if __name__ == "__main__":
    main("train", "mlm")
