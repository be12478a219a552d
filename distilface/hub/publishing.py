"""Publishing a model folder: it is checked, scored again, shown and confirmed, then sent in one commit."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi, get_token

from distilface.hub.checks import RECORDS, publishable
from distilface.hub.preview import preview, read_card, score_again
from distilface.hub.repository import MAIN, State, differing, one_sentence, read_state
from distilface.hub.settings import PushSettings
from distilface.model.folder import Folder
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Names of files that are part of a model. The commit that replaces the weights deletes such a file from the Hub if the
#: folder no longer has it: it belongs to the older weights. Every other file there is left alone.
OURS = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*", "tf_model.h5", "flax_model.msgpack", "*.onnx"),
    *("*.gguf", "onnx/*", "openvino/*", ".eval_results/*", "[0-9]_*/*", "[0-9][0-9]_*/*", "modules.json"),
    *("config.json", "config_sentence_transformers.json", "sentence_*_config.json", "special_tokens_map.json"),
    *("tokenizer*", "added_tokens.json", "vocab.*", "merges.txt", "*.spm", "spiece.model", "sentencepiece*.model"),
    *RECORDS,
)
#: A ``.gitignore`` on the Hub would silently leave files out of the commit; the client reads this text in its place.
_NOTHING_IGNORED = "# every file of a model folder is kept\n"


@dataclass
class Publication:
    """One folder on its way to one branch.

    Attributes:
        settings: where to, and how.
        api: the Hub.
        additions: the files.
        fingerprint: of the model, for the commit's description.
        state: what is on the Hub; ``None`` where there is no such repository.
    """

    settings: PushSettings
    api: HfApi
    additions: list[CommitOperationAdd]
    fingerprint: str
    state: State | None = field(default=None)

    @property
    def url(self) -> str:
        """The page of the repository."""
        return f"{self.api.endpoint}/{self.settings.repo_id}"

    @property
    def deleted(self) -> list[str]:
        """The files on the Hub that were part of a model (:data:`OURS`) and are not part of this one."""
        names = {addition.path_in_repo for addition in self.additions}
        there = sorted(self.state.files) if self.state else []
        return [name for name in there if name not in names and any(fnmatch(name, pattern) for pattern in OURS)]

    def look(self) -> None:
        """Read what is on the Hub, and refuse a request that does not fit it."""
        settings = self.settings
        self.state = read_state(self.api, settings.repo_id, settings.revision)
        if self.state is None and settings.create_pr:
            raise InputError(
                f"there is no {settings.repo_id} to open a pull request on; leave --create-pr out to create it"
            )
        if self.state and settings.private and not self.state.private:
            raise InputError(
                f"{settings.repo_id} is there and is public; make it private in its settings on the Hub first"
            )

    def check_tags(self) -> None:
        """Refuse to move a tag: an existing tag must name the last commit, and nothing may change after it."""
        if not (self.state and self.settings.tag):
            return
        known = {tag.name: tag.target_commit for tag in self.api.list_repo_refs(self.settings.repo_id).tags}
        changes = bool(self.deleted or differing(self.state, self.additions))
        for tag in self.settings.tag:
            if tag in known and (changes or known[tag] != self.state.commit):
                raise InputError(f"the tag {tag} is of an older commit; name another, for users rely on it")

    def send(self) -> None:
        """Create the repository and the branch if missing, and upload the large files; the commit then shows them."""
        settings, api = self.settings, self.api
        if not settings.create_pr:
            api.create_repo(settings.repo_id, private=settings.private or None, exist_ok=True)
            if settings.revision != MAIN:
                api.create_branch(settings.repo_id, branch=settings.revision, exist_ok=True)
            self.look()
        if self.state is None:
            raise InputError(f"{settings.repo_id} was created and cannot be seen by this login; log in as its owner")
        api.preupload_lfs_files(
            settings.repo_id,
            self.additions,
            revision=settings.revision,
            create_pr=settings.create_pr,
            gitignore_content=_NOTHING_IGNORED,
        )

    def commit(self) -> CommitInfo:
        """Commit all files at once on top of the commit that :meth:`look` read; if nothing changes, return that one."""
        assert self.state is not None
        deletions = [CommitOperationDelete(name) for name in self.deleted]
        return self.api.create_commit(
            self.settings.repo_id,
            [*deletions, *self.additions],
            commit_message=self.settings.message,
            commit_description=f"Fingerprint of the model: {self.fingerprint}",
            revision=self.settings.revision,
            create_pr=self.settings.create_pr,
            parent_commit=self.state.commit,
        )

    def confirm(self, commit: str) -> None:
        """Refuse a commit that lacks files: a ``.gitignore`` on the Hub can leave some out."""
        after = read_state(self.api, self.settings.repo_id, self.settings.revision)
        if after and after.commit == commit and (lost := differing(after, self.additions)):
            raise InputError(
                f"the Hub has left {', '.join(lost)} out of {commit}, so that its files are not of one model; delete "
                f"that commit's branch or its .gitignore at {self.url}, and run it again"
            )


def push(
    settings: PushSettings, agree: Callable[[str], bool] = lambda question: True, api: HfApi | None = None
) -> dict[str, Any]:
    """Publish a model folder, or show what would be published.

    Args:
        settings: the folder, where to, and how; :func:`distilface.hub.checks.publishable` refuses what it may not hold.
        agree: called with a question after the preview; nothing is sent unless it returns ``True``.
        api: the Hub; ``None`` takes the environment's, with its own login.

    Returns:
        ``repo_id``, ``files`` (bytes by name), ``deleted``, ``score`` and, if it was published, ``commit`` and ``url``
        (of the commit, or of the pull request).

    Raises:
        InputError: on whatever must not or cannot be published; each message ends with what is on the Hub then.
    """
    settings.check()
    api, folder = api or HfApi(), Folder(Path(settings.folder))
    token = api.token if isinstance(api.token, str) else get_token()
    if token is None and not settings.dry_run:
        raise InputError("there is no login to the Hub; hf auth login makes one, with a token that may write")
    uploads = publishable(folder, token)
    logger.info(preview(folder, uploads, read_card(folder)))
    report: dict[str, Any] = {"repo_id": settings.repo_id, "files": {each.name: each.size for each in uploads}}
    report["score"] = score_again(folder)
    additions = [CommitOperationAdd(upload.name, upload.content) for upload in uploads]
    publication = Publication(settings, api, additions, folder.fingerprint)
    as_before = f"{settings.repo_id} is as it was before"
    try:
        with one_sentence(api.endpoint, as_before):
            publication.look()
    except InputError as error:
        if not settings.dry_run:
            raise
        logger.warning(f"what is on the Hub is not known: {error}")
        return report
    report["deleted"] = publication.deleted
    _show(publication)
    if settings.dry_run:
        logger.info("dry run: nothing was sent")
        return report
    with one_sentence(api.endpoint, as_before):
        publication.check_tags()
    if not agree(f"Publish {len(uploads)} files to {publication.url}?"):
        logger.info("nothing was sent")
        return report
    return report | _publish(publication, as_before)


def _publish(publication: Publication, as_before: str) -> dict[str, str]:
    """Send, commit, confirm and tag; return the commit and its address."""
    settings, endpoint = publication.settings, publication.api.endpoint
    try:
        with one_sentence(endpoint, as_before):
            publication.send()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{as_before}; run it again to publish") from None
    before = publication.state.commit if publication.state else None
    again = "open its pull requests before you" if settings.create_pr else "where it was made, the next run finds it:"
    with one_sentence(endpoint, f"at most this one commit was made; {again} run it again"):
        commit = publication.commit()
    if settings.create_pr:
        return {"commit": commit.oid, "url": str(commit.pr_url)}
    published = f"the model is published as {commit.oid}"
    with one_sentence(endpoint, published):
        publication.confirm(commit.oid)
        for tag in settings.tag:
            publication.api.create_tag(settings.repo_id, tag=tag, revision=commit.oid, exist_ok=True)
    if commit.oid == before:
        logger.info(f"nothing has changed since {publication.url}/commit/{before}")
    return {"commit": commit.oid, "url": f"{publication.url}/commit/{commit.oid}"}


def _show(publication: Publication) -> None:
    settings, state = publication.settings, publication.state
    if state is None:
        logger.info(f"{settings.repo_id}: a new repository")
        return
    visibility = "private" if state.private else "public"
    branch = "" if state.has_branch else f", {settings.revision} is new"
    logger.info(f"{settings.repo_id}: {visibility}, {len(state.files)} files at {state.commit[:12]}{branch}")
    for name in publication.deleted:
        logger.info(f"  deleted with the same commit: {name}")
