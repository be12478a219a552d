"""Text and scored pairs: what is read from each form of file, what is refused and how, and the Hub."""

import csv
import gzip
import hashlib
import io
import json
import random
from pathlib import Path

import pytest
from hub import Hub, run_python
from refusals import refusal
from tiny import PAIRS, table, write_content, write_pairs

from distilface import hub_ids as hub_module
from distilface.data import texts as data
from distilface.data.fingerprints import fingerprint
from distilface.data.pairs import read_sts
from distilface.data.rows import read_rows
from distilface.data.texts import read_texts

pytestmark = pytest.mark.usefixtures("own_cache")
SENTENCES = ["A cat sat.", 'She said "no", twice.', "Grüße — naïve café", "A cat sat.", "  a, b\tc  ", "", "The end."]
#: What of them a .csv or .jsonl can say; a line of a .tsv ends a field at each tab.
DISTINCT = ["A cat sat.", 'She said "no", twice.', "Grüße — naïve café", "a, b\tc", "The end."]
COLUMNS = ("sentence1", "sentence2", "score")

ON_THE_HUB = """
import json, sys, time
import huggingface_hub.constants as hub
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.settings import InputError

def show(call):
    began = time.perf_counter()
    try:
        found = [list(row.values()) for row in call()]
    except InputError as error:
        found = str(error)
    print(json.dumps([found, time.perf_counter() - began]))

texts = lambda: read_texts(["princeton-nlp/datasets-for-simcse"])
pairs = lambda: read_sts("mteb/stsbenchmark-sts")
show(texts), show(pairs), show(lambda: read_sts("mteb/stsbenchmark-sts", "dev")), show(lambda: read_sts("org/other"))
if len(sys.argv) > 1:
    hub.ENDPOINT = sys.argv[1]
    show(texts), show(pairs)
    hub.HF_HUB_OFFLINE = True
    show(texts), show(pairs)
"""


def encoded(kind: str, texts: list[str]) -> bytes:
    """Write sentences as Python's own writers do: one a line, or the column ``text`` beside another."""
    if kind == ".txt":
        return "\n".join(texts).encode()
    if kind == ".csv":
        out = io.StringIO(newline="")
        csv.writer(out).writerows([("id", "text"), *enumerate(texts)])
        return out.getvalue().encode()
    return table(kind.removeprefix("."), ("id", "text"), list(enumerate(texts)))


def write(path: Path, content: bytes | str) -> str:
    return str(write_content(path, content))


def read(*sources, **kwargs):
    return list(read_texts(sources, **kwargs)["text"])


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("kind", [".txt", ".csv", ".tsv", ".jsonl"])
def test_every_form_gives_the_distinct_sentences_in_order(tmp_path, kind, gz):
    """With the line ends and the byte-order mark of Windows too."""
    texts, expected = ([t.replace("\t", " ") if kind == ".tsv" else t for t in rows] for rows in (SENTENCES, DISTINCT))
    assert read(write(tmp_path / f"texts{kind}{gz}", encoded(kind, texts))) == expected
    content = encoded(kind, ["One.", "Two."]).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert read(write(tmp_path / f"t{kind}{gz}", b"\xef\xbb\xbf" + content)) == ["One.", "Two."]


#: What would be silent, a file, and the texts in it.
READ = {
    "lines cut before the table is parsed would glue two words": (
        "t.csv",
        'text\n"a dog\nran"\nb\n',
        ["a dog\nran", "b"],
    ),
    "an opening quote of a .tsv would swallow lines up to the next": (
        "t.tsv",
        'text\n"Yes," he said.\n"unclosed\nplain\nthe 5" pipe\n',
        ['"Yes," he said.', '"unclosed', "plain", 'the 5" pipe'],
    ),
    "blank lines of JSON lines are no rows": ("t.jsonl", '{"text": "a"}\n\n{"text": "b"}\n\n', ["a", "b"]),
    "a column that is not read may come twice": ("t.csv", "n,text,n\n1,one,2\n3,two,4\n", ["one", "two"]),
}


