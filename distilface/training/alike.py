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

#: Texts that a static model's tokenizer is given at once.
_PART = 500


def first_of_each(texts: Dataset, model: SentenceTransformer, length: int) -> np.ndarray:
    """Return the rows of the texts whose tokens no earlier text has.

    Args:
        texts: a column ``text``.
        model: whose tokenizer reads them; an uncased one reads "A Cat" as "a cat".
        length: tokens of a text that the training reads; what follows makes no difference. A static model reads all.
    """

    def ids(batch: list[str]) -> list[list[int]]:
        if is_static(model):  # it reads a text to its end, and a token takes a hundred bytes on the way
            parts = (token_rows(model, batch[start : start + _PART]) for start in range(0, len(batch), _PART))
            return [tokens for part in parts for tokens in part]
        read = model.tokenizer(batch, truncation=True, max_length=length, return_attention_mask=False)
        return list(read["input_ids"])

    def tokens() -> Iterator[tuple[int, bytes]]:
        """Yield the number and the tokens of each row; those of a million, as lists, would take gigabytes."""
        for number, batch in enumerate(texts.select_columns(["text"]).iter(batch_size=10_000)):
            for row, read in enumerate(ids(batch["text"]), number * 10_000):
                yield row, np.asarray(read, np.int32).tobytes()

    rows = (row for row, _ in distinct(tokens(), itemgetter(1)))
    return np.fromiter(rows, np.int64)


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
