"""The generations of distillation on the fly: when the student's own past takes over as its teacher, and from where."""

import logging
from collections.abc import Sequence
from typing import Any, get_args

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from distilface.methods.online.loss import DistillCSELoss, Keep
from distilface.settings import InputError, check_known

logger = logging.getLogger(__name__)


def check_generations(teachers: Sequence[str], every: int, limit: int, keep: str, eval_steps: int) -> None:
    """Refuse settings by which no generation could teach, or none could end at a score.

    Args:
        teachers: the encoders that teach first; with none, the first generation has no teacher.
        every: steps of a generation; 0 for no switch.
        limit: switches at most.
        keep: what is taken at a switch.
        eval_steps: steps between two scores.

    Raises:
        InputError: if a switch would not stand at a score, or nothing would ever teach.
    """
    for name, value in (("switch_every", every), ("max_switches", limit)):
        if value < 0:
            raise InputError(f"--{name} {value} is out of range; it must be 0 (no switch) or more")
    check_known([keep], get_args(Keep), "value of --teacher_from")
    if every % eval_steps:
        raise InputError(
            f"--switch_every {every} is not a multiple of --eval_steps {eval_steps}, and a switch follows a score; "
            f"set it to {-(-every // eval_steps) * eval_steps}, or --eval_steps to {every}"
        )
    if not teachers and not (every and limit):
        raise InputError(
            "without a teacher and without a switch this is plain SimCSE; name --teachers, set --switch_every "
            "and --max_switches above 0, or use training/train_unsup.py"
        )


def check_length(teachers: Sequence[str], every: int, steps: int) -> None:
    """Refuse a training that ends before its first switch.

    Raises:
        InputError: naming both numbers.
    """
    if every >= steps:
        end = "no other teacher than those named" if teachers else "no teacher at all: it would be plain SimCSE"
        raise InputError(
            f"--switch_every {every} in a training of {steps} steps never switches, so it has {end}; "
            "lower it, or train for more steps"
        )


class Generations(TrainerCallback):
    """Tells the loss each dev score, and has it switch to the student's past after every ``every`` steps.

    It acts at the end of an evaluation: transformers saves the checkpoint of that step after it, so that a resume
    goes on with the new teacher.

    Args:
        loss: made with ``keep``.
        every: steps of a generation, a multiple of the steps between two evaluations.
        limit: switches at most.
    """

    def __init__(self, loss: DistillCSELoss, every: int, limit: int) -> None:
        self.loss, self.every, self.limit = loss, every, limit

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Switch if it is time to; not at the end, where nobody would learn from it."""
        score = (metrics or {})[str(args.metric_for_best_model)]
        self.loss.observe(score)
        if state.global_step % self.every or int(self.loss.generation) >= self.limit:
            return
        if state.global_step < state.max_steps:
            self.loss.switch()
            best = float(self.loss.best_score)
            taught = "" if self.loss.best is None else f", taught by the best so far ({best:.2f})"
            logger.info(
                f"generation {int(self.loss.generation)} begins after step {state.global_step} "
                f"(dev score {score:.2f}){taught}"
            )


def generations(history: Sequence[dict[str, Any]], key: str, every: int, limit: int, keep: str) -> list[dict[str, Any]]:
    """Tell the generations of a finished training from its log.

    (The loss cannot tell: at the end it goes back to the state it had at the best checkpoint.)

    Args:
        history: the trainer's, with the ``step`` and the dev score of every evaluation in order.
        key: the name of the dev score.
        every: as :class:`Generations`; 0 for one generation.
        limit: as :class:`Generations`.
        keep: what was taken at a switch, ``last`` or ``best_dev``.

    Returns:
        For each generation its number, its first and last ``steps``, the ``score`` of the last, its ``best`` step and
        score, and the step and score of the past student that was its ``teacher``, if one was.
    """
    curve = [(row["step"], row[key]) for row in history if key in row]
    last = curve[-1][0]
    starts = [0, *(range(every, last, every) if every else ())][: limit + 1]
    ends = [*starts[1:], last]
    return [
        _generation(number, curve, start, end, keep)
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _generation(number: int, curve: Sequence[tuple[int, float]], start: int, end: int, keep: str) -> dict[str, Any]:
    own = [point for point in curve if start < point[0] <= end]
    before = [point for point in curve if point[0] <= start]
    teacher = None if not before else _best(before) if keep == "best_dev" else before[-1]
    return {
        "generation": number,
        "steps": [start + 1, end],
        "score": own[-1][1],
        "best": list(_best(own)),
        "teacher": None if teacher is None else list(teacher),
    }


def _best(points: Sequence[tuple[int, float]]) -> tuple[int, float]:
    return max(points, key=lambda point: point[1])
