"""Text to tokens as a folder's own tokenizer makes them, by the library ``tokenizers`` alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, normalizers
from tokenizers.normalizers import BertNormalizer

from distilface.json_files import read_json
from distilface.light.files import TOKENIZER
from distilface.light.words import Words, ids_of, knows_words
from distilface.settings import InputError

#: Families that count their positions from the id of their padding: of 514 positions, 512 are of a text.
AFTER_PADDING = ("roberta", "xlm-roberta", "mpnet", "camembert", "xlm-roberta-xl", "longformer", "data2vec-text")
#: A tokenizer that names no length has transformers' stand-in for infinity.
NAMED = 10**9
#: The length of a static model, which reads every text to its end.
ENDLESS = NAMED - 1
#: What transformers sets anew in a BERT's tokenizer: the key of tokenizer_config.json, and that of the normalizer.
BERT_NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
#: Tokens of padding in a batch at most; more would take longer than what another batch takes beside its tokens.
PADDING = 32
#: Tokenizers that transformers loads as their file says.
AS_WRITTEN = ("PreTrainedTokenizerFast", "TokenizersBackend")


def read_settings(folder: Path, name: str) -> dict[str, Any]:
    """Return the settings in a file of a folder; of a file that is not there, none."""
    return dict(read_json(folder / name)) if (folder / name).is_file() else {}


def _token(settings: dict[str, Any], role: str) -> str | None:
    """Return the token of a role, which may be written with how it is stripped."""
    token = settings.get(role)
    return token["content"] if isinstance(token, dict) else token


class Tokens:
    """The tokenizer of a folder: it cuts a text at the folder's length and pads a batch on the folder's side.

    Attributes:
        length: tokens that a text is cut at.
        static: whether the model is a static one.

    Args:
        folder: of the model.

    Raises:
        InputError: if a file is damaged, or names no length.
    """

    def __init__(self, folder: Path) -> None:
        settings = read_settings(folder, "tokenizer_config.json")
        named = read_settings(folder, "special_tokens_map.json") | settings
        sentence, encoder = read_settings(folder, "sentence_bert_config.json"), read_settings(folder, "config.json")
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises Exception itself
            raise InputError(f"{folder / TOKENIZER} is damaged: {error}; save or download the folder again") from None
        _set_normalizer(self._tokenizer.normalizer, settings)
        if sentence.get("do_lower_case"):
            self._lower_first()
        padding = _token(named, "pad_token") or _token(named, "eos_token")
        counted = encoder.get("pad_token_id") if padding is None else self._tokenizer.token_to_id(padding)
        self._padding, self._left = int(counted or 0), settings.get("padding_side") == "left"
        asked = [sentence.get("max_seq_length"), settings.get("model_max_length")]
        asked.append((self._tokenizer.truncation or {}).get("max_length"))
        self.static = _is_static(folder)
        self.length = _length(folder, [*asked, *([ENDLESS] if self.static else [])], encoder)
        self._tokenizer.no_padding()
        side = settings.get("truncation_side", "right")
        self._tokenizer.enable_truncation(self.length, direction=side)
        known = side == "right" and knows_words(self._tokenizer)
        self._words = Words(self._tokenizer, not self.static) if known else None

    def _lower_first(self) -> None:
        """Lower the case before all else, as sentence-transformers does on ``do_lower_case``."""
        rest = self._tokenizer.normalizer
        self._tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *([rest] if rest else [])])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the tokens of each text, cut at the length."""
        return ids_of(texts, self._words, self.length, self._by_library)

    def _by_library(self, texts: list[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=not self.static)
        return [encoding.ids for encoding in encodings]

    def padded(self, rows: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
        """Return rows of tokens as one batch, padded to its longest row: int64 of shape (B, T)."""
        return pad_rows(rows, self._padding, self._left)


def batches_of(rows: Sequence[Sequence[int]], most: int, parts: int = 1, tokens: int | None = None) -> list[list[int]]:
    """Return the numbers of rows of tokens in batches of similar length, so that little of each is padding.

    The longest come first: where several batches run at a time, a long one must not be the last.

    Args:
        rows: of tokens.
        most: rows in a batch.
        parts: batches that they are at least cut into.
        tokens: in a batch of several rows at most, with its padding; ``None`` for any number.
    """
    lengths = [len(row) for row in rows]
    order, size = np.argsort(np.negative(lengths), kind="stable"), min(most, -(-len(rows) // parts))
    batches: list[list[int]] = []
    padding = 0
    for row in order.tolist():
        padding += lengths[batches[-1][0]] - lengths[row] if batches else 0
        full = bool(batches) and len(batches[-1]) == size
        if batches and tokens is not None:
            full |= (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens
        if not batches or full or padding > PADDING:
            batches.append([])
            padding = 0
        batches[-1].append(row)
    return batches


def pad_rows(rows: Sequence[Sequence[int]], padding: int = 0, left: bool = False) -> dict[str, np.ndarray]:
    """Return rows of tokens as one batch: int64 of shape (B, T), T at least 1, for a row may be empty.

    Args:
        rows: the tokens of each text.
        padding: the id that fills a row up.
        left: fill it up on its left.
    """
    shape = len(rows), max([1, *map(len, rows)])
    ids, mask = np.full(shape, padding, np.int64), np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        place = slice(shape[1] - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def _is_static(folder: Path) -> bool:
    """Return whether a folder's model is static: then a text has no special tokens, and is read to its end."""
    modules: Any = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    return bool(modules) and str(modules[0].get("type")).endswith(".StaticEmbedding")


def _set_normalizer(normalizer: Any, settings: dict[str, Any]) -> None:
    """Let the settings of a BERT's tokenizer rule over its file, as they do in transformers."""
    if isinstance(normalizer, BertNormalizer) and settings.get("tokenizer_class") not in (None, *AS_WRITTEN):
        for key, own in BERT_NORMALIZER.items():
            if key in settings:
                setattr(normalizer, own, settings[key])


def _length(folder: Path, asked: Sequence[Any], encoder: dict[str, Any]) -> int:
    """Return the first length that is asked for, and no more than the encoder can place."""
    places = encoder.get("max_position_embeddings")
    if places is not None and encoder.get("model_type") in AFTER_PADDING:
        places -= encoder.get("pad_token_id", 1) + 1
    lengths = [int(length) for length in asked if length is not None and length < NAMED]
    if not lengths and not places:
        raise InputError(f"{folder} names no length; give sentence_bert_config.json a max_seq_length, as 512")
    return min(*lengths[:1], *([places] if places else []), NAMED)
