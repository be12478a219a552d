"""A few texts of many, by which a step of compression chooses what it keeps."""

import numpy as np
from datasets import Dataset

#: The same texts are drawn in every process, and when a training goes on.
SEED = 0


def drawn(texts: Dataset, count: int) -> list[str]:
    """Draw texts at random, in their order.

    They are not taken evenly: the held-out texts are (:func:`distilface.methods.shaping.hold_out`), and as many would
    be the very same ones, so that a student fitted to them would look nearer to its teacher than it is. So no more of
    the held-out texts are drawn than fall to it by chance: of many texts hardly any.

    Args:
        texts: in a column ``text``.
        count: how many; all, if there are fewer.
    """
    rows = np.random.default_rng(SEED).choice(len(texts), min(count, len(texts)), replace=False)
    return list(texts.select(np.sort(rows))["text"][:])