@pytest.mark.parametrize("case", READ)
def test_a_table_gives_its_column_of_text(tmp_path, case):
    name, content, texts = READ[case]
    assert read(write(tmp_path / name, content)) == texts


def test_rows_have_the_columns_asked_for(tmp_path):
    file = write(tmp_path / "t.csv", 'a,b,c\n1,"x,y",3\n4,z,6\n')
    rows = [(f"{file}, line 2", {"c": "3", "b": "x,y"}), (f"{file}, line 3", {"c": "6", "b": "z"})]
    assert list(read_rows(file, ["c", "b"])) == rows
    assert "a .txt has no columns" in refusal(list, read_rows(write(tmp_path / "t.txt", "a,b\n1,2\n"), ["a"]))
    file = write(tmp_path / "t.csv", "text,body\nx,One.\nx,Two.\n")
    assert read(file, column="body") == ["One.", "Two."]
    assert "equal" in refusal(read_texts, [file])


def test_a_folder_is_read_by_name(tmp_path, monkeypatch):
    """A sentence in two files would train twice as often as the others, silently."""
    write(tmp_path / "in" / "b.txt", "b1\nb2\nshared\n")
    write(tmp_path / "in" / "a.jsonl.gz", encoded(".jsonl", ["a1", "shared"]))
    write(tmp_path / "in" / "picture.png", b"\0")
    write(tmp_path / "in" / "deeper" / "c.txt", "c1\n")
    listing = sorted((tmp_path / "in").iterdir())
    for seed in range(3):
        random.Random(seed).shuffle(listing)
        monkeypatch.setattr(Path, "iterdir", lambda self: iter(listing))
        assert read(str(tmp_path / "in")) == ["a1", "shared", "b1", "b2"]


def test_sources_in_the_order_given_and_distinct_over_all(tmp_path, monkeypatch):
    """Two sources of one sentence each are two sentences; Python's own text is a source as any other."""
    one, two = write(tmp_path / "1.txt", "x\ny\n"), write(tmp_path / "2.txt", "y\nz\n")
    assert read(two, one) == ["y", "z", "x"]
    assert read(one, two) == ["x", "y", "z"]
    assert read(write(tmp_path / "3.txt", "x"), write(tmp_path / "4.txt", "y")) == ["x", "y"]
    own = [f"Sentence {i}." for i in range(9)]
    monkeypatch.setattr(data, "_python", lambda: own)
    mine = write(tmp_path / "a.txt", f"mine\n{own[3]}\n")
    assert read("python", mine) == [*own, "mine"]
    assert read(mine, "python") == ["mine", own[3], *own[:3], *own[4:]]


def test_a_limit_is_a_draw_by_the_seed(tmp_path):
    lines = [f"line {i}" for i in range(1000)]
    file = write(tmp_path / "t.txt", "\n".join(lines))
    texts = read_texts([file], limit=200)
    assert texts.cache_files, "the rows are on disk"
    assert texts.column_names == ["text"]
    drawn = texts["text"][:]
    assert len(set(drawn)) == 200
    assert set(drawn) <= set(lines)
    assert drawn == read(file, limit=200, seed=0)
    assert set(drawn) != set(read(file, limit=200, seed=1))
    # The mean place of 200 of 1000 lines, drawn evenly, is 499.5 with a standard deviation of 18.
    assert abs(sum(lines.index(t) for t in drawn) / 200 - 499.5) < 90
    assert read(file, limit=1000) == read(file, limit=5000) == lines


def test_a_limit_draws_from_every_source(tmp_path):
    files = [write(tmp_path / f"{name}.txt", "\n".join(f"{name} {i}" for i in range(100))) for name in "abc"]
    counts = [sum(t.startswith(name) for t in read(*files, limit=90)) for name in "abc"]
    assert sum(counts) == 90
    assert min(counts) > 15


