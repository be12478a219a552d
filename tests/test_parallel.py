"""Parallel text: what is read, what is dropped or named, the draws, and the line of every mistake."""

import json
import logging
from collections import Counter
from pathlib import Path

import pytest
from refusals import refusal
from tiny import write_content

from distilface.data.parallel import held_out_split, language_of, read_parallel, sentences
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def write(file: Path, rows: list[tuple[str, str]]) -> Path:
    return write_content(file, "".join(f"{english}\t{other}\n" for english, other in rows))


def numbered(language: str, count: int) -> list[tuple[str, str]]:
    return [(f"sentence {i}", f"{language} {i}") for i in range(count)]


def test_what_is_read(tmp_path):
    tsv = write(tmp_path / "a.en-de.tsv.gz", [(" A dog. ", "Ein Hund."), ("A cat.", 'Eine "Katze".')])
    csv = write_content(tmp_path / "b.en-zh.csv", 'english,other\n"A dog, small.",小狗。\n')
    row = json.dumps({"english": "A dog.", "other": "Um cão.", "more": 1})
    jsonl = write_content(tmp_path / "news.2020.en-pt_BR.jsonl", row + "\n\n")
    pairs = read_parallel([tsv, str(csv), jsonl])
    named = write_content(tmp_path / "c.en-de.csv", "src,trg\na dog,ein Hund\na cat,eine Katze\n")
    assert read_parallel([named], columns=("src", "trg"))["other"][:] == ["ein Hund", "eine Katze"]
    assert pairs.to_list() == [
        {"english": "A dog.", "other": "Ein Hund.", "language": "de"},
        {"english": "A cat.", "other": 'Eine "Katze".', "language": "de"},
        {"english": "A dog, small.", "other": "小狗。", "language": "zh"},
        {"english": "A dog.", "other": "Um cão.", "language": "pt_BR"},
    ]
    assert sentences(pairs)["text"][:] == [*pairs["english"], *pairs["other"]]


def test_a_pair_comes_once(tmp_path):
    one = write(tmp_path / "a.en-de.tsv", [("OK", "OK"), ("OK", "Gut"), ("OK", "OK")])
    two = write(tmp_path / "b.en-de.tsv", [("OK", "Gut")])
    three = write(tmp_path / "b.en-fr.tsv", [("OK", "OK")])
    pairs = read_parallel([one, two, three])
    assert [tuple(row.values()) for row in pairs] == [("OK", "OK", "de"), ("OK", "Gut", "de"), ("OK", "OK", "fr")]


def test_long_pairs_and_pairs_of_very_different_lengths(tmp_path, caplog):
    """A shifted file is otherwise learned from in silence. Chinese says in a character what English does in three."""
    rows = [("a" * 250, "b" * 250), ("a" * 251, "b" * 250), ("a" * 250, "b" * 251), ("a", "b")]
    assert len(read_parallel([write(tmp_path / "a.en-de.tsv", rows)])) == 2
    assert "2 of 4 pairs have a side over 250 characters: dropped" in caplog.messages
    rows = [
        ("Yes.", "Ja, " * 5),  # 20 bytes to 4: five times as long, but short
        ("x" * 30, "y" * 120),  # four times as long
        ("x" * 90, "字" * 18),  # five times as many characters, under twice the bytes
        ("x" * 30, "y" * 121),
        ("x" * 150, "字"),
    ]
    file = write(tmp_path / "a.en-zh.tsv", rows)
    assert len(read_parallel([file])) == 5
    said = f"2 pairs are of very different lengths, the first in {file}, line 4"
    assert ("distilface.data.parallel", logging.WARNING, said) in caplog.record_tuples


def test_a_changed_file_is_read_again(tmp_path):
    """The data sets library keeps what it has read; by its arguments the file would be the same."""
    file = write(tmp_path / "a.en-de.tsv", [("a", "b"), ("c", "d")])
    assert read_parallel([file])["other"][:] == ["b", "d"]
    write(file, [("a", "x"), ("c", "d")])
    assert read_parallel([file])["other"][:] == ["x", "d"]


