"""A model folder on the Hub: checked, scored again, shown, asked for, and then one commit of weights and card."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from distilface.hub.checks import RECORDS, Upload, publishable
from distilface.hub.commit import MAIN, Repository, State, differing
from distilface.hub.preview import read_card, score_again, show_files
from distilface.model.folder import Folder
from distilface.settings import InputError

#: Names of files that are part of a model. One on the Hub that the folder has no more is deleted with the commit that
#: replaces the weights: it would be of the older ones. Every other file there is left alone.
OURS = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "tf_model.h5", "flax_model.msgpack", "*.onnx"),
    *("*.gguf", "onnx/*", "openvino/*", ".eval_results/*", "[0-9]_*/*", "[0-9][0-9]_*/*", "modules.json"),
    *("config.json", "config_sentence_transformers.json", "sentence_*_config.json", "special_tokens_map.json"),
    *("tokenizer*", "added_tokens.json", "vocab.*", "merges.txt", "*.spm", "spiece.model", "sentencepiece*.model"),
    *RECORDS,
)


@dataclass(frozen=True)
class Request:
    """Where to publish, and how.

    Attributes:
        repo_id: ``owner/name``.
        private: create the repository as private.
        create_pr: open a pull request, and leave ``main`` as it is.
        revision: the branch to commit to, made of ``main`` where it is not there.
        tags: names for the commit.
        message: the commit's first line.
        dry_run: look, show, and send nothing.
    """

    repo_id: str
    private: bool = False
    create_pr: bool = False
    revision: str = MAIN
    tags: Sequence[str] = ()
    message: str = "Publish the model, weights and card together"
    dry_run: bool = False

    def check(self) -> None:
        """Refuse what cannot be published so.

        Raises:
            InputError: with the remedy.
        """
        try:
            validate_repo_id(self.repo_id)
        except HFValidationError as error:
            raise InputError(f"--repo-id {self.repo_id!r}: {' '.join(str(error).split())}") from None
        if self.repo_id.count("/") != 1:
            raise InputError(f"--repo-id {self.repo_id!r} names no owner; give owner/name")
        if self.create_pr and self.revision != MAIN:
            raise InputError(f"a pull request is opened on main, not on {self.revision}; leave one of them out")
        if self.create_pr and self.tags:
            raise InputError(f"--tag {self.tags[0]} names what is published; merge the pull request first")


def publish(path: str | Path, request: Request, agree: Callable[[str], bool], api: HfApi | None = None) -> dict:
    """Publish a model folder, or show what would be.

    Args:
        path: a model folder (:func:`distilface.hub.checks.publishable` says what it may not hold).
        request: where to, and how.
        agree: is given the question when all is shown; nothing is sent unless it returns ``True``.
        api: the Hub; ``None`` takes the environment's, with its own login.

    Returns:
        ``repo_id``, ``files`` (bytes by name), ``deleted``, ``score`` and, if it was published, ``commit`` and ``url``
        (of the commit, or of the pull request).

    Raises:
        InputError: on whatever must not or cannot be published; the repository is then as it was before.
    """
    request.check()
    api, folder = api or HfApi(), Folder(Path(path))
    token = api.token if isinstance(api.token, str) else get_token()
    if token is None and not request.dry_run:
        raise InputError("there is no login to the Hub; hf auth login makes one, with a token that may write")
    uploads = publishable(folder, token)
    card = read_card(folder)
    show_files(folder, uploads, card)
    found: dict[str, Any] = {"repo_id": request.repo_id, "files": {upload.name: upload.size for upload in uploads}}
    found["score"] = score_again(folder)
    repository = Repository(api, request.repo_id, request.revision)
    try:
        state = repository.state()
    except InputError as error:
        if not request.dry_run:
            raise
        print(f"warning: what is on the Hub is not known: {error}", file=sys.stderr)
        return found
    _check_fits(request, state)
    found["deleted"] = stale(state, uploads)
    additions = [CommitOperationAdd(upload.name, upload.content) for upload in uploads]
    if state and request.tags and not request.dry_run:
        _check_tags(repository, request, state, bool(found["deleted"] or differing(state, additions)))
    _show_repository(repository, state, found["deleted"])
    if request.dry_run:
        print("dry run: nothing was sent")
    elif agree(f"Publish {len(uploads)} files to {repository.url}?"):
        found |= _send(repository, request, additions, found["deleted"], folder.fingerprint)
    else:
        print("nothing was sent")
    return found


def stale(state: State | None, uploads: Sequence[Upload]) -> list[str]:
    """Name the files on the Hub that were part of a model (:data:`OURS`) and are no part of this one."""
    names = {upload.name for upload in uploads}
    there = sorted(state.files) if state else []
    return [name for name in there if name not in names and any(fnmatch(name, pattern) for pattern in OURS)]


def _check_fits(request: Request, state: State | None) -> None:
    """Refuse a request that does not fit what is on the Hub."""
    if state is None and request.create_pr:
        raise InputError(f"there is no {request.repo_id} to open a pull request on; leave --create-pr out to create it")
    if state and request.private and not state.private:
        raise InputError(f"{request.repo_id} is there and is public; make it private in its settings on the Hub first")


def _check_tags(repository: Repository, request: Request, state: State, changes: bool) -> None:
    """Refuse to move a tag: one that is there must be of the very commit that stays, for nothing changes."""
    known = repository.tags()
    if taken := [tag for tag in request.tags if tag in known and (changes or known[tag] != state.commit)]:
        raise InputError(f"the tag {taken[0]} is of an older commit; name another, for users rely on it")


def _send(
    repository: Repository,
    request: Request,
    additions: list[CommitOperationAdd],
    deleted: Sequence[str],
    fingerprint: str,
) -> dict[str, str]:
    """Create what is not there, send the files, commit them, tag the commit."""
    if not request.create_pr:
        repository.create(request.private)
    state = repository.state()
    if state is None:
        raise InputError(f"{request.repo_id} was created and cannot be seen by this login; log in as its owner")
    deletions = [CommitOperationDelete(name) for name in deleted if name in state.files]
    words = (request.message, f"Fingerprint of the model: {fingerprint}")
    repository.send(additions, request.create_pr)
    commit = repository.commit(additions, deletions, words, state.commit, request.create_pr)
    if request.create_pr and isinstance(commit, CommitInfo):
        print(f"pull request: {commit.pr_url}")
        return {"commit": commit.oid, "url": str(commit.pr_url)}
    oid = commit.oid if isinstance(commit, CommitInfo) else commit
    _confirm(repository, additions, oid)
    for name in request.tags:
        _tag(repository, name, oid)
    url = f"{repository.url}/commit/{oid}"
    print(f"nothing has changed since {url}" if oid == state.commit else f"published: {url}")
    return {"commit": oid, "url": url}


def _confirm(repository: Repository, additions: list[CommitOperationAdd], oid: str) -> None:
    after = repository.state()
    if after and after.commit == oid and (lost := differing(after, additions)):
        raise InputError(
            f"the Hub has left {', '.join(lost)} out of {oid}, so that its files are not of one model; delete that "
            f"commit's branch or its .gitignore at {repository.url}, and run it again"
        )


def _tag(repository: Repository, name: str, oid: str) -> None:
    try:
        repository.tag(name, oid)
    except InputError as error:
        problem = str(error).rpartition("; ")[0]
        raise InputError(f"the model is published as {oid}, and the tag {name} is not set: {problem}") from None


def _show_repository(repository: Repository, state: State | None, deleted: Sequence[str]) -> None:
    if state is None:
        print(f"{repository.id}: a new repository")
        return
    seen, branch = "private" if state.private else "public", "" if state.has_branch else f", {repository.branch} is new"
    print(f"{repository.id}: {seen}, {len(state.files)} files at {state.commit[:12]}{branch}")
    for name in deleted:
        print(f"  deleted with the same commit: {name}")
