"""What is shown of a model folder before it is published: its files, its card, and its score as it is loaded now."""

import logging
import math
from collections.abc import Sequence

import yaml
from huggingface_hub import ModelCard

from distilface.cards.card import lacking, of_other_weights
from distilface.data.samples import sts_sample
from distilface.hub.checks import Upload
from distilface.model.folder import Folder
from distilface.run import Run
from distilface.settings import InputError
from distilface.training.evaluators import DevEvaluator

logger = logging.getLogger(__name__)

#: Points that the folder's score may be away from the one in ``run.json``: another machine adds in another order.
TOLERANCE = 0.1


def read_card(folder: Folder) -> ModelCard:
    """Read the model card; one without a licence is warned of.

    Raises:
        InputError: if its metadata cannot be read, or it tells of other weights.
    """
    try:
        card = ModelCard(folder.card.read_text(encoding="utf-8"))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"README.md has metadata that cannot be read ({problem:.200}); mend its first lines") from None
    if of_other_weights(folder):
        raise InputError(f"README.md was written for other weights; write it anew: distilface card {folder.path}")
    if missing := lacking(folder):
        logger.warning(
            f"{folder.path} lacks {missing}: README.md names no licence, and perhaps no data and no scores; "
            f"write it: distilface card {folder.path}"
        )
    return card


def score_again(folder: Folder) -> float:
    """Score a folder as it is loaded from disk, on our own pairs, and report it beside what ``run.json`` has.

    Raises:
        InputError: if there is no score, or ``run.json`` has another one of the same pairs, which is of other weights.
    """
    pairs = sts_sample()
    score = DevEvaluator(pairs)(folder.model)["spearman"]
    if not math.isfinite(score):
        raise InputError(f"{folder.path} gives no score: its vectors are all alike or not numbers; train it again")
    run = folder.run or Run()
    scores = {key: value for key, value in run.scores.items() if isinstance(value, int | float)}
    dev = run.settings.get("dev")
    shown = ", ".join(f"{name} {value:.2f}" for name, value in scores.items()) or "no score"
    logger.info(
        f"score: {score:.2f} on our own {len(pairs)} pairs, now; run.json: {shown}{f' on {dev}' if dev else ''}"
    )
    known = scores.get(DevEvaluator.measured) if dev == "sample" else None
    if known is not None and abs(known - score) > TOLERANCE:
        raise InputError(
            f"{folder.path} scores {score:.2f} on the pairs on which its run.json says {known:.2f}: they are of two "
            "trainings; put the weights and the run.json of one together"
        )
    return float(score)


def preview(folder: Folder, uploads: Sequence[Upload], card: ModelCard) -> str:
    """Return the files with their bytes, the metadata of the card, and where it can be read as a whole."""
    total = sum(upload.size for upload in uploads)
    lines = [f"{folder.path}: {len(uploads)} files, {total / 1e6:,.1f} MB"]
    for upload in uploads:
        reduced = "  (local paths as names)" if isinstance(upload.content, bytes) else ""
        lines.append(f"  {upload.size:>13,}  {upload.name}{reduced}")
    lines += ["card:", *(f"  {line}" for line in card.data.to_yaml().splitlines() or ["no metadata"])]
    length = len(folder.card.read_text(encoding="utf-8").splitlines())
    return "\n".join([*lines, f"  and its text, {length} lines: read {folder.card}"])
