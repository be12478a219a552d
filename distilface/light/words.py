"""The tokens of ASCII text by a memory of its words: a BERT's tokenizer cuts each word by itself, always the same way.

The library ``tokenizers`` follows every character through each of its steps, to say where a token stood in the text.
That takes most of the time of a small encoder, and all but all of a static one's; nothing here asks for it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

#: Words that are remembered, and added tokens that a text is searched for, at most.
MOST_WORDS, MOST_ADDED = 100_000, 20
#: White space that a BERT's normalizer makes a space of; it drops other control characters, which is left to it.
_SPACES = str.maketrans("\t\n\r", "   ")
#: A word, or one sign: what a BERT's pre-tokenizer cuts ASCII text into.
_CUT = re.compile(r"[0-9A-Za-z]+|[^0-9A-Za-z ]").findall


class Words(dict[str, list[int]]):
    """The ids of each word that was seen, by the tokenizer's own model.

    Args:
        tokenizer: a BERT's (:func:`knows_words`), with its normalizer as it will be used.
        special: whether a text has special tokens around it.
    """

    def __init__(self, tokenizer: Tokenizer, special: bool) -> None:
        super().__init__()
        self._model: Any = tokenizer.model
        self._lower = bool(_normalizer(tokenizer).lowercase)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._added = re.compile("|".join(map(re.escape, added)) or "(?!)", re.IGNORECASE).search
        cut = tokenizer.truncation
        tokenizer.no_truncation()
        one, around = self["a"], tokenizer.encode("a", add_special_tokens=special).ids
        if cut is not None:
            tokenizer.enable_truncation(**cut)
        place = around.index(one[0])
        self._before, self._after = around[:place], around[place + len(one) :]

    def __missing__(self, word: str) -> list[int]:
        if len(self) >= MOST_WORDS:
            self.clear()
        self[word] = found = [piece.id for piece in self._model.tokenize(word)]
        return found

    def ids(self, text: str, length: int | None) -> list[int] | None:
        """Return the tokens of a text, cut at the end to a length; ``None`` if only the library can tell."""
        plain = text.translate(_SPACES)
        if not (plain.isascii() and plain.isprintable()) or self._added(plain):
            return None
        found: list[int] = []
        for word in _CUT(plain.lower() if self._lower else plain):
            found += self[word]
        if length is not None:
            del found[max(0, length - len(self._before) - len(self._after)) :]
        return [*self._before, *found, *self._after]


def _normalizer(tokenizer: Tokenizer) -> Any:
    return tokenizer.normalizer


def knows_words(tokenizer: Tokenizer) -> bool:
    """Return whether the tokens of ASCII text are those of its words: whether a tokenizer is a BERT's."""
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.model)
    kinds = (BertNormalizer, BertPreTokenizer, WordPiece)
    return (
        all(isinstance(part, kind) for part, kind in zip(parts, kinds, strict=True))
        and bool(_normalizer(tokenizer).clean_text)
        and len(tokenizer.get_added_tokens_decoder()) <= MOST_ADDED
    )


def ids_of(
    texts: Sequence[str], words: Words | None, length: int | None, library: Callable[[list[str]], list[list[int]]]
) -> list[list[int]]:
    """Return the tokens of each text: by its words where they tell them, all others by the library, in one call.

    Args:
        texts: any number.
        words: of the tokenizer; ``None`` if its words do not tell.
        length: that a text is cut to.
        library: cuts too.
    """
    rows = [None if words is None else words.ids(text, length) for text in texts]
    others = [text for text, row in zip(texts, rows, strict=True) if row is None]
    found = iter(library(others) if others else [])
    return [next(found) if row is None else row for row in rows]
