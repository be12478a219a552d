"""Writing to a Hub repository: one commit or none, repeated where that is safe, and one sentence where it fails.

huggingface-hub itself repeats the listing of files, the question which files are large, and their transfer, five
times each. It does not repeat what creates something, for the answer may be lost and the thing be there: here a
commit is repeated after a look at the branch, and never twice.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import RepoFile

from distilface.hub.errors import asked_wait, cause, passes, status_of, told
from distilface.settings import InputError

T = TypeVar("T")
#: Seconds before a call is repeated, for a Hub that does not say how long to wait.
WAITS = (1, 2, 4)
#: Seconds that are waited at most where the Hub asks for a pause.
LONGEST_WAIT = 60
MAIN = "main"
#: What a Hub's own ``.gitignore`` would leave out, without a word, is sent: this stands for it.
_NOTHING_IGNORED = "# every file of a model folder is kept\n"


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


@dataclass(frozen=True)
class Repository:
    """A model repository on the Hub, and the branch of it that is written to."""

    api: HfApi
    id: str
    branch: str = MAIN

    @property
    def url(self) -> str:
        """Its page."""
        return f"{self.api.endpoint}/{self.id}"

    def state(self) -> State | None:
        """Look at the branch; ``None`` where there is no such repository, or none that this login may see.

        Raises:
            InputError: if the Hub cannot be asked.
        """
        try:
            info = self._repeat(lambda: self.api.model_info(self.id))
        except RepositoryNotFoundError:
            return None
        head, has_branch = info, True
        if self.branch != MAIN:
            try:
                head = self._repeat(lambda: self.api.model_info(self.id, revision=self.branch))
            except RevisionNotFoundError:
                has_branch = False
        try:
            listed = list(self.api.list_repo_tree(self.id, recursive=True, revision=head.sha))
        except Exception as error:
            self.fail(error)
        files = {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}
        return State(str(head.sha), files, bool(info.private), has_branch)

    def tags(self) -> dict[str, str]:
        """Return the commit of each tag."""
        return {tag.name: tag.target_commit for tag in self._said(lambda: self.api.list_repo_refs(self.id)).tags}

    def create(self, private: bool) -> None:
        """Create the repository, and the branch, where they are not there; one that is there stays as it is.

        Args:
            private: that nobody else sees it; ``False`` leaves it to the account's own setting.
        """
        self._said(lambda: self.api.create_repo(self.id, private=private or None, exist_ok=True))
        if self.branch != MAIN:
            self._said(lambda: self.api.create_branch(self.id, branch=self.branch, exist_ok=True))

    def send(self, additions: list[CommitOperationAdd], create_pr: bool) -> None:
        """Transfer what the Hub stores as large files; none of it shows before the commit."""
        try:
            self.api.preupload_lfs_files(
                self.id, additions, revision=self.branch, create_pr=create_pr, gitignore_content=_NOTHING_IGNORED
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{self.id} is as it was before; run it again to publish") from None
        except Exception as error:
            self.fail(cause(error))

    def commit(
        self,
        additions: list[CommitOperationAdd],
        deletions: Sequence[CommitOperationDelete],
        words: tuple[str, str],
        parent: str,
        create_pr: bool,
    ) -> CommitInfo | str:
        """Commit all files at once on top of ``parent``, or open a pull request with them.

        Returns:
            The commit; its id alone where the answer was lost and a look at the branch found it.

        Raises:
            InputError: if it is refused, or the branch has moved on from ``parent``.
        """
        summary, description = words
        for wait in (*WAITS, None):
            try:
                return self.api.create_commit(
                    self.id,
                    [*deletions, *additions],
                    commit_message=summary,
                    commit_description=description,
                    revision=self.branch,
                    create_pr=create_pr,
                    parent_commit=parent,
                )
            except Exception as error:
                failure = error
            if create_pr and passes(failure) and status_of(failure) != 429:
                raise InputError(
                    f"{self._told(failure)}, and whether the pull request was opened is not known; look at "
                    f"{self.url}/discussions before you run it again"
                ) from None
            unsure = not create_pr and (passes(failure) or status_of(failure) in (409, 412))
            if unsure and (found := self._landed(failure, additions, parent)) is not None:
                return found
            self._pause(failure, wait)
        raise AssertionError("the last attempt returns or raises")

    def _landed(self, failure: Exception, additions: list[CommitOperationAdd], parent: str) -> str | None:
        """Return the commit that was made though its answer was lost; ``None`` if the branch is where it was."""
        try:
            now = self.state()
        except InputError as error:
            raise InputError(f"whether the commit was made is not known: {error}; run it again, it finds out") from None
        if now is None or now.commit == parent:
            return None
        if not differing(now, additions):
            return now.commit
        raise InputError(
            f"{self.id} was changed by somebody else meanwhile ({status_of(failure) or type(failure).__name__}), and "
            "nothing of this was published; run it again to see what would change now"
        )

    def tag(self, name: str, commit: str) -> None:
        """Tag a commit."""
        self._said(lambda: self.api.create_tag(self.id, tag=name, revision=commit, exist_ok=True))

    def _said(self, call: Callable[[], T]) -> T:
        """Make a call that may be repeated; what fails is a sentence."""
        try:
            return self._repeat(call)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            self.fail(error)

    def _repeat(self, call: Callable[[], T]) -> T:
        for wait in (*WAITS, None):
            try:
                return call()
            except (RepositoryNotFoundError, RevisionNotFoundError):
                raise
            except Exception as error:
                self._pause(error, wait)
        raise AssertionError("the last attempt returns or raises")

    def _pause(self, error: Exception, wait: int | None) -> None:
        """Wait before the next attempt, as long as the Hub asks; without one left, or any sense in it, fail."""
        seconds = wait if (asked := asked_wait(error)) is None else asked
        if wait is None or seconds is None or not passes(error) or seconds > LONGEST_WAIT:
            self.fail(error)
        time.sleep(seconds)

    def fail(self, error: BaseException) -> NoReturn:
        """Raise the sentence of what failed.

        Raises:
            InputError: for whatever is the user's, the Hub's or the network's matter.
        """
        raise InputError(f"{self._told(error)}; {self.id} is as it was before") from None

    def _told(self, error: BaseException) -> str:
        return told(error, self.id, self.branch, self.api.endpoint)


def differing(state: State, additions: Sequence[CommitOperationAdd]) -> list[str]:
    """Name the files that a repository has not, or otherwise than they are to be."""
    return [addition.path_in_repo for addition in additions if not _same(addition, state.files)]


def _same(addition: CommitOperationAdd, files: dict[str, RepoFile]) -> bool:
    there: Any = files.get(addition.path_in_repo)
    if there is None or there.size != addition.upload_info.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == addition.upload_info.sha256.hex())
    with addition.as_file() as file:
        content = file.read()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest())
