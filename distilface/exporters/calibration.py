"""The text that sets the scales of a smaller file's activations, and the rounding of its weights."""

from collections.abc import Sequence

from sentence_transformers import SentenceTransformer

from distilface.data.texts import read_texts
from distilface.runtimes.base import Batch, padded, token_ids
from distilface.settings import InputError

#: Sentences that set the scales of static int8 activations, NNCF's own number, and the rounding to 4 bits.
CALIBRATION = 300


def tokenised(model: SentenceTransformer, texts: Sequence[str]) -> list[Batch]:
    """Tokenise the texts that set the scales of activations, each alone."""
    return [padded(model, [row]) for row in token_ids(model, texts)]


def calibration_texts(sources: Sequence[str], measured: Sequence[str]) -> list[str]:
    """Read text that sets the scales of activations and the rounding of weights.

    Args:
        sources: of text.
        measured: the sentences that the file is judged by, which are left out.

    Raises:
        InputError: if no text is left.
    """
    texts = read_texts(sources, CALIBRATION)["text"][:]
    kept = [text for text in texts if text not in set(measured)]
    if not kept:
        raise InputError(
            f"all {len(texts)} sentences of --calibration {' '.join(sources)} stand in the scored pairs; give others"
        )
    return kept
