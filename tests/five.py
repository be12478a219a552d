"""A model of five layers, as deep as the pooling of the last four is seen to leave one out."""

import tempfile
from functools import cache
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny import tiny_backbone
from torch import nn
from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

from distilface.model.pooling import pooling_modules

TEXTS = [
    "The cat sat on the mat.",
    "A dog",
    "the woman was in the house, and the man is on a rug!",
    "the man runs to a red house and the dog sleeps on the road " * 3,
]


@cache
def _temporary() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory()


@cache
def five_layers() -> Path:
    """Save a DistilBERT of five layers under BERT's tokenizer, which gives token types that it has not."""
    path = tiny_backbone(_temporary().name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DistilBertModel(DistilBertConfig.from_pretrained(path, n_layers=5)).save_pretrained(path)
    BertTokenizer.from_pretrained(path).save_pretrained(path)
    return path


def make(mode: str | tuple[str, ...] = "mean", *more: nn.Module) -> SentenceTransformer:
    """Make a model on :func:`five_layers`: a pooling, ours or sentence-transformers' own, then ``more``."""
    transformer = Transformer(str(five_layers()))
    ours = mode in ("mean", "cls", "last4")
    pooling = pooling_modules(transformer, mode) if ours else [Pooling(32, mode)]
    return SentenceTransformer(modules=[transformer, *pooling, *more], device="cpu")


def contents(path: Path) -> dict[str, bytes]:
    """Read every file under a folder."""
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
