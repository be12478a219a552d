"""How a command shows its progress, and how it ends."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from distilface import processes
from distilface.settings import InputError
from distilface.storage import disk_is_full

#: Seconds after which a launcher has ended the other processes of a training where one has failed.
GRACE = 5.0


class _Console(logging.Handler):
    """Shows each message as a line of its own on stderr, above a progress bar that is drawn there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one message."""
        level = "warning: " if record.levelno >= logging.WARNING else ""
        tqdm.write(level + record.getMessage(), file=sys.stderr)


@contextmanager
def progress_shown() -> Iterator[None]:
    """Show, for a while, what the library logs from INFO on; after that its logger is as it was."""
    logger, handler = logging.getLogger("distilface"), _Console()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def duration(seconds: float) -> str:
    """Return a time as one says it.

    >>> duration(42), duration(400), duration(100_000)
    ('42 seconds', '7 minutes', '27.8 hours')
    """
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6_000 else f"{seconds / 3600:,.1f} hours"


def run_command(main: Callable[[], Any]) -> None:
    """Run a command's ``main`` and exit: one sentence and code 2 on a user's mistake, 130 on Ctrl-C.

    Of several processes that train together, the first one speaks. Another ends with a sentence only where the first
    has none: its launcher ends it at once where the first has failed.

    A full disk, whatever library meets it, is the user's matter too; any other failure keeps its traceback. The bars
    that transformers draws for every loading and saving of a model are off; the trainer's own stays.
    """
    disable_progress_bar()
    try:
        with progress_shown() if processes.is_first() else nullcontext():
            main()
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt as stop:
        if processes.is_first():
            print(f"\nstopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if processes.lost_another(error):
            _fail("another process of this training has ended; start them all again, with --resume")
        if not disk_is_full(error):
            raise
        place = getattr(error, "filename", None) or "while writing"
        _fail(f"the disk is full ({place}); free some space")


def _fail(message: str) -> NoReturn:
    """Say why a command cannot go on, and end with code 2."""
    if not processes.is_first():
        time.sleep(GRACE)
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def quiet_logger(name: str, level: int = logging.ERROR) -> Iterator[None]:
    """Keep a logger of another package from saying anything below a level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
