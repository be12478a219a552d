"""Hooks of MkDocs: the README as the first page, files outside ``docs/`` that pages link to, docstrings as Markdown."""

import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
#: A relative link of Markdown: what is before its target, and the target without its anchor.
LINK = re.compile(r"(\]\()(?!https?://|#)([^)#\s]+)")
#: The first line of a block of code that is quoted from a file.
QUOTED = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)
#: A session of Python in a docstring, up to the next empty line; a name with its role, as Sphinx reads it.
SESSION = re.compile(r"^( *)>>> (?:.+\n?)+", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|data|attr|meth|mod):`~?([^`]+)`")


class MarkdownDocstrings(griffe.Extension):
    """Has sessions of Python shown as code and names without their roles: mkdocstrings reads docstrings as Markdown."""

    def on_object(self, *, obj: griffe.Object, **more: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            fenced = SESSION.sub(lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value)
            obj.docstring.value = ROLE.sub(r"`\1`", fenced)


def _targets(page: Path) -> list[str]:
    """Return the files outside ``docs/`` that a page links to, from the root of the repository."""
    links = (match[2] for match in LINK.finditer(page.read_text(encoding="utf-8")))
    targets = {(page.parent / link).resolve().relative_to(ROOT) for link in links}
    return sorted(target.as_posix() for target in targets if target.parts[0] != "docs")


def _in_site(target: str) -> str:
    """Return where a file of the repository lies in the site: a folder as its README, Markdown as text."""
    place = f"{target}/README.md" if (ROOT / target).is_dir() else target
    return f"files/{place}.txt" if place.endswith(".md") else f"files/{place}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the first page and what the pages link to."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    for target in sorted({target for page in pages for target in _targets(page)} - {"README.md"}):
        place = _in_site(target)
        source = ROOT / place.removeprefix("files/").removesuffix(".txt" if place.endswith(".md.txt") else "")
        if source.is_file():
            files.append(File.generated(config, place, content=source.read_bytes()))
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, as they are in the repository, into those of the site."""
    home = ROOT if page.file.src_uri == "index.md" else ROOT / "docs"

    def linked(match: re.Match[str]) -> str:
        target = (home / match[2]).resolve().relative_to(ROOT)
        if target == Path("README.md"):
            return f"{match[1]}index.md"
        inside = target.parts[0] == "docs"
        return match[1] + (target.relative_to("docs").as_posix() if inside else _in_site(target.as_posix()))

    return LINK.sub(linked, QUOTED.sub(r'```\1 title="\2"', markdown))
