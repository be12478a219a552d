"""The README and the docs: their links, their length, their commands and the code that they quote."""

import ast
import importlib.util
import inspect
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields
from functools import partial
from pathlib import Path

import nbformat
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from nbclient import NotebookClient
from tiny import needs_package

import distilface
from distilface import cli
from distilface.methods import find_method
from distilface.settings import parse

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "demo/README.md", "examples/cluster/README.md")),
    *(ROOT / "docs").glob("*.md"),
]
BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
#: What a stranger puts in: nothing to look up.
PLACEHOLDERS = ("METHOD", "RECIPE")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Return the code blocks of a language, each with what follows the language's name."""
    matches = [(info.partition(" "), code) for info, code in BLOCK.findall(page.read_text(encoding="utf-8"))]
    return [(rest, code) for (name, _, rest), code in matches if name == language]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_leads_to_a_file(page):
    links = re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", page.read_text(encoding="utf-8")))
    for link in (link for link in links if not link.startswith("https://")):
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_pages_build_without_a_warning(tmp_path, monkeypatch):
    """As ``make docs``: a link that leads nowhere in the site, or a docstring that cannot be read, would stop it."""
    monkeypatch.chdir(ROOT)
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = {page.parent.name for page in (tmp_path / "site").glob("*/index.html")}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} <= pages
    functions = (tmp_path / "site" / "reference" / "index.html").read_text(encoding="utf-8")
    assert all(f'id="distilface.api.{name}"' in functions for name in distilface.__all__)
    assert "<blockquote>" not in functions, "a session of Python is code"
    assert ":func:" not in functions
    method = (tmp_path / "site" / "writing-a-method" / "index.html").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", (ROOT / "docs" / "writing-a-method.md").read_text(), re.MULTILINE)
    assert all(re.search(rf"<h2[^>]*>{re.escape(heading)}<", method) for heading in headings), "none is inside code"
    evidence = tmp_path / "site" / "files" / "benchmarks" / "results" / "speed.json"
    assert evidence.read_bytes() == (ROOT / "benchmarks/results/speed.json").read_bytes()


def test_every_recipe_stands_in_the_table_of_recipes():
    shipped = {file.name for file in (ROOT / "distilface" / "recipes").glob("*.yaml")}
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[[\w-]+\]\(\.\./distilface/recipes/([\w-]+\.yaml)\) \|", text, re.MULTILINE)
    assert sorted(rows) == sorted(shipped)


def test_the_readme_is_short_and_begins_with_code():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 600 <= len(text.split()) <= 1200
    assert "\n```" in "\n".join(text.splitlines()[:40])


@needs_package
@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """Every cell, in a kernel of its own; its pictures are there, as they are in the copy that people read."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    kept = nbformat.read(ROOT / "examples" / "quickstart.ipynb", as_version=4)
    fresh = NotebookClient(deepcopy(kept), timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    first = [next(cell for cell in notebook.cells if cell.get("outputs")).outputs for notebook in (kept, fresh)]
    assert first[0] == first[1], "the shipped model's own similarities"
    for notebook in (kept, fresh):
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
        assert not [output for output in outputs if output.output_type == "error"]
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        assert "Trams run every ten minutes." in printed
        assert printed.count("passes") == 2
        before, after = map(float, re.search(r"found: ([\d.]+)% -> ([\d.]+)%", printed).groups())
        assert after > before + 5
        assert str(Path.home()) not in json.dumps(outputs)


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in a page's code blocks, and of our own commands in its sentences."""
    lines = [line for _, code in blocks(page, "bash") for line in code.replace("\\\n", "").splitlines()]
    own = r"`(distilface [a-z][^`]*|python (?:-m )?(?:training|benchmarks|model_card)[/.][^`]*)`"
    lines += re.findall(own, BLOCK.sub("", page.read_text(encoding="utf-8")))
    for line in lines:
        yield from (shlex.split(part, comments=True) for part in line.split("&&"))


def help_of(program: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what ``--help`` of a verb or a script shows, its options spelled with dashes."""
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    monkeypatch.setattr(sys, "argv", [program[1], "--help"])
    script = partial(runpy.run_path, program[1], run_name="__main__")
    show = script if program[0] == "python" else partial(cli.run, sys.argv)
    with pytest.raises(SystemExit) as leave:
        show()
    assert leave.value.code == 0
    return re.sub(r"--\w+", lambda option: option[0].replace("_", "-"), capsys.readouterr().out)


def check_training(name: str, words: list[str]) -> None:
    """Make sure that a method, its recipe and its options exist; an unknown one raises."""
    if name not in PLACEHOLDERS:
        parse(find_method(name).Settings, [word for word in words if word != "--help"], "")


@each_page
def test_every_command_exists(page, monkeypatch, capsys):
    """A verb, a script, a method, a recipe or an option of another name would be a stranger's first failure."""
    monkeypatch.chdir(ROOT)
    for program, *words in filter(None, commands(page)):
        if program == "make":
            targets = [word for word in words if "=" not in word]
            assert all(re.search(rf"^{target}:", Path("Makefile").read_text(), re.MULTILINE) for target in targets)
        if program not in ("distilface", "python") or not words:
            continue
        first, *rest = words
        if first == "-m":
            assert importlib.util.find_spec(rest[0]), rest[0]
            continue
        assert program == "distilface" or Path(first).is_file(), first
        if (program, first) == ("distilface", "train") and rest:
            check_training(rest[0], rest[1:])
        elif first.startswith("training/train_"):
            check_training(Path(first).stem.removeprefix("train_"), rest)
        elif rest:
            own, _, training = " ".join(rest).partition(" -- ")
            shown = help_of([program, first], monkeypatch, capsys)
            for option in re.findall(r"(?<!\S)--[\w-]+", own):
                assert re.search(rf"{option.replace('_', '-')}(?![\w-])", shown), option
            if training:
                script = rest[rest.index("--script") + 1]
                check_training(Path(script).stem.removeprefix("train_"), training.split())
        else:
            assert program == "python" or first in cli.VERBS, first


@each_page
def test_python_in_the_docs_calls_what_exists(page):
    for code in (code for file, code in blocks(page, "python") if not file):
        for call in (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)):
            name = ast.unparse(call.func)
            if name.startswith("distilface."):
                function = getattr(distilface, name.removeprefix("distilface."))
                named = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
                inspect.signature(function).bind(*call.args, **named)
                if function is distilface.train:
                    method = find_method(ast.literal_eval(call.args[0]))
                    known = {"config", *(field.name for field in fields(method.Settings))}
                    assert set(named) <= known
                    check_training(method.name, ["--config", named["config"]] if "config" in named else [])


@each_page
def test_quoted_code_stands_in_its_file(page):
    """A block that names a file after its language is quoted from it, at any indentation."""
    quoted = [block for language in ("python", "yaml") for block in blocks(page, language) if block[0]]
    for file, code in quoted:
        lines = [rf"\1{re.escape(line)}" if line else "" for line in code.splitlines()]
        pattern = "^( *)" + "\n".join(lines).removeprefix(r"\1")
        assert re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}:\n{code}"
