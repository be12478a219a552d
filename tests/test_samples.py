"""The packaged samples: rated pairs that word overlap does not solve, and clean prose out of Python."""

import ast
import re
import sysconfig
from importlib.resources import files
from pathlib import Path
from textwrap import dedent

import pytest
from scipy.stats import spearmanr

from distilface.data import samples
from distilface.data.samples import python_texts, sts_sample
from distilface.settings import InputError


@pytest.fixture(scope="module")
def pairs():
    return sts_sample()


@pytest.fixture(scope="module")
def texts():
    return python_texts()


def test_sample_file_is_plain_tsv():
    """A quote character would be silent: csv and a split on tabs would read different sentences."""
    raw = files(samples).joinpath("sts.tsv").read_text(encoding="utf-8")
    header, *rows = raw.removesuffix("\n").split("\n")
    assert header == "score\tsentence1\tsentence2"
    assert len(rows) == 180
    assert all(re.fullmatch(r"[0-5]\.[02468]\t[^\t]+\t[^\t]+", row) for row in rows)
    assert raw.isascii()
    assert '"' not in raw


def test_the_sample_is_evenly_scored_and_uses_a_sentence_once(pairs):
    assert pairs.column_names == ["sentence1", "sentence2", "score"]
    assert pairs.features["score"].dtype == "float64"
    assert (min(pairs["score"]), max(pairs["score"])) == (0.0, 5.0)
    for low in range(5):
        count = sum(low <= score < low + 1 or score == low + 1 == 5 for score in pairs["score"])
        assert 30 <= count <= 42, f"{count} pairs from {low} to {low + 1}"
    sentences = [*pairs["sentence1"], *pairs["sentence2"]]
    assert len({s.casefold() for s in sentences}) == 360
    for sentence in sentences:
        assert 5 <= len(sentence.split()) <= 30, sentence
        assert re.fullmatch(r"[A-Z].*[.?!]", sentence), sentence
        assert sentence == " ".join(sentence.split())


def test_word_overlap_does_not_solve_the_sample(pairs):
    """If counting shared words ranked the pairs, a score on them would say nothing about meaning."""
    overlaps = []
    for one, two in zip(pairs["sentence1"], pairs["sentence2"], strict=True):
        a, b = (set(re.findall(r"\w+", s.lower())) for s in (one, two))
        overlaps.append(len(a & b) / len(a | b))
    assert 0.2 < spearmanr(overlaps, pairs["score"]).statistic < 0.5


def test_python_texts_are_many_distinct_and_prose(texts):
    assert len(texts) >= 15_000
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert 5 <= len(text.split()) <= 60, text
        assert 20 <= len(text) <= 300, text
        assert text[0].isupper(), text
        assert text[-1] in ".?!", text
        assert sum(c.isalpha() or c == " " for c in text) >= 0.9 * len(text), text
        assert text == " ".join(text.split())


def test_python_texts_hold_no_code(texts):
    """Code among the sentences would be silent: a student trains on it as on anything."""
    for text in texts:
        assert not re.search(r">>>|[=<>{}\[\]|\\`*@#$%^&~]|::", text), text
        with pytest.raises(SyntaxError):
            ast.parse(text)


def test_python_texts_come_in_one_order(monkeypatch):
    """A folder lists its files in an order of its own: silent, and no two machines would agree."""
    sources = samples._sources()
    assert sources == sorted(sources, key=Path.as_posix)
    monkeypatch.setattr(samples, "_sources", lambda: sources[:20])
    texts = python_texts()
    assert python_texts() == texts != sorted(texts)
    assert python_texts(limit=200) == texts[:200]
    with pytest.raises(InputError, match="limit is 0, must be at least 1"):
        python_texts(limit=0)


def test_sources_leave_out_tests_and_third_parties():
    root = sysconfig.get_path("stdlib")
    folders = {part for path in samples._sources() for part in path.relative_to(root).parts}
    assert folders.isdisjoint({"test", "tests", "site-packages", "idlelib", "lib2to3", "turtledemo"})


def test_sentences_leave_markup_code_and_tables_behind():
    text = """\
        Heading of a page
        =================

        Call :func:`~os.path.join` with *two* of the ``parts``, e.g. a folder and a well-
        known name.  See `the guide <https://example.org>`_ for more [1]_.

        >>> join("a", "b")
        'a/b'

            x = the_value_of(some, code)  # This comment is a part of the code.

        ====  ==================
        name  Meaning of a name.
        ====  ==================

        * A first item runs over
          two lines of text.
        * A second item has a value == 3 in it.
        """
    assert list(samples._sentences(dedent(text))) == [
        "Call os.path.join with two of the parts, e.g. a folder and a well-known name.",
        "See the guide for more.",
        "A first item runs over two lines of text.",
    ]


def test_docstrings_are_parsed_and_not_run():
    source = '"Module."\nraise SystemExit\nclass A:\n    "Class."\n    def f(self):\n        "Method."\n'
    assert [s for s in samples._docstrings(source) if s] == ["Module.", "Class.", "Method."]
    assert list(samples._docstrings("not python at all")) == []
