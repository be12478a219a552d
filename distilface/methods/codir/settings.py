"""Options of CoDIR's contrast, and the loss that is made of them."""

from dataclasses import dataclass
from typing import Any, get_args

from distilface.methods.codir.banks import MemoryBanks
from distilface.methods.codir.loss import CoDIRLoss, Objective, Positive
from distilface.methods.codir.summary import Summary, SummaryPooling, check_layers, even_spread
from distilface.settings import InputError, check_known, setting

#: Where an option of the contrast has an effect.
_WEIGHED = {"weight": True}


@dataclass
class ContrastSettings:
    """Options of the contrast; the defaults are the paper's, but for ``positive``."""

    weight: float = setting(1.0, "weight of the contrast beside the other terms")
    objective: str = setting("nce", "nce, as published, or infonce", needs=_WEIGHED)
    negatives: int = setting(100, "negatives of each example", needs=_WEIGHED)
    temperature: float = setting(0.07, "temperature of the contrast", needs=_WEIGHED)
    momentum: float = setting(
        0.5, "share of the old row in an updated row of the memory banks", needs={"queue": False, **_WEIGHED}
    )
    queue: int | None = setting(
        None, "keep only this many of the latest summaries; default a row for each example", needs=_WEIGHED
    )
    positive: str = setting(
        "current",
        "the positive: current, the batch's own summary, or bank, the row as published",
        excludes=["queue"],
        off=lambda positive: positive != "bank",
        needs=_WEIGHED,
    )
    summary_pooling: str = setting("mean", "pooling of each layer: mean over the real tokens, or cls", needs=_WEIGHED)
    student_layers: list[int] | None = setting(
        None, "layers of the student, from 1 (0 is the embeddings); default all of them", needs=_WEIGHED
    )
    teacher_layers: list[int] | None = setting(
        None,
        "layers of the teacher, from 1; default as many, evenly spread: 1 3 5 7 9 11 of 12 for a student of 6",
        needs=_WEIGHED,
    )


def check_contrast(settings: ContrastSettings) -> None:
    """Refuse, before anything is read or written, options that are out of range or exclude each other.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    check_known([settings.objective], get_args(Objective), "objective")
    check_known([settings.positive], get_args(Positive), "positive")
    check_known([settings.summary_pooling], get_args(SummaryPooling), "summary pooling")
    if settings.weight < 0:
        raise InputError(f"--weight {settings.weight} is out of range; it must be 0 or more")
    if settings.negatives < 1:
        raise InputError(f"--negatives {settings.negatives} is out of range; it must be 1 or more")
    if settings.temperature <= 0:
        raise InputError(f"--temperature {settings.temperature} is out of range; it must be above 0")
    if not 0 <= settings.momentum < 1:
        raise InputError(f"--momentum {settings.momentum} is out of range; it must be from 0 to below 1")
    if settings.queue is not None and settings.queue < 2:
        raise InputError(f"--queue {settings.queue} is too short to draw from; it must be 2 or more")
    if settings.positive == "bank" and settings.queue is not None:
        raise InputError("--positive bank needs a row for each example, and --queue keeps none; leave one of them out")


def make_contrast(
    settings: ContrastSettings, student: Any, teacher: Any, examples: int, seed: int, margin: float = 0.0
) -> CoDIRLoss:
    """Make the loss for two encoders, by their configurations.

    Args:
        settings: checked by :func:`check_contrast`.
        student: the configuration of the student's encoder.
        teacher: the configuration of the teacher's.
        examples: how many the data have.
        seed: of the draws of negatives.
        margin: labels further apart than this make negatives; 0 for classes.

    Raises:
        InputError: on a layer that one of them does not have.
    """
    depths = student.num_hidden_layers, teacher.num_hidden_layers
    spread = even_spread(*depths)
    layers = (
        check_layers(spread[0] if settings.student_layers is None else settings.student_layers, depths[0], "student"),
        check_layers(spread[1] if settings.teacher_layers is None else settings.teacher_layers, depths[1], "teacher"),
    )
    student_summary, teacher_summary = (
        Summary(chosen, config.hidden_size, pooling=settings.summary_pooling)  # type: ignore[arg-type]
        for chosen, config in zip(layers, (student, teacher), strict=True)
    )
    banks = MemoryBanks(
        settings.queue or examples,
        momentum=settings.momentum,
        queue=settings.queue is not None,
        margin=margin,
        seed=seed,
    )
    return CoDIRLoss(
        student_summary,
        teacher_summary,
        banks,
        negatives=settings.negatives,
        objective=settings.objective,  # type: ignore[arg-type]
        temperature=settings.temperature,
        positive=settings.positive,  # type: ignore[arg-type]
    )
