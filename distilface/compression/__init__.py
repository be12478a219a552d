"""Steps that make a student of an encoder: a layer cut, another vocabulary, shared layers over a narrow table.

Imports settings, locks, Hub ids and model; methods and benchmarks import it.
"""

from distilface.compression.layers import cut_layers
from distilface.compression.masked_lm import load_masked_lm
from distilface.compression.recurrent import recurrent_encoder, recurrent_student
from distilface.compression.student import load_backbone, load_student
from distilface.compression.vocabulary import make_assistant, train_tokenizer

__all__ = [
    "cut_layers",
    "load_backbone",
    "load_masked_lm",
    "load_student",
    "make_assistant",
    "recurrent_encoder",
    "recurrent_student",
    "train_tokenizer",
]
