"""Text to try everything on without a network: a small STS set of our own, and the prose inside Python."""

import ast
import csv
import os
import random
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

from datasets import Dataset

from distilface.settings import InputError

_SKIPPED = {"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo", "pydoc_data"}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

_COMMENT = re.compile(r"( *)#+(?: |$)")
_BULLET = re.compile(r"\s*(?:[-*+•]|\(?\d{1,2}[.)]|[@:]\w+[^:]*:|\w+\s+--)\s+")
_CODE = re.compile(r"^\s*(?:>>>|\.\. |[$%|]|[=\-~*^+#\"'._]{3}|\w+ ?= ?\S)|::=|\s\|\s|\S {3,}\S")
_MARKUP = re.compile(r":\w+(?::\w+)?:(?=`)|(?<=`)[~!]|\s*<[^`>]*>(?=`)|`+_{0,2}|\*+(?=\w)|(?<=[^\W_])\*+|\s*\[\d+\]_?")
_HYPHENATED = re.compile(r"(?<=[a-z]-)\s+(?=[a-z])(?!(?:and|or|to)\b)")
_ABBREVIATION = r"(?<!\b[A-Z]\.)(?<!\b(?:cf|vs|Mr|Dr)\.)(?<!\b(?:[eE]\.g|[iI]\.e|etc)\.)(?<!\ba\.k\.a\.)"
_END = re.compile(rf"(?<=[.?!]){_ABBREVIATION}\s+")
_PROSE = re.compile(r"(?!.*::)[A-Z][\w ,;:'’‘“”\"()/.?!-]*[.?!]")


def sts_sample() -> Dataset:
    """Read the packaged sample: 180 English sentence pairs, scored 0 to 5 by the SemEval STS guide.

    They were written for this project and are for trying things out and for a development score that moves,
    not for reporting: one hand wrote and rated them. On purpose, many paraphrases share few words and many
    near-copies differ in meaning.

    >>> sts_sample().column_names
    ['sentence1', 'sentence2', 'score']
    """
    text = files(__name__).joinpath("sts.tsv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    return Dataset.from_dict(
        {
            "sentence1": [row["sentence1"] for row in rows],
            "sentence2": [row["sentence2"] for row in rows],
            "score": [float(row["score"]) for row in rows],
        }
    )


def _sources() -> list[Path]:
    """List the standard library's source files by name, without tests and third-party packages."""
    paths: list[Path] = []
    for folder, inner, names in os.walk(sysconfig.get_path("stdlib")):
        inner[:] = [name for name in inner if name not in _SKIPPED]
        paths += [Path(folder, name) for name in names if name.endswith(".py")]
    return sorted(paths, key=Path.as_posix)


def _docstrings(source: str) -> Iterator[str]:
    """Yield the docstrings of one module, parsed and never imported; none where it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes: list[ast.AST] = [ast.parse(source)]
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        nodes.extend(child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt))
        if isinstance(node, _DOCUMENTED):
            yield ast.get_docstring(node) or ""


def _comments(source: str) -> str:
    """Keep the comments that have a line to themselves; every other line becomes blank."""
    lines = source.splitlines()
    return "\n".join(_COMMENT.sub(r"\1", s, count=1) if _COMMENT.match(s) else "" for s in lines)


def _paragraphs(text: str) -> Iterator[str]:
    """Join the lines of one indentation; blank lines, list markers, code and tables separate them."""
    lines: list[str] = []
    column = 0
    for line in chain(text.expandtabs().splitlines(), [""]):
        bullet = _BULLET.match(line)
        start = bullet.end() if bullet else len(line) - len(line.lstrip())
        code = not line.strip() or _CODE.search(line)
        if lines and (code or bullet or start != column):
            yield " ".join(lines)
            lines = []
        if not code:
            column = start
            lines.append(line[start:])


def _is_prose(sentence: str) -> bool:
    """Return whether a text is a sentence, and not code, a table or a fragment; its quotes and brackets must close."""
    words, size = len(sentence.split()), len(sentence)
    if not (5 <= words <= 60 and 20 <= size <= 300 and _PROSE.fullmatch(sentence)):
        return False
    letters = sum(c.isalpha() or c == " " for c in sentence)
    closed = sentence.count("(") == sentence.count(")") and sentence.count('"') % 2 == 0
    return closed and letters >= 0.9 * size


def _sentences(text: str) -> Iterator[str]:
    """Yield the prose sentences of a text, clear of reST markup."""
    for paragraph in _paragraphs(text):
        plain = _HYPHENATED.sub("", " ".join(_MARKUP.sub("", paragraph).split()))
        yield from filter(_is_prose, _END.split(plain))


@lru_cache(maxsize=1)  # it takes seconds
def _prose(sources: tuple[Path, ...]) -> tuple[tuple[bool, tuple[str, ...]], ...]:
    """Return the sentences of each docstring, and of all comments of a file; of each, whether it is a docstring."""
    found = []
    for path in sources:
        source = path.read_text(encoding="utf-8", errors="replace")
        texts = [*((True, text) for text in _docstrings(source)), (False, _comments(source))]
        found += [(is_docstring, tuple(_sentences(text))) for is_docstring, text in texts]
    return tuple(found)


def python_search(limit: int | None = None) -> tuple[list[str], list[str]]:
    """Collect a search out of Python's docstrings: the first sentence of each is a query, the rest its document.

    Documents are of at least two sentences and 25 words. Seen: 1,095 on Python 3.11.

    Args:
        limit: the most queries to return, of the shuffled list; ``None`` takes them all.

    Returns:
        The queries, all different, and of each the document that answers it.
    """
    found: dict[str, str] = {}
    for is_docstring, (first, *rest) in ((kind, text or ("",)) for kind, text in _prose(tuple(_sources()))):
        if is_docstring and len(rest) >= 2 and len(" ".join(rest).split()) >= 25:
            found.setdefault(first, " ".join(rest))
    queries = list(found)
    random.Random(0).shuffle(queries)
    return queries[:limit], [found[query] for query in queries[:limit]]


def python_texts(limit: int | None = None) -> list[str]:
    """Collect the English sentences that every Python carries, in one fixed order for one Python version.

    They come from the help topics of ``pydoc`` and from the docstrings and comments of the standard library's
    source files, which are parsed, never imported. Seen: 17,000 sentences on
    Python 3.11 (16,000 as Debian packs it), 16,500 on 3.12 and 3.13, in about 4 s.

    Args:
        limit: the most sentences to return, of the shuffled list; ``None`` takes them all.

    Raises:
        InputError: if ``limit`` is less than 1.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}, must be at least 1, or None for every sentence")
    help_topics = (_sentences(topics[name]) for name in sorted(topics))
    prose = (text for _, text in _prose(tuple(_sources())))
    sentences = list(dict.fromkeys(chain.from_iterable(chain(help_topics, prose))))
    random.Random(0).shuffle(sentences)
    return sentences[:limit]
