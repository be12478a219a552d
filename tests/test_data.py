"""Text and scored pairs: what is read from each form of file, what is refused and how, and the Hub."""

import csv
import gzip
import hashlib
import io
import json
import random
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub import Hub, run_python
from tiny import PAIRS, write_content, write_pairs

from distilface import hub_ids as hub_module
from distilface.data import texts as data
from distilface.data.pairs import read_sts
from distilface.data.rows import read_rows
from distilface.data.texts import fingerprint, read_texts
from distilface.settings import InputError

SENTENCES = ["A cat sat.", 'She said "no", twice.', "Grüße — naïve café", "A cat sat.", "  a, b\tc  ", "", "The end."]
#: What of them a .csv or .jsonl can say; a line of a .tsv ends a field at each tab.
DISTINCT = ["A cat sat.", 'She said "no", twice.', "Grüße — naïve café", "a, b\tc", "The end."]

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


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the data sets library's cache in the test's own folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(kind: str, texts: list[str]) -> bytes:
    """Write sentences as Python's own writers do: one a line, or the column ``text`` beside another."""
    if kind == ".txt":
        return "\n".join(texts).encode()
    if kind == ".jsonl":
        return "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts)).encode()
    out = io.StringIO(newline="")
    if kind == ".csv":
        csv.writer(out).writerows([("id", "text"), *enumerate(texts)])
    else:
        out.write("text\tid\n" + "".join(f"{t}\t{i}\n" for i, t in enumerate(texts)))
    return out.getvalue().encode()


def write(path: Path, content: bytes | str) -> str:
    return str(write_content(path, content))


def read(*sources, **kwargs):
    return list(read_texts(sources, **kwargs)["text"])


