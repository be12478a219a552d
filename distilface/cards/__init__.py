"""The model card: its sections, made of a folder, its ``run.json``, its exports and its scores.

It imports every room but :mod:`distilface.hub` and the command.
"""

from distilface.cards.card import lacking, make_card, of_other_weights, write_card

__all__ = ["lacking", "make_card", "of_other_weights", "write_card"]
