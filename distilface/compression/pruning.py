"""Fewer pieces: an encoder and its tokenizer with the pieces of the vocabulary that a text uses most."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.pieces import kept_pieces, prune_json
from distilface.json_files import read_json
from distilface.locks import scratch_folder
from distilface.model.families import family_name, padding_position
from distilface.settings import InputError
from distilface.storage import write_json

logger = logging.getLogger(__name__)

#: Texts that the growth in tokens is counted on at most.
SAMPLE = 20_000
_BATCH = 5_000
#: Files of a slow tokenizer, which would still hold the whole vocabulary.
_SLOW = ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model")


@dataclass(frozen=True)
class Pruning:
    """What a smaller vocabulary does to a text.

    Attributes:
        pieces: that are kept.
        of: pieces that there were.
        coverage: share of the text's tokens that are kept pieces.
        growth: tokens of the text after, over those before.
        unknown: unknown tokens of the text, before and after.
    """

    pieces: int
    of: int
    coverage: float
    growth: float
    unknown: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it for ``run.json``."""
        return asdict(self)


def count_pieces(texts: Dataset, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    """Count how often each piece of a tokenizer's vocabulary stands in the texts; shape (pieces,)."""
    counts = np.zeros(len(tokenizer), np.int64)
    for ids in _tokens(texts, tokenizer):
        counts += np.bincount(ids, minlength=len(counts))
    return counts


def _tokens(texts: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[np.ndarray]:
    """Yield the ids of batches of texts, whole and without special tokens."""
    for batch in texts.select_columns(["text"]).iter(batch_size=_BATCH):
        rows = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
        yield np.fromiter((piece for row in rows["input_ids"] for piece in row), np.int64)


def _rebuilt(tokenizer: PreTrainedTokenizerBase, new: dict[int, int]) -> PreTrainedTokenizerBase:
    """Write a tokenizer, its pieces renumbered, and read it again as any loader would."""
    with scratch_folder() as folder:
        tokenizer.save_pretrained(folder)
        for name in _SLOW:
            (Path(folder) / name).unlink(missing_ok=True)
        file, config = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer_config.json"
        file.write_text(json.dumps(prune_json(json.loads(file.read_bytes()), new), ensure_ascii=False), "utf-8")
        settings = read_json(config)
        if "added_tokens_decoder" in settings:
            added = settings["added_tokens_decoder"].items()
            settings["added_tokens_decoder"] = {str(new[int(number)]): token for number, token in added}
            write_json(config, settings)
        return AutoTokenizer.from_pretrained(folder)


def prune_vocabulary(
    encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Dataset, size: int
) -> tuple[PreTrainedTokenizerBase, Pruning]:
    """Keep the pieces of a vocabulary that the texts use most; the encoder's table is cut in place.

    Whatever the tokenizer could read it still can: the characters of which a dropped piece is made are kept (of BPE,
    the pieces that it is merged of), and so are special tokens. The pieces stay in their order.

    Args:
        encoder: its table of token embeddings loses the rows of the dropped pieces.
        tokenizer: a fast one, of WordPiece, BPE or Unigram; it is not changed.
        texts: a column ``text``.
        size: how many pieces to keep.

    Returns:
        The new tokenizer, and what it does to the texts.

    Raises:
        InputError: if the vocabulary has no such kind, or ``size`` is too small.
    """
    if not tokenizer.is_fast:
        raise InputError(
            f"the tokenizer of {family_name(encoder.config)} is a slow one, whose vocabulary cannot be cut"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    if content["model"]["type"] not in ("WordPiece", "BPE", "Unigram"):
        raise InputError(f"a {content['model']['type']} vocabulary cannot be cut; WordPiece, BPE or Unigram can")
    always = {token["id"] for token in content["added_tokens"]} | set(tokenizer.all_special_ids)
    counts = count_pieces(texts, tokenizer)
    kept = kept_pieces(content["model"], always, counts, min(size, len(tokenizer)))
    new = {old: number for number, old in enumerate(kept.tolist())}
    counted = padding_position(encoder)
    if counted is not None and new[counted] != counted:
        raise InputError(
            f"{family_name(encoder.config)} counts its positions from the id of its padding, {counted}, which would "
            "change with fewer pieces before it; keep its whole vocabulary"
        )
    smaller = _rebuilt(tokenizer, new)
    _cut_table(encoder, kept, new)
    return smaller, _effect(texts, tokenizer, smaller, counts, kept)


def _cut_table(encoder: PreTrainedModel, kept: np.ndarray, new: dict[int, int]) -> None:
    """Cut an encoder's table to the kept rows, and renumber the special tokens of its configuration."""
    table: Any = encoder.get_input_embeddings()
    config: Any = encoder.config
    for name, value in list(config.to_dict().items()):
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, new.get(value))
    rows = table.weight.detach()[kept].clone()
    padding = None if table.padding_idx is None else new[table.padding_idx]
    encoder.set_input_embeddings(nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=padding))
    config.vocab_size = len(kept)


def _effect(
    texts: Dataset, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase, counts: np.ndarray, kept: np.ndarray
) -> Pruning:
    sample = texts.select(np.linspace(0, len(texts) - 1, min(SAMPLE, len(texts))).astype(int))
    before, after = (np.concatenate(list(_tokens(sample, tokenizer))) for tokenizer in (old, new))
    unknown = (int((before == old.unk_token_id).sum()), int((after == new.unk_token_id).sum()))
    pruning = Pruning(
        pieces=len(kept),
        of=len(old),
        coverage=round(float(counts[kept].sum() / max(counts.sum(), 1)), 4),
        growth=round(len(after) / max(len(before), 1), 4),
        unknown=unknown,
    )
    logger.info(
        f"vocabulary: {pruning.pieces:,} of {pruning.of:,} pieces kept, {100 * pruning.coverage:.1f}% of the text; "
        f"{100 * (pruning.growth - 1):.1f}% more tokens; unknown tokens {unknown[0]} before, {unknown[1]} after"
    )
    return pruning
