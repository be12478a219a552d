"""A static model: no transformer, but a vector for each piece of the vocabulary; a text is the mean of its pieces'."""

import json
import math
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from distilface.settings import InputError


def is_static(model: SentenceTransformer) -> bool:
    """Return whether a model is static: ``StaticEmbedding``, and what may follow it."""
    return isinstance(model[0], StaticEmbedding)


def token_table(model: SentenceTransformer) -> Any:
    """Return the module that holds the vectors of a model's tokens, an ``Embedding`` or an ``EmbeddingBag``."""
    first: Any = model[0]
    return first.embedding if is_static(model) else first.model.get_input_embeddings()


def length_limit(model: SentenceTransformer) -> int | None:
    """Return the tokens that a model cuts a text at; ``None`` where it reads every text to its end.

    A static model's own answer is an infinite float, which is neither a count nor JSON.
    """
    length = model.max_seq_length
    return None if length is None or math.isinf(length) else length


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """Return a copy of a tokenizer that adds no special tokens, cuts no text and pads no batch.

    ``StaticEmbedding`` reads a text without special tokens, but obeys a truncation that stands in ``tokenizer.json``,
    as all-MiniLM-L6-v2's at 128; other readers of the file would add the special tokens.
    """
    rules: dict[str, Any] = json.loads(tokenizer.to_str())
    return Tokenizer.from_str(json.dumps(rules | {"post_processor": None, "truncation": None, "padding": None}))


def token_rows(model: SentenceTransformer, texts: list[str]) -> list[list[int]]:
    """Return the tokens of each text as a static model reads them."""
    return [encoding.ids for encoding in model.tokenizer.encode_batch(texts, add_special_tokens=False)]


def check_static(model: SentenceTransformer, max_seq_length: int | None) -> None:
    """Refuse to write a static model that no other reader of its folder would read alike.

    Raises:
        InputError: on a length, which the folder of a static model cannot hold, or a tokenizer that cuts texts.
    """
    if max_seq_length is not None:
        raise InputError(
            f"max_seq_length {max_seq_length} has no place in a static model, which reads a text to its end; "
            "leave it out"
        )
    cut = (model.tokenizer.truncation or {}).get("max_length")
    if cut is not None:
        raise InputError(f"the tokenizer of this model cuts texts at {cut} tokens; call its no_truncation() first")


def rewrite_static_tokenizer(folder: Path) -> None:
    """Write the tokenizer of a folder compactly: it is a part of what a user downloads."""
    path = folder / "tokenizer.json"
    plain_tokenizer(Tokenizer.from_file(str(path))).save(str(path), pretty=False)


def static_code(model: SentenceTransformer) -> list[str]:
    """Spell a static model as lines of numpy, from ``folder`` and ``sentences`` to ``embeddings``.

    Args:
        model: whose last module says whether a vector has length 1.
    """
    lines = [
        'table = load_file(f"{folder}/model.safetensors")["embedding.weight"]',
        'tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")',
        "pieces = [text.ids for text in tokenizer.encode_batch(sentences, add_special_tokens=False)]",
        "embeddings = np.stack([table[ids].sum(0) / max(len(ids), 1) for ids in pieces])",
    ]
    if len(list(model)) > 1:
        lines.append("embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True).clip(1e-12)")
    return lines
