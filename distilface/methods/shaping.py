"""What a training does to its student and its text beside the method: budget, rounding, held-out texts."""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from distilface import processes
from distilface.compression.bits import BITS, Rounding
from distilface.compression.budget import shape_lines, shapes_for
from distilface.compression.cuts import best_cuts
from distilface.compression.gptq import round_weights
from distilface.compression.positions import cut_positions
from distilface.compression.pruning import prune_vocabulary
from distilface.compression.static import SMOOTHING, check_teacher, static_student
from distilface.compression.student import load_backbone
from distilface.data.drawn import drawn
from distilface.embedding.joined import SHOWN
from distilface.embedding.rounding import restored
from distilface.methods.task import Task
from distilface.model.dimensions import set_dimensions, whole_width
from distilface.model.static import is_static
from distilface.runtimes.endpoint import announce_cost
from distilface.settings import InputError
from distilface.training.evaluators import AgreementEvaluator
from distilface.training.fitting import read_length
from distilface.training.verdict import Measure

logger = logging.getLogger(__name__)

#: Texts that set the rounding of a student before it is trained.
CALIBRATION = 300
#: Texts on which cuts of layers are compared.
SEARCHED = 300
#: Texts on which a student is measured against its teacher, where no number is asked for.
HELD_OUT = 500


def fill_budget(task: Task, starts_static: Callable[[Task], bool]) -> Any:
    """Return the settings of a task, with the layers, pieces and bits that fill its megabytes, if it has any.

    Args:
        task: what is trained.
        starts_static: whether one layer would start over the token vectors of a static student.
    """
    settings = task.settings
    if getattr(settings, "megabytes", None) is None:
        return settings
    found = shapes_for(task.source, settings.megabytes, settings.max_seq_length, starts_static(task))
    for line in shape_lines(found[:1]):
        logger.info(line)
    best = found[0]
    return replace(
        settings,
        layers=list(best.layers),
        vocabulary=best.vocabulary,
        feed_forward=best.feed_forward if best.feed_forward < best.of_feed_forward else None,
        bits=BITS,
        table_bits=best.table_bits,
    )


def search_layers(task: Task) -> Any:
    """Return the settings of a task, with the layers that a search chooses on its texts, if it asks for one.

    Raises:
        InputError: as :func:`distilface.compression.cuts.best_cuts`.
    """
    settings, count = task.settings, getattr(task.settings, "best_layers", None)
    if count is None:
        return settings
    sample, length = drawn(task.texts, SEARCHED), settings.train_max_length
    found = processes.from_first(
        lambda: best_cuts(*load_backbone(task.source), count, sample, length, settings.pooling)
    )
    for layers, lost in found[:3]:
        logger.info(f"layers {' '.join(map(str, layers))}: 1 - cosine to all of them {lost:.3f}, untrained")
    return replace(settings, layers=list(found[0][0]))


def make_static(task: Task, normalize: bool) -> SentenceTransformer:
    """Make the static student of a task, with the pieces of the teacher's vocabulary that its settings ask for.

    Raises:
        InputError: if its teacher has no transformer inside.
    """
    teacher, size = task.teacher, task.settings.vocabulary
    check_teacher(teacher, task.source)
    tokenizer: Any = teacher.tokenizer
    if size is not None:
        tokenizer, pruning = prune_vocabulary(*load_backbone(task.source), task.counted_texts, size)
        task.compression.append({"step": "vocabulary", **pruning.as_dict()})
    task.compression.append({"step": "static", "pieces": len(tokenizer), "smoothing": SMOOTHING})
    return static_student(teacher, task.texts, tokenizer, normalize=normalize)


def start_rounding(student: SentenceTransformer, task: Task) -> Rounding:
    """Put a student on the grid of its 4-bit file, cut its positions to its length, and have it train there."""
    length = read_length(task.settings, student)
    sample = drawn(task.texts, CALIBRATION)
    by = "" if is_static(student) else f" by what {len(sample)} texts of at most {length} tokens give"
    logger.info(f"{task.settings.bits} bits: rounded{by}")
    cut_positions(student)
    table = task.settings.table_bits
    # A table of 2 bits starts from the weights themselves: in the middle of so wide a cell no step would leave it.
    started = table if table == BITS else None
    weights = task.settings.bits
    round_weights(student, lambda: student.encode(sample, batch_size=32, show_progress_bar=False), started, weights)
    task.compression.append({"step": "bits", "bits": task.settings.bits, "table": table})
    return Rounding(student, table, weights)


def cut_dimensions(student: SentenceTransformer, task: Task) -> list[int]:
    """Have a student give as many numbers as its settings ask for, in its scores and its folder; it trains with all.

    Returns:
        The numbers at which the finished model is scored too: none, unless it is cut or its first are to be the best.

    Raises:
        InputError: if it has no more.
    """
    count, whole = getattr(task.settings, "truncate_dim", None), whole_width(student)
    rotated = task.space is not None and task.space.axes is not None
    if count is not None:
        task.compression.append({"step": "dimensions", **set_dimensions(student, count)})
        if not rotated:
            logger.warning(
                f"--truncate_dim {count} keeps the first numbers of the teacher's own axes, which may be no better "
                "than others; --rotate true puts the best first"
            )
    elif not rotated:
        return []
    shorter = {width for width in (*SHOWN, count) if width is not None and width < whole}
    return [*sorted(shorter), whole] if shorter else []


def rounded(measure: Measure, rounding: Rounding) -> Measure:
    """Return a measure that saves a model with its weights rounded, as its passes compute with them."""

    def save(model: SentenceTransformer, folder: Path) -> None:
        """Round the weights, then save them."""
        rounding.write()
        measure.save(model, folder)

    return replace(measure, save=save)


def hold_out(task: Task) -> AgreementEvaluator:
    """Return what measures a student against its teacher, on texts that it is not trained on.

    These are ``settings.held_out`` of the task's, taken evenly out of ``task.data`` (:data:`HELD_OUT` where there are
    no scored pairs either), or else the first sentences of the scored pairs.

    Raises:
        InputError: if so many are held out that nothing is left to train on.
    """
    count = task.settings.held_out or (0 if task.settings.dev else HELD_OUT)
    if not count:
        texts = list(dict.fromkeys(task.dev["sentence1"]))[:HELD_OUT]
        for each in task.teachers:
            announce_cost(each, texts)
        embed = task.space.encode if task.space else partial(task.teacher.encode, show_progress_bar=False)
        return AgreementEvaluator(texts, embed(texts))
    if not 3 <= count < len(task.data):
        raise InputError(f"--held_out {count} of {len(task.data):,} texts leaves nothing to train on; hold out fewer")
    rows = np.linspace(0, len(task.data) - 1, count).astype(int)
    held = task.data.select(rows)
    task.data = task.data.select(np.setdiff1d(np.arange(len(task.data)), rows))
    logger.info(f"{count} of {len(task.texts):,} texts are held out; on them the agreement is measured")
    teacher = task.space.known(rows) if task.space else restored(np.asarray(held["label"][:]))
    return AgreementEvaluator(held["text"][:], teacher)