def test_the_fingerprint_is_the_sha256_of_the_rows(tmp_path):
    def expected(rows: list[str]) -> str:
        return hashlib.sha256("".join(f"{row}\n" for row in rows).encode()).hexdigest()[:16]

    lines, order = [f"Zeile {i} – ü" for i in range(25_001)], [3, 1, 2]
    texts = read_texts([write(tmp_path / "t.txt", "\n".join(lines))])
    assert fingerprint(texts) == expected(lines)
    assert fingerprint(texts.select(order)) == expected([lines[i] for i in order])
    assert fingerprint(texts.select(order).rename_column("text", "body"), "body") == expected([lines[i] for i in order])


@pytest.mark.parametrize("kind", [".txt", ".csv.gz"])
def test_a_changed_file_of_the_same_name_is_read_anew(tmp_path, kind):
    """The library's cache is keyed by the path: the first content would come back, silently."""
    file = tmp_path / f"t{kind}"
    first = read_texts([write(file, encoded(kind.removesuffix(".gz"), ["one", "two"]))])
    again = read_texts([str(file)])
    assert first.cache_files == again.cache_files
    changed = read_texts([write(file, encoded(kind.removesuffix(".gz"), ["one", "six"]))])
    assert list(changed["text"]) == ["one", "six"]
    assert fingerprint(changed) != fingerprint(first) == fingerprint(again)