def mistake(call, *args, **kwargs):
    """Call what must be refused and give the sentence."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("gz", ["", ".gz"])
@pytest.mark.parametrize("kind", [".txt", ".csv", ".tsv", ".jsonl"])
def test_every_form_gives_the_distinct_sentences_in_order(tmp_path, kind, gz):
    texts = [t.replace("\t", " ") for t in SENTENCES] if kind == ".tsv" else SENTENCES
    expected = [t.replace("\t", " ") for t in DISTINCT] if kind == ".tsv" else DISTINCT
    assert read(write(tmp_path / f"texts{kind}{gz}", encoded(kind, texts))) == expected


@pytest.mark.parametrize("kind", [".txt", ".csv", ".tsv", ".jsonl"])
def test_line_ends_and_byte_order_mark_of_windows(tmp_path, kind):
    content = encoded(kind, ["One.", "Two."]).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    assert read(write(tmp_path / f"t{kind}", b"\xef\xbb\xbf" + content)) == ["One.", "Two."]


def test_another_column(tmp_path):
    file = write(tmp_path / "t.csv", "text,body\nx,One.\nx,Two.\n")
    assert read(file, column="body") == ["One.", "Two."]
    assert "equal" in mistake(read_texts, [file])


def test_a_line_break_inside_a_quoted_field_stays(tmp_path):
    """Lines cut before the table is parsed would glue two words together, silently."""
    assert read(write(tmp_path / "t.csv", 'text\n"a dog\nran"\nb\n')) == ["a dog\nran", "b"]


def test_quotes_of_a_tsv_are_letters(tmp_path):
    """Read as CSV, an opening quote would swallow every line up to the next one, silently."""
    rows = ['"Yes," he said.', '"unclosed', "plain", 'the 5" pipe']
    assert read(write(tmp_path / "t.tsv", "text\n" + "\n".join(rows) + "\n")) == rows


def test_an_unclosed_quote_of_a_csv_is_refused(tmp_path):
    """It would swallow the rest of the file as one sentence, silently."""
    file = write(tmp_path / "t.csv", 'text\none\n"unclosed\nthree\nfour\n')
    assert "line 3: unexpected end of data" in mistake(read_texts, [file])
    assert "line 3: ',' expected after" in mistake(read_texts, [write(tmp_path / "u.csv", 'text\none\n"He" said\n')])


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


def test_sources_in_the_order_given_and_distinct_over_all(tmp_path):
    one, two = write(tmp_path / "1.txt", "x\ny\n"), write(tmp_path / "2.txt", "y\nz\n")
    assert read(two, one) == ["y", "z", "x"]
    assert read(one, two) == ["x", "y", "z"]


def test_one_sentence_in_each_of_two_sources_is_two(tmp_path):
    assert read(write(tmp_path / "1.txt", "x"), write(tmp_path / "2.txt", "y")) == ["x", "y"]


def test_pythons_own_text(tmp_path, monkeypatch):
    own = [f"Sentence {i}." for i in range(9)]
    monkeypatch.setattr(data, "_python", lambda: own)
    mine = write(tmp_path / "a.txt", f"mine\n{own[3]}\n")
    assert read("python", mine) == [*own, "mine"]
    assert read(mine, "python") == ["mine", own[3], *own[:3], *own[4:]]


def test_the_rows_are_on_disk(tmp_path):
    texts = read_texts([write(tmp_path / "t.txt", "\n".join(f"line {i}" for i in range(500)))], limit=100)
    assert texts.cache_files
    assert texts.column_names == ["text"]


def test_a_limit_is_a_draw_by_the_seed(tmp_path):
    lines = [f"line {i}" for i in range(1000)]
    file = write(tmp_path / "t.txt", "\n".join(lines))
    drawn = read(file, limit=200)
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
    lines = [f"Zeile {i} – ü" for i in range(25_001)]
    texts = read_texts([write(tmp_path / "t.txt", "\n".join(lines))])
    assert fingerprint(texts) == hashlib.sha256("".join(f"{t}\n" for t in lines).encode()).hexdigest()[:16]
    order = [3, 1, 2]
    expected = hashlib.sha256("".join(f"{lines[i]}\n" for i in order).encode()).hexdigest()[:16]
    assert fingerprint(texts.select(order)) == expected
    assert fingerprint(texts.select(order).rename_column("text", "body"), "body") == expected


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
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, seen):
    (tmp_path / name).write_bytes(content)
    message = mistake(read_texts, [str(tmp_path / name)])
    assert seen in message
    assert str(tmp_path) in message


def test_blank_lines_of_json_lines_are_passed_over(tmp_path):
    assert read(write(tmp_path / "t.jsonl", '{"text": "a"}\n\n{"text": "b"}\n\n')) == ["a", "b"]


def test_an_empty_file_among_others_is_named(tmp_path):
    write(tmp_path / "in" / "a.txt", "one\ntwo")
    write(tmp_path / "in" / "b.txt", "")
    assert "b.txt holds no sentence" in mistake(read_texts, [str(tmp_path / "in")])


def test_what_is_not_there(tmp_path):
    assert "none.txt does not exist" in mistake(read_texts, [str(tmp_path / "none.txt")])
    assert "owner/name does not exist" in mistake(read_texts, ["owner/name"])
    (tmp_path / "empty").mkdir()
    assert "holds no .txt, .csv" in mistake(read_texts, [str(tmp_path / "empty")])
    assert "--data FILE" in mistake(read_texts, [])
    assert "1 sentences are too few" in mistake(read_texts, ["not read"], limit=1)


def test_rows_have_the_columns_asked_for(tmp_path):
    file = write(tmp_path / "t.csv", 'a,b,c\n1,"x,y",3\n4,z,6\n')
    rows = [(f"{file}, line 2", {"c": "3", "b": "x,y"}), (f"{file}, line 3", {"c": "6", "b": "z"})]
    assert list(read_rows(file, ["c", "b"])) == rows
    assert "a .txt has no columns" in mistake(list, read_rows(write(tmp_path / "t.txt", "a,b\n1,2\n"), ["a"]))


def test_the_packaged_pairs():
    pairs = read_sts("sample")
    assert len(pairs) == 180
    assert pairs.column_names == ["sentence1", "sentence2", "score"]


@pytest.mark.parametrize("name", ["dev.jsonl", "dev.jsonl.gz", "dev.csv", "dev.tsv.gz"])
def test_pairs_of_a_file_and_of_the_folder_that_holds_it(tmp_path, name):
    file = tmp_path / "dev" / name
    if ".jsonl" in name:
        write_pairs(file)
    else:
        sign = "\t" if ".tsv" in name else ","
        rows = [sign.join(map(str, (score, a, "extra", b))) for a, b, score in PAIRS]
        write(file, "\n".join([sign.join(["score", "sentence1", "more", "sentence2"]), *rows]))
    write(tmp_path / "dev" / "SOURCES.txt", "where it is from")
    for source in (file, file.parent):
        pairs = read_sts(str(source))
        assert pairs.column_names == ["sentence1", "sentence2", "score"]
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
    file = write(tmp_path / "dev.tsv", "\n".join(["sentence1\tsentence2\tscore", *rows]))
    message = mistake(read_sts, file)
    assert seen in message
    assert "dev.tsv" in message


def test_pairs_that_cannot_be_read(tmp_path):
    assert "no column 'score'" in mistake(read_sts, write(tmp_path / "a.csv", "sentence1,sentence2\nx,y\n"))
    assert "a .txt has no columns" in mistake(read_sts, write(tmp_path / "a.txt", "sentence1,sentence2,score\n"))
    assert "none.csv.gz does not exist" in mistake(read_sts, str(tmp_path / "none.csv.gz"))
    assert "a.csv, a.txt" not in mistake(read_sts, str(tmp_path))
    write(tmp_path / "b.jsonl", "")
    assert "not a.csv, b.jsonl; name the file" in mistake(read_sts, str(tmp_path))
    lists = [{"sentence1": ["a"], "sentence2": "b", "score": score} for score in range(4)]
    file = write(tmp_path / "c.jsonl", "\n".join(map(json.dumps, lists)))
    assert "column 'sentence1': ['a'] is not text" in mistake(read_sts, file)


def serve(hub: Hub, folder: Path) -> None:
    """Put the text of SimCSE, STS-B and a set of other columns on a Hub."""
    write(folder / "wiki" / "wiki1m_for_simcse.txt", "One.\nTwo.\n\nOne.\nThree.\n")
    write(folder / "wiki" / "nli_for_simcse.csv", "sent0,sent1\na,b\n")
    hub.add_dataset("princeton-nlp/datasets-for-simcse", folder / "wiki")
    write_pairs(folder / "stsb" / "validation.jsonl.gz", PAIRS[:5])
    write_pairs(folder / "stsb" / "test.jsonl.gz", PAIRS[5:])
    hub.add_dataset("mteb/stsbenchmark-sts", folder / "stsb")
    write(folder / "other" / "validation.jsonl", '{"premise": "a", "hypothesis": "b"}\n')
    hub.add_dataset("org/other", folder / "other")


def test_the_hub_then_its_cache_with_no_hub_and_offline(hub: Hub, tmp_path: Path):
    serve(hub, tmp_path)
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
    printed = run_python(ON_THE_HUB, hub.dead_env(tmp_path)).splitlines()
    shown = [json.loads(line) for line in printed]
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


def test_a_parquet_is_read_as_any_other(tmp_path):
    """The one reader serves training text and scored pairs as well as ``encode``."""
    file = tmp_path / "t.parquet"
    rows = {"text": ["one dog", "a cat"], "n": [1, 2]}
    pq.write_table(pa.table(rows), file)
    assert read_texts([str(file)])["text"][:] == rows["text"]
    assert "no column 'words'; found text, n" in mistake(read_texts, [str(file)], column="words")
    pq.write_table(pa.table({"text": ["one dog", None]}), file)
    assert f"{file}, row 2: nothing in column 'text'" in mistake(read_texts, [str(file)])
    columns = zip(*PAIRS, strict=True)
    pq.write_table(pa.table(dict(zip(("sentence1", "sentence2", "score"), map(list, columns), strict=True))), file)
    assert [tuple(row.values()) for row in read_sts(str(file))] == list(PAIRS)
