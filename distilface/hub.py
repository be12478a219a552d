"""Files of Hub repositories, asked for once: one clear sentence where the Hub, or a thing on it, is not to be had."""

from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from distilface.settings import InputError, disk_is_full


def unreachable(what: str, remedy: str, error: BaseException) -> InputError:
    """One sentence for whatever a client raises when the Hub, or a thing on it, cannot be had."""
    return InputError(f"{what} could not be had from the Hub ({type(error).__name__}); {remedy}")


def from_hub(repo_id: str, repo_type: str, what: str, remedy: str, **patterns: Any) -> Path:
    """Return the folder of a Hub repository's files: fetched now, or from the cache where the Hub is not in reach.

    Libraries that load by id wait a minute and more for a dead Hub, in silence; this asks once.

    Args:
        repo_id: ``owner/name``.
        repo_type: ``model`` or ``dataset``.
        what: how a message calls it.
        remedy: what a message says to do.
        patterns: ``allow_patterns`` and ``ignore_patterns`` of :func:`huggingface_hub.snapshot_download`.

    Raises:
        InputError: if it is neither on the Hub nor in the cache.
    """
    try:
        return Path(snapshot_download(repo_id, repo_type=repo_type, **patterns))
    except Exception as error:
        if disk_is_full(error):
            raise
        absent = isinstance(error, LocalEntryNotFoundError)  # it was raised from what the Hub did
        raise unreachable(what, remedy, (error.__cause__ if absent else None) or error) from None