LATIN = "ein\nzwei\nGrüße\n".encode("latin-1")
WHOLE = gzip.compress(random.Random(0).randbytes(5000).hex().encode(), mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "seen"),
    [
        ("t.txt", b"", "t.txt holds no sentence; it is empty"),
        ("t.txt", b"\n  \n\t\n", "t.txt holds no sentence"),
        ("t.csv", b"", "t.csv holds no sentence"),
        ("t.csv", b"text\n", "t.csv holds no sentence"),
        ("t.jsonl", b"", "t.jsonl holds no sentence"),
        ("t.txt.gz", gzip.compress(b"", mtime=0), "t.txt.gz holds no sentence"),
        ("t.txt", b"one\ntwo\nthr\0ee\n", "t.txt, line 3: a NUL byte"),
        ("t.txt", "one\ntwo".encode("utf-16"), "t.txt, line 1: a NUL byte"),
        ("t.txt", LATIN, "t.txt, line 3: byte 0xfc is not UTF-8"),
        ("t.csv", b"text\n" + LATIN, "t.csv, line 4: byte 0xfc is not UTF-8"),
        ("t.txt.gz", gzip.compress(LATIN, mtime=0), "t.txt.gz, line 3: byte 0xfc"),
        ("t.txt.gz", b"plain text\n", "t.txt.gz is a broken gzip file"),
        ("t.txt.gz", WHOLE[:-2000], "t.txt.gz is a broken gzip file"),
        ("t.txt.gz", WHOLE[:-8] + bytes(8), "t.txt.gz is a broken gzip file"),
        ("t.txt.gz", WHOLE[:2000] + bytes(range(256)) + WHOLE[2256:], "t.txt.gz is a broken gzip file"),
        ("t.jsonl.gz", WHOLE[:-2000], "t.jsonl.gz is a broken gzip file"),
        ("t.csv", b"id,sentence\n1,one\n", "line 2: no column 'text'; found id, sentence"),
        ("t.tsv", b"text,id\none,1\n", "line 2: no column 'text'; found text,id"),
        ("t.csv", b"id,text\n1,one\n2\n", "line 3: nothing in column 'text'"),
        # An unclosed quote would swallow the rest of the file as one sentence, silently.
        ("t.csv", b'text\none\n"unclosed\nthree\nfour\n', "line 3: unexpected end of data"),
        ("t.csv", b'text\none\n"He" said\n', "line 3: ',' expected after"),
        ("t.jsonl", b'{"text": "one"}\n{"text": "two"\n', "line 2: not JSON"),
        ("t.jsonl", b'{"text": "one"}\n["two"]\n', 'line 2: ["two"] is not a JSON object'),
        ("t.jsonl", b'{"text": "one"}\n{"body": "two"}\n', "line 2: no column 'text'; found body"),
        ("t.jsonl", b'{"text": null}\n', "line 1: nothing in column 'text'"),
        ("t.jsonl", b'{"text": ["a", "b"]}\n', "column 'text': ['a', 'b'] is not text"),
        ("t.jsonl", b'{"text": 5}\n', "column 'text': 5 is not text"),
        ("t.jsonl", b'{"text": "half \\ud800"}\n', "is not text"),
        ("t.txt", b"one sentence\n\n", "t.txt: one sentence only; at least two"),
        ("t.txt", b"same\nsame \n same\n", "all 3 sentences are equal ('same')"),
        ("t.pdf", b"one\ntwo\n", "t.pdf: .pdf suffix; text is read from .txt, .csv, .tsv, .jsonl"),
        ("t.gz", b"one\ntwo\n", "t.gz: no suffix"),
        ("text", b"one\ntwo\n", "text: no suffix"),
        ("none.txt", None, "none.txt does not exist"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, seen):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    message = refusal(read_texts, [str(tmp_path / name)])
    assert seen in message
    assert str(tmp_path) in message


def test_sources_that_give_no_text(tmp_path):
    """An empty file among others is named."""
    (tmp_path / "empty").mkdir()
    write(tmp_path / "in" / "a.txt", "one\ntwo")
    write(tmp_path / "in" / "b.txt", "")
    for sources, seen in (
        ([str(tmp_path / "in")], "b.txt holds no sentence"),
        (["owner/name"], "owner/name does not exist"),
        ([str(tmp_path / "empty")], "holds no .txt, .csv"),
        ([], "--data FILE"),
    ):
        assert seen in refusal(read_texts, sources)
    assert "1 sentences are too few" in refusal(read_texts, ["not read"], limit=1)


def test_the_packaged_pairs():
    pairs = read_sts("sample")
    assert len(pairs) == 180
    assert pairs.column_names == [*COLUMNS]


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "dev.csv", "dev.tsv.gz", "dev.parquet"])
def test_pairs_of_a_file_and_of_the_folder_that_holds_it(tmp_path, name):
    file = tmp_path / "dev" / name
    write(file.parent / "SOURCES.txt", "where it is from")
    rows = [(score, a, "extra", b) for a, b, score in PAIRS]
    write(file, table(name.split(".")[1], ("score", "sentence1", "more", "sentence2"), rows))
    for source in (file, file.parent):
        pairs = read_sts(str(source))
        assert pairs.column_names == [*COLUMNS]
        assert [tuple(row.values()) for row in pairs] == list(PAIRS)


@pytest.mark.parametrize(
    ("rows", "seen"),
    [
        (["a\tb\t1", "c\td\thigh", "e\tf\t3"], "the score 'high' is not a number"),
        (["a\tb\t1", "c\td\tnan", "e\tf\t3"], "the score 'nan' is not a number"),
        (["a\tb\t1", "c\td\t", "e\tf\t3"], "the score '' is not a number"),
        (["a\tb\t1", "c\td\t2"], "2 scored pairs; a correlation needs at least 3"),
        ([], "0 scored pairs"),
        (["a\tb\t2", "c\td\t2.0", "e\tf\t2"], "every pair has the score 2.0"),
    ],
)
def test_pairs_that_cannot_be_scored(tmp_path, rows, seen):
    file = write(tmp_path / "dev.tsv", "\n".join(["\t".join(COLUMNS), *rows]))
    message = refusal(read_sts, file)
    assert seen in message
    assert "dev.tsv" in message


