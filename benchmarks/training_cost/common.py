"""The texts and the clock that both measurements use."""

import os
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from distilface.data.texts import read_texts
from distilface.settings import InputError


def read_sentences(data: list[str], steps: int, batch_size: int) -> Dataset:
    """Read the sentences of these steps, each once.

    Raises:
        InputError: if there are not enough.
    """
    count = steps * batch_size
    texts = read_texts(data, count)
    if len(texts) < count:
        raise InputError(f"{steps} steps of {batch_size} need {count} sentences and there are {len(texts)}")
    return texts


def seconds(work: Callable[..., Any], *arguments: Any) -> float:
    """Return how long the work takes; its own output is not shown."""
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere), redirect_stdout(nowhere):
        began = time.perf_counter()
        work(*arguments)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - began
