"""Checkpoints that are whole or not taken, a resume that is exact, and a stop that loses nothing."""

import errno
import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import rotate_checkpoints

from distilface import processes
from distilface.settings import InputError
from distilface.storage import write_whole

WHOLE = "whole.json"
PROGRESS = "progress.json"


def _sizes(folder: Path) -> dict[str, int]:
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != WHOLE)
    return {str(f.relative_to(folder)): f.stat().st_size for f in files}


def mark_whole(folder: Path) -> None:
    """Write, last of all, the file that tells a whole checkpoint from one whose writing was cut off."""
    write_whole(folder / WHOLE, _sizes(folder))


def is_whole(folder: Path) -> bool:
    """Return whether all files of a checkpoint are there in their full size."""
    try:
        return bool(json.loads((folder / WHOLE).read_text()) == _sizes(folder))
    except (OSError, ValueError):
        return False


def checkpoints(run_dir: Path) -> list[Path]:
    """List the checkpoints of a run, whole or not, the latest first."""
    folders = [f for f in run_dir.glob("checkpoint-*") if f.name.removeprefix("checkpoint-").isdecimal()]
    return sorted(folders, key=lambda f: int(f.name.removeprefix("checkpoint-")), reverse=True)


def last_whole(run_dir: Path) -> Path | None:
    """Return the latest whole checkpoint, or ``None``."""
    return next(filter(is_whole, checkpoints(run_dir)), None)


def drop_partial(run_dir: Path, whole: Path) -> None:
    """Delete the checkpoints later than the one that is resumed: they were cut off while being written."""
    folders = checkpoints(run_dir)
    for folder in folders[: folders.index(whole)]:
        shutil.rmtree(folder)


def _is_full(error: Exception, folder: Path) -> bool:
    """Return whether a write failed because the disk is full; torch's own writer has a message of its own for it."""
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error):
        return True
    return isinstance(error, RuntimeError) and shutil.disk_usage(folder.parent).free < 2**20


@contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Remove a half-written folder of a run; an earlier checkpoint stays, to go on from.

    Raises:
        InputError: if the disk is full.
    """
    try:
        yield
    except Exception as error:
        full = _is_full(error, folder)
        shutil.rmtree(folder, ignore_errors=True)
        if not full:
            raise
        remedy = "go on with --resume" if last_whole(folder.parent) else "start again"
        raise InputError(f"the disk is full: {what} cannot be written; free some space and {remedy}") from error


class WholeCheckpoints(Trainer):
    """Checkpoints that are whole or not taken, a resume that is exact, and a stop at the first NaN.

    Upstream forgets at a resume the losses since the last line of its log, and the time; and where a run's last
    checkpoint is resumed (its folder was never written) it makes one step more.

    Attributes:
        losses: the loss of each step since the last line of the log.
        earlier: seconds of training before the resume.
    """

    args: Any
    model: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[float] = []
        self.earlier, self.began = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of the training that led here, without what a kill threw away."""
        return self.earlier + time.monotonic() - self.began

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train to the end, or from a whole checkpoint on."""
        self.began = time.monotonic()
        try:
            return self._train(resume_from_checkpoint, *args, **kwargs)
        except BaseException:
            self.callback_handler.on_train_end(self.args, self.state, self.control)  # ends the line of the progress bar
            raise

    def _train(self, resume_from_checkpoint: Any, *args: Any, **kwargs: Any) -> Any:
        if resume_from_checkpoint is None:
            return super().train(None, *args, **kwargs)
        folder = Path(resume_from_checkpoint)
        progress = json.loads((folder / PROGRESS).read_text())
        self.losses, self.earlier = progress["losses"], progress["seconds"]
        state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
        if state.global_step < state.max_steps:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        self.state = state
        return self._load_from_checkpoint(state.best_model_checkpoint or resume_from_checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save, mark as whole, and only then delete older ones: at every moment one whole checkpoint exists."""
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if processes.is_first():
            shutil.rmtree(folder, ignore_errors=True)
        processes.wait()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with writing(folder, f"the checkpoint of step {self.state.global_step}"):
                super()._save_checkpoint(model, trial)
                processes.wait()  # each has written the state of its own random numbers
                if processes.is_first():
                    write_whole(folder / PROGRESS, {"losses": self.losses, "seconds": self.seconds})
                    mark_whole(folder)
        finally:
            self.args.save_total_limit = limit
        if processes.is_first():
            rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint)
        processes.wait()

    def _load_best_model(self) -> None:
        """Load the best checkpoint or fail; upstream logs an error and silently keeps the last weights."""
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Make one step; stop where the loss is not a number (upstream would average it away in the log)."""
        loss: torch.Tensor = super().training_step(*args, **kwargs)
        self.losses.append(processes.mean(loss.clone()).item())
        if not math.isfinite(self.losses[-1]):
            raise InputError(
                f"the loss is {self.losses[-1]} at step {self.state.global_step + 1}; lower the learning rate "
                f"(now {self.args.learning_rate:g}) or look for broken rows in the data"
            )
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the mean loss of all the steps since the last line, those before a resume included."""
        if "loss" in logs and self.losses:
            logs = {**logs, "loss": math.fsum(self.losses) / len(self.losses)}
            self.losses = []
        super().log(logs, *args, **kwargs)


class _StopAtStep(TrainerCallback):
    """Saves and stops at the end of the step in which a signal came."""

    def __init__(self) -> None:
        self.asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; a second one interrupts at once."""
        if self.asked:
            raise KeyboardInterrupt("interrupted before the step was saved")
        self.asked = True

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask the trainer for a checkpoint and an end; processes that train together end after the same step."""
        self.asked = processes.in_any(self.asked)
        if self.asked:
            control.should_save = control.should_training_stop = True
        return control


@contextmanager
def stoppable(trainer: Trainer) -> Iterator[_StopAtStep]:
    """Let Ctrl-C and SIGTERM end the training after the running step, with a checkpoint."""
    stop = _StopAtStep()
    trainer.add_callback(stop)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