def test_pairs_that_cannot_be_read(tmp_path):
    assert "no column 'score'" in refusal(read_sts, write(tmp_path / "a.csv", "sentence1,sentence2\nx,y\n"))
    assert "a .txt has no columns" in refusal(read_sts, write(tmp_path / "a.txt", "sentence1,sentence2,score\n"))
    assert "none.csv.gz does not exist" in refusal(read_sts, str(tmp_path / "none.csv.gz"))
    assert "a.csv, a.txt" not in refusal(read_sts, str(tmp_path))
    write(tmp_path / "b.jsonl", "")
    assert "not a.csv, b.jsonl; name the file" in refusal(read_sts, str(tmp_path))
    lists = [{"sentence1": ["a"], "sentence2": "b", "score": score} for score in range(4)]
    file = write(tmp_path / "c.jsonl", "\n".join(map(json.dumps, lists)))
    assert "column 'sentence1': ['a'] is not text" in refusal(read_sts, file)


def test_a_parquet_is_read_as_any_other(tmp_path):
    """The one reader serves training text and scored pairs as well as ``encode``."""
    file = write(tmp_path / "t.parquet", table("parquet", ("text", "n"), [("one dog", 1), ("a cat", 2)]))
    assert read(file) == ["one dog", "a cat"]
    assert "no column 'words'; found text, n" in refusal(read_texts, [file], column="words")
    write(tmp_path / "t.parquet", table("parquet", ("text",), [("one dog",), (None,)]))
    assert f"{file}, row 2: nothing in column 'text'" in refusal(read_texts, [file])


def test_the_hub_then_its_cache_with_no_hub_and_offline(hub: Hub, tmp_path: Path):
    write(tmp_path / "wiki" / "wiki1m_for_simcse.txt", "One.\nTwo.\n\nOne.\nThree.\n")
    write(tmp_path / "wiki" / "nli_for_simcse.csv", "sent0,sent1\na,b\n")
    write_pairs(tmp_path / "stsb" / "validation.jsonl.gz", PAIRS[:5])
    write_pairs(tmp_path / "stsb" / "test.jsonl.gz", PAIRS[5:])
    write(tmp_path / "other" / "validation.jsonl", '{"premise": "a", "hypothesis": "b"}\n')
    sets = {"princeton-nlp/datasets-for-simcse": "wiki", "mteb/stsbenchmark-sts": "stsb", "org/other": "other"}
    for name, folder in sets.items():
        hub.add_dataset(name, tmp_path / folder)
    dead = hub.dead_env(tmp_path)["HF_ENDPOINT"]
    shown = [json.loads(line) for line in run_python(ON_THE_HUB, hub.env(tmp_path / "cache"), dead).splitlines()]
    texts, pairs, split, other, *again = [output for output, _ in shown]
    assert texts == [["One."], ["Two."], ["Three."]]
    assert pairs == [list(row) for row in PAIRS[:5]]
    assert "mteb/stsbenchmark-sts has no split 'dev'" in split
    assert "org/other: no column 'sentence1'; found premise, hypothesis" in other
    assert again == [texts, pairs] * 2
    assert max(seconds for _, seconds in shown[4:]) < 5
    assert not any("nli_for_simcse" in path for _, path in hub.requests if "/resolve/" in path)


def test_no_hub_is_one_sentence_at_once(hub: Hub, tmp_path: Path):
    """The libraries ask a dead Hub again for a minute and more, and say nothing meanwhile."""
    shown = [json.loads(line) for line in run_python(ON_THE_HUB, hub.dead_env(tmp_path)).splitlines()]
    assert max(seconds for _, seconds in shown) < 5
    for (message, _), words in zip(
        shown[:2], (["datasets-for-simcse", "--data FILE"], ["sts", "--dev FILE"]), strict=True
    ):
        assert "could not be downloaded from the Hub (ConnectError)" in message
        assert all(word in message for word in words)


def test_a_full_disk_is_not_taken_for_a_dead_hub(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hub_module, "snapshot_download", full)
    with pytest.raises(OSError, match="No space left"):
        read_sts("org/pairs")
