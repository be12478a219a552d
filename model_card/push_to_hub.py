"""Publish a model folder on the Hugging Face Hub: checked, scored again, shown, asked for, then one commit.

    hf auth login
    python model_card/push_to_hub.py --folder models/mine --repo-id org/distilface --dry-run
    python model_card/push_to_hub.py --folder models/mine --repo-id org/distilface --tag v1

It takes seconds and the time of the transfer, and ends in

    published: https://huggingface.co/org/distilface/commit/0123...

Weights and card are one commit: whatever fails, the repository is as it was before. A file on the Hub that was part of
the older model and is no part of this one (an export, a module) is deleted in the same commit; others stay.
"""

import sys
from dataclasses import dataclass
from typing import Any

from distilface.console import run_command
from distilface.hub.commit import MAIN
from distilface.hub.publishing import Request, publish
from distilface.settings import InputError, parse, setting


@dataclass
class Settings:
    """What publishing can be told."""

    folder: str = setting(help="the model folder")
    repo_id: str = setting(help="where to: owner/name")
    private: bool = setting(False, "create the repository as private")
    create_pr: bool = setting(False, "open a pull request, and leave main as it is")
    revision: str = setting(MAIN, "the branch to commit to; a new one is made of main")
    tag: list[str] = setting([], "names for what is published, as v1")
    message: str = setting(Request.message, "the commit's first line")
    dry_run: bool = setting(False, "show all, and send nothing")
    yes: bool = setting(False, "publish without asking")


def ask(question: str) -> bool:
    """Ask at the terminal; whatever is not yes is no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Publish a folder; return what was found and done."""
    settings = parse(Settings, argv, __doc__ or "")
    if not (settings.yes or settings.dry_run or sys.stdin.isatty()):
        raise InputError("there is no terminal to ask at; add --yes to publish, or --dry-run to look")
    request = Request(
        settings.repo_id,
        settings.private,
        settings.create_pr,
        settings.revision,
        settings.tag,
        settings.message,
        settings.dry_run,
    )
    return publish(settings.folder, request, (lambda question: True) if settings.yes else ask)


if __name__ == "__main__":
    run_command(main)
