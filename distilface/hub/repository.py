"""What a Hub repository holds, how it differs from a folder, and one sentence for what its client raises."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile

from distilface.settings import InputError
from distilface.storage import disk_is_full

MAIN = "main"
#: The error of the HTTP library, which is httpx or httpx2 by the version of the client.
_HTTP_ERROR = cast(type[Exception], HfHubHTTPError.__bases__[0])


@dataclass(frozen=True)
class State:
    """What a repository holds on a branch.

    Attributes:
        commit: the branch's last commit.
        files: the files in it, by name.
        private: whether the repository is.
        has_branch: ``False`` where the branch is still to be made, of ``main``, whose commit and files these are.
    """

    commit: str
    files: dict[str, RepoFile]
    private: bool
    has_branch: bool = True


def read_state(api: HfApi, repo_id: str, branch: str) -> State | None:
    """Look at a branch; return ``None`` where there is no such repository, or none that this login may see."""
    try:
        head = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return None
    private, has_branch = bool(head.private), True
    if branch != MAIN:
        try:
            head = api.model_info(repo_id, revision=branch)
        except RevisionNotFoundError:
            has_branch = False
    entries = api.list_repo_tree(repo_id, recursive=True, revision=head.sha)
    files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    return State(str(head.sha), files, private, has_branch)


def differing(state: State, additions: Sequence[CommitOperationAdd]) -> list[str]:
    """Name the files that a repository does not have, or has with other content."""
    return [addition.path_in_repo for addition in additions if not _is_same(addition, state.files)]


def _is_same(addition: CommitOperationAdd, files: dict[str, RepoFile]) -> bool:
    there: Any = files.get(addition.path_in_repo)
    if there is None or there.size != addition.upload_info.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == addition.upload_info.sha256.hex())
    with addition.as_file() as file:
        content = file.read()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())


@contextmanager
def one_sentence(endpoint: str, outcome: str) -> Iterator[None]:
    """Turn what the client raises, after its own repetitions, into one sentence.

    Args:
        endpoint: the Hub's address.
        outcome: what is true of the repository after a failure.

    Raises:
        InputError: for what is the Hub's, the network's or the user's matter; a full disk stays what it is.
    """
    try:
        yield
    except (_HTTP_ERROR, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InputError) or disk_is_full(error):
            raise
        raise InputError(f"{_reason(error, endpoint)}; {outcome}") from None


def _reason(error: BaseException, endpoint: str) -> str:
    """Say what failed and what helps; never the address of a call, which may be signed."""
    if type(error) is RuntimeError and error.__cause__:  # the client's wrapping of a transfer
        error = error.__cause__
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that the Hub is not asked; unset it to publish"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        words = " ".join(str(getattr(error, "server_message", None) or "").split())
        words = f" (the Hub says: {words:.200})" if words else ""
        remedy = "log in with a token that may write (hf auth login)" if status in (401, 403, 404) else "run it again"
        return f"the Hub refuses with status {status}{words}; {remedy}"
    if isinstance(error, ValueError) and not isinstance(error, json.JSONDecodeError):
        return f"the Hub's library refuses: {' '.join(str(error).split()):.300}"
    return f"no answer came from the Hub at {endpoint} ({type(error).__name__}); look at the network and run it again"