def test_the_draw_is_equal_over_languages(tmp_path):
    counts = {"de": 100, "fr": 5, "ja": 60}
    files = [write(tmp_path / f"a.en-{name}.tsv", numbered(name, count)) for name, count in counts.items()]
    pairs = read_parallel(files, max_pairs=45)
    assert Counter(pairs["language"]) == {"de": 20, "fr": 5, "ja": 20}
    assert pairs.to_list() == read_parallel(files, max_pairs=45).to_list()
    other = read_parallel(files, max_pairs=45, seed=1)
    assert other["other"][:] != pairs["other"][:]
    assert pairs["english"][:20] != [f"sentence {i}" for i in range(20)]
    assert len(read_parallel(files, max_pairs=1000)) == 165


def test_no_held_out_sentence_is_trained_on(tmp_path):
    """The same English sentence stands beside several languages: held out by row, it would be seen in another."""
    files = [write(tmp_path / f"a.en-{name}.tsv", numbered(name, n)) for name, n in (("de", 100), ("fr", 50))]
    train, held_out = held_out_split(read_parallel(files), 8)
    assert Counter(held_out["language"]) == {"de": 8, "fr": 5}
    assert not set(train["english"]) & set(held_out["english"])
    gone = set(held_out["english"])
    assert len(train) == 150 - sum(int(row[0] in gone) for n in (100, 50) for row in numbered("", n))
    with pytest.raises(InputError, match=r"cannot be split \(0 held out"):
        held_out_split(train.select(range(9)), 8)


def test_no_held_out_sentence_of_the_other_side_is_trained_on(tmp_path):
    """One translation stands beside several sentences: a held-out pair would be known by its other half."""
    file = write(tmp_path / "a.en-de.tsv", [(f"thanks {i}", f"danke {i // 3}") for i in range(90)])
    other = write(tmp_path / "a.en-fr.tsv", [(f"merci {i}", f"danke {i}") for i in range(90)])
    train, held_out = held_out_split(read_parallel([file, other]), 8)
    sides = [set(zip(part["language"], part["other"], strict=True)) for part in (train, held_out)]
    assert not sides[0] & sides[1]
    assert len(train) + len(held_out) < 180, "the sisters of a held-out pair are in neither"
    assert len(train) > 140, "the same words of another language stay"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.en-de.csv", b"english,other\nA dog, small, runs.,Ein Hund.\n", "line 2: 4 columns, and the header has 2"),
        ("a.en-de.tsv", b"a\tb\nc\t\n", r"a\.en-de\.tsv, line 2: the other side is empty"),
        ("a.en-de.tsv", b"a\tb\n \tb\n", "line 2: the English side is empty"),
        ("a.en-de.tsv", b"a\tb\n\nc\n", "line 3: 1 columns; English and the other side, by one tab"),
        ("a.en-de.tsv", b"a\tb\tc\n", "line 1: 3 columns"),
        ("a.en-de.tsv", "a\tb\nc\tä\n".encode("latin-1"), "line 2: byte 0xe4 is not UTF-8"),
        ("a.en-de.tsv.gz", b"a\tb\n", "is a broken gzip file"),
        ("a.en-de.tsv", b"", "holds no pair"),
        ("a.en-de.tsv", b"a\tb\n", "1 pairs to train on"),
        ("a.en-de.csv", b"english,german\na,b\n", "line 2: no column 'other'; found english, german"),
        ("a.en-de.csv", b"english,other\na,b\nc,\n", "line 3: the other side is empty"),
        ("a.en-de.jsonl", b'{"english": "a", "other": "b"}\n{"english": "a"}\n', "line 2: no column 'other'"),
        ("a.en-de.jsonl", b'{"english": "a", "other": 3}\n', "line 1: 3 is not text"),
        ("a.en-de.jsonl", b'{"english": "a", "other": null}\n', "line 1: nothing in column 'other'"),
        ("a.en-de.txt", b"a\tb\n", "has no columns"),
        ("a.de.tsv", b"a\tb\n", r"a\.de\.tsv: the name does not hold the language; call it as news\.en-de\.tsv"),
    ],
)
def test_bad_files(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_parallel([tmp_path / name])


def test_what_cannot_be_asked_for(tmp_path):
    file = tmp_path / "a.en-de.tsv"
    assert "no parallel text given" in refusal(read_parallel, [])
    assert "does not exist" in refusal(read_parallel, [file])
    assert "1 pairs are too few" in refusal(read_parallel, [file], max_pairs=1)


def test_the_language_is_in_the_name():
    names = {"en-de.tsv": "de", "a.b.en-fil.csv.gz": "fil", "a.en-zh-Hant.jsonl": "zh-Hant"}
    assert {name: language_of(Path(name)) for name in names} == names
