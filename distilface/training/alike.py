"""Texts that a model reads alike: equal tokens, so that one as the negative of the other would be a false one."""

import logging
import time
from collections.abc import Iterator
from operator import itemgetter

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.data.distinct import distinct
from distilface.model.static import is_static, token_rows
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Texts that a tokenizer is given at once; of a static model, which reads a text to its end, where a token takes a
#: hundred bytes on the way.
_BATCH, _STATIC_BATCH = 10_000, 500


def first_of_each(texts: Dataset, model: SentenceTransformer, length: int) -> np.ndarray:
    """Return the rows of the texts whose tokens no earlier text has.

    Args:
        texts: a column ``text``.
        model: whose tokenizer reads them; an uncased one reads "A Cat" as "a cat".
        length: tokens of a text that the training reads; what follows makes no difference. A static model reads all.
    """
    size = _STATIC_BATCH if is_static(model) else _BATCH

    def tokens() -> Iterator[tuple[int, bytes]]:
        """Yield the number and the tokens of each row; those of a million, as lists, would take gigabytes."""
        for number, batch in enumerate(texts.select_columns(["text"]).iter(batch_size=size)):
            for row, ids in enumerate(_read(model, batch["text"], length), number * size):
                yield row, np.asarray(ids, np.int32).tobytes()

    rows = (row for row, _ in distinct(tokens(), itemgetter(1)))
    return np.fromiter(rows, np.int64)


def _read(model: SentenceTransformer, texts: list[str], length: int) -> list[list[int]]:
    """Return the tokens of each text as a model reads them in training."""
    if is_static(model):
        return token_rows(model, texts)
    return list(model.tokenizer(texts, truncation=True, max_length=length, return_attention_mask=False)["input_ids"])


def drop_alike(texts: Dataset, model: SentenceTransformer, length: int) -> Dataset:
    """Drop each text that a model reads as it reads an earlier one, and log how many; without any, nothing changes.

    Args and the rule are those of :func:`first_of_each`.

    Raises:
        InputError: if the model reads all of them alike.
    """
    began = time.perf_counter()
    rows = first_of_each(texts, model, length)
    rate = len(texts) / (time.perf_counter() - began)
    logger.info(f"{len(texts):,} texts compared as the student reads them, {rate:,.0f} a second")
    if len(rows) == len(texts):
        return texts
    if len(rows) < 2:
        raise InputError(f"the student's tokenizer reads all {len(texts):,} texts alike; give other text")
    why = "case or white space" if is_static(model) else f"case, white space, or what follows {length} tokens"
    logger.warning(
        f"{len(texts) - len(rows):,} of {len(texts):,} texts dropped: the student reads each as an earlier one "
        f"({why}), and would learn to tell equal inputs apart"
    )
    return texts.select(rows).flatten_indices()
