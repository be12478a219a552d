"""The processes of one training, as ``accelerate launch`` and ``torchrun`` start them: which is this, who waits.

Both launchers put ``RANK``, ``LOCAL_RANK`` and ``WORLD_SIZE`` into the environment of every process. Without them a
training is one process, and nothing here does anything.
"""

import os
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

T = TypeVar("T")

#: The first process may train a vocabulary or embed text for hours while the others wait: by default they would give up
#: after half an hour. One that dies is noticed at once all the same, for its connections close.
PATIENCE = timedelta(days=30)


def count() -> int:
    """Return how many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1)) if "LOCAL_RANK" in os.environ else 1


def index() -> int:
    """Return which of them this is, from 0."""
    return int(os.environ.get("RANK", 0)) if count() > 1 else 0


def is_first() -> bool:
    """Return whether this process writes, scores and prints; the only one does."""
    return index() == 0


def join() -> None:
    """Meet the other processes; where there are any, this comes before everything else here."""
    if count() > 1:
        PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def wait() -> None:
    """Wait until every process has come here."""
    if count() > 1:
        PartialState().wait_for_everyone()


def from_first(work: Callable[[], T]) -> T:
    """Return what ``work`` gives in the first process; the others wait for it, and end with its error.

    Args:
        work: gives what can be pickled.

    Raises:
        Exception: of ``work``, in every process.
    """
    if count() == 1:
        return work()
    answer: list[tuple[T | None, Exception | None]] = [(None, None)]
    if is_first():
        try:
            answer = [(work(), None)]
        except Exception as error:
            broadcast_object_list([(None, error)])
            raise
    [(value, failure)] = broadcast_object_list(answer)
    if failure is not None:
        raise failure
    return value  # type: ignore[no-any-return]


def first_then_others(work: Callable[[], T]) -> T:
    """Return what ``work`` gives in each process; the others do it after the first, with what it has left on disk."""
    if count() == 1:
        return work()
    with PartialState().main_process_first():
        return work()


def lost_another(error: Exception) -> bool:
    """Return whether an error says that another process is gone, to which this one was connected."""
    return count() > 1 and isinstance(error, RuntimeError) and "onnection" in str(error)


def in_any(flag: bool) -> bool:
    """Return whether a flag is set in any process."""
    if count() == 1:
        return flag
    state = PartialState()
    votes = torch.tensor(float(flag), device=state.device)
    torch.distributed.all_reduce(votes, torch.distributed.ReduceOp.MAX)
    return bool(votes)


def mean(value: torch.Tensor) -> torch.Tensor:
    """Return the mean of a tensor over the processes; shape, place and type stay."""
    if count() > 1:
        torch.distributed.all_reduce(value)
        value /= count()
    return value


def share_gradients(weights: Iterable[torch.Tensor]) -> None:
    """Have the processes share the gradients of weights as they come; torch does so in the student's own passes."""
    if count() > 1:
        for weight in weights:
            weight.register_hook(lambda gradient: mean(gradient.clone()))
