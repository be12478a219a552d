"""The settings of publishing."""

from dataclasses import dataclass

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from distilface.hub.repository import MAIN
from distilface.settings import InputError, setting


@dataclass
class PushSettings:
    """distilface push FOLDER --repo-id OWNER/NAME: weights and card to the Hub, in one commit.

        hf auth login
        distilface push models/mine --repo-id org/distilface --dry-run
        distilface push models/mine --repo-id org/distilface --tag v1

    The folder is checked, scored again and shown first. Whatever fails, the message says what is on the Hub. A file on
    the Hub that was part of the older model and is not part of this one (an export, a module) is deleted in the same
    commit; others stay. detect-secrets finds API keys, which are not looked for here.
    """

    folder: str = setting("", "the model folder")
    repo_id: str = setting("", "where to: owner/name")
    private: bool = setting(False, "create the repository as private")
    create_pr: bool = setting(False, "open a pull request, and leave main as it is")
    revision: str = setting(MAIN, "the branch to commit to; a new one is made of main")
    tag: list[str] = setting([], "names for what is published, as v1")
    message: str = setting("Publish the model, weights and card together", "the commit's first line")
    dry_run: bool = setting(False, "show all, and send nothing")
    yes: bool = setting(False, "publish without asking")

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
        if self.create_pr and self.tag:
            raise InputError(f"--tag {self.tag[0]} names what is published; merge the pull request first")
