"""Rows: read whole and in order by every door (training, ``encode``, scored pairs, parallel text), or refused aloud."""

import csv
import gzip
import json
from collections import namedtuple
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from refusals import refusal
from tiny import table, write_content

from distilface.data import lines, mapped
from distilface.data.fingerprints import fingerprint
from distilface.data.pairs import read_pairs, read_sts
from distilface.data.parallel import read_parallel
from distilface.data.text_file import TextFile
from distilface.data.texts import as_texts, read_texts
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("own_cache")


def to_train(file: Path) -> list[str]:
    return read_texts([str(file)])["text"][:]


def to_encode(file: Path) -> list[str]:
    return list(TextFile(file, "text", 2).texts())


def to_score(file: Path) -> list[dict]:
    return read_pairs(file)


def to_align(file: Path) -> list[dict]:
    return read_parallel([file]).to_list()


Door = namedtuple("Door", "read name columns")
#: Who reads rows, the start of a file's name, and the columns that are read.
DOORS = [
    Door(to_train, "a", ("text",)),
    Door(to_encode, "a", ("text",)),
    Door(to_score, "a", ("sentence1", "sentence2", "score")),
    Door(to_align, "a.en-de", ("english", "other")),
]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.read.__name__)


def table_of(door: Door, kind: str, rows, columns=()) -> bytes:
    """Write a table for a door; a .tsv of parallel text has no header."""
    return table(kind, columns or door.columns, rows, header=not headless(door, kind))


def headless(door: Door, kind: str) -> bool:
    return door.read is to_align and kind == "tsv"


def three_rows(door: Door) -> list[list]:
    return [[number if name == "score" else f"{name} {number}" for name in door.columns] for number in range(3)]


def first_column(rows) -> list[str]:
    return [row if isinstance(row, str) else next(iter(row.values())) for row in rows]


def test_a_folder_says_what_it_leaves_out(tmp_path, caplog):
    """Only ``a.txt`` was read, silently; the folder that is called as a file was a traceback. So of pairs."""
    for name in ("a.txt", "B.TXT", "c.json", "e.txt.bz2", "sub/d.txt", "x.txt/y.txt"):
        write_content(tmp_path / "in" / name, f"one of {name}\ntwo of {name}\n")
    write_content(tmp_path / "in" / "f.JSONL.GZ", gzip.compress(b'{"text": "packed"}\n'))
    texts = read_texts([str(tmp_path / "in")])["text"][:]
    assert sorted(texts) == ["one of B.TXT", "one of a.txt", "packed", "two of B.TXT", "two of a.txt"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path / 'in'}: 4 of 7 entries are not read (c.json, e.txt.bz2, sub/, x.txt/); "
        "text is read from .txt, .csv, .tsv, .jsonl (each also .gz) and .parquet"
    ]
    write_content(tmp_path / "pairs" / "dev.TSV", table_of(DOORS[2], "tsv", three_rows(DOORS[2])))
    write_content(tmp_path / "pairs" / "more" / "dev.tsv", b"")
    assert len(read_sts(str(tmp_path / "pairs"))) == 3
    assert "1 of 2 entries are not read (more/)" in caplog.text


def test_a_folder_without_text_says_what_it_holds(tmp_path):
    for number in range(12):
        (tmp_path / f"{number:02}.json").touch()
    said = refusal(read_texts, [str(tmp_path)])
    assert "holds no .txt, .csv, .tsv, .jsonl (each also .gz) and .parquet file, but 00.json, 01.json" in said
    assert said.endswith("09.json and 2 more")


@each_door
@pytest.mark.parametrize("suffix", ["CSV", "Tsv.GZ", "JsonL", "PARQUET", "csv", "tsv", "jsonl"])
def test_a_suffix_of_any_case_and_the_lines_of_an_old_mac(tmp_path, door, suffix):
    kind, rows = suffix.split(".")[0].lower(), three_rows(door)
    content = table_of(door, kind, rows)
    content = content.replace(b"\n", b"\r") if suffix.islower() else content
    file = tmp_path / f"{door.name}.{suffix}"
    file.write_bytes(gzip.compress(content) if suffix.endswith("GZ") else content)
    assert first_column(door.read(file)) == [row[0] for row in rows]


@each_door
def test_a_folder_in_place_of_a_file_is_said(tmp_path, door):
    folder = tmp_path / f"{door.name}.tsv"
    folder.mkdir()
    assert ("holds no" if door.read is to_train else "is a folder") in refusal(door.read, folder)


@each_door
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_a_column_named_twice_is_refused(tmp_path, door, kind):
    """The last one of them was taken, silently."""
    if headless(door, kind):
        pytest.skip("has no header")
    file, twice = tmp_path / f"{door.name}.{kind}", [*door.columns, door.columns[0]]
    if kind == "jsonl":  # an object of Python's cannot name a column twice
        file.write_text("{" + ", ".join(f'"{name}": "x"' for name in twice) + "}\n")
    else:
        file.write_bytes(table_of(door, kind, [["x"] * len(twice)], twice))
    said = refusal(door.read, file)
    assert f"the column {door.columns[0]!r} is named 2 times" in said
    assert str(file) in said


@pytest.mark.parametrize("kind", ["csv", "tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_blank_line_of_one_column_is_a_row(tmp_path, kind, end):
    """``encode`` gave two vectors for three rows: each later one was another text's."""
    file = write_content(tmp_path / f"a.{kind}", end.join(["text", "one cat", "", "three birds", ""]))
    assert to_encode(file) == ["one cat", "", "three birds"]
    assert TextFile(file, "text", 2).survey().empty == 1
    assert to_train(file) == ["one cat", "three birds"]
    two = write_content(tmp_path / f"b.{kind}", "text,n\n\none cat,1\n".replace(",", "," if kind == "csv" else "\t"))
    assert to_encode(two) == ["one cat"], "a blank line of two columns is not a row"


@pytest.mark.parametrize("content", ["one cat\rtwo dogs\rthree birds\r", "one cat\r\ntwo dogs\rthree birds\n"])
def test_lines_of_text_end_as_python_reads_them(tmp_path, content):
    """A file of an old Mac was one row, silently."""
    file = tmp_path / "a.txt"
    file.write_bytes(content.encode())
    with file.open() as opened:
        expected = [line.rstrip("\n") for line in opened]
    assert to_train(file) == to_encode(file) == expected == ["one cat", "two dogs", "three birds"]


@each_door
@pytest.mark.parametrize(
    ("kind", "remedy", "better"),
    [("csv", "quote the field", '"one cat\rsleeps"'), ("tsv", "replace it by a space", "one cat sleeps")],
)
def test_a_carriage_return_in_a_field_is_named(tmp_path, door, kind, remedy, better):
    """The remedy was "quote its text", of a .tsv too, where quotes are letters. Each remedy that is named works."""
    rows, file = three_rows(door), tmp_path / f"{door.name}.{kind}"
    rows[1][0] = "one cat\rsleeps"
    file.write_bytes(content := table_of(door, kind, rows))
    said = refusal(door.read, file)
    assert f"{file}, line {2 if headless(door, kind) else 3}: a carriage return inside a field" in said
    assert f"{remedy}, or give .jsonl" in said
    file.write_bytes(content.replace(b"one cat\rsleeps", better.encode()))
    assert first_column(door.read(file))[1] == better.strip('"')
    other = write_content(tmp_path / f"{door.name}.jsonl", table_of(door, "jsonl", rows))
    assert first_column(door.read(other))[1] == rows[1][0]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_field_of_any_length_is_read(tmp_path, kind):
    """The limit of Python's reader, 131,072 characters, is the whole process's: it stays what it was."""
    before, long = csv.field_size_limit(), "a long document " * 10_000
    for field in (long, f'"{long}, quoted"') if kind == "csv" else (long,):
        file = write_content(tmp_path / f"a.{kind}", f"text\nshort\n{field}\nend\n")
        assert to_encode(file) == ["short", field.strip('"'), "end"]
        assert to_train(file) == ["short", field.strip('" '), "end"]
    assert csv.field_size_limit() == before


def test_a_row_of_several_lines_is_named_by_its_first(tmp_path):
    file = write_content(tmp_path / "a.csv", 'text,n\n"one\ntwo",1\n"three\nfour",2,3\n')
    assert "line 4: 3 columns, and the header has 2" in refusal(to_encode, file)
    file = write_content(tmp_path / "b.csv", "\ntext\none\n")
    assert "line 1: no header but a blank line" in refusal(to_encode, file)


@each_door
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("9" * 5000, "a number of more than 4,300 digits; leave that column out"),
        ("[" * 100_000 + "]" * 100_000, "its brackets are nested too deep to be read; leave that column out"),
    ],
    ids=["digits", "brackets"],
)
def test_json_that_no_parser_takes_is_named(tmp_path, door, value, sentence):
    """Each was a traceback."""
    good, bad = (json.dumps(dict(zip(door.columns, row, strict=True))) for row in three_rows(door)[:2])
    file = write_content(tmp_path / f"{door.name}.jsonl", f'{good}\n{bad[:-1]}, "n": {value}}}\n')
    assert f"{file}, line 2: {sentence}" in refusal(door.read, file)


@pytest.mark.parametrize(
    ("score", "shown"),
    [
        *((f'"{text}"', f"'{text}'") for text in ("true", "1_0", "nan", "Infinity", "٣", "3,5")),
        *(("true", "True"), ("1e999", "inf"), ("9" * 400, "9999"), ("[1]", "[1]")),
    ],
)
def test_a_score_that_is_a_number_by_accident_is_refused(tmp_path, score, shown):
    """Python takes ``true`` for 1 and ``1_0`` for 10."""
    rows = [f'{{"sentence1": "a", "sentence2": "b", "score": {value}}}\n' for value in (1, 2, score, 3)]
    file = write_content(tmp_path / "dev.jsonl", "".join(rows))
    assert f"{file}, line 3: the score {shown}" in refusal(read_sts, str(file))


@pytest.mark.parametrize(("text", "number"), [("4", 4), (" -.5 ", -0.5), ("+1.", 1), ("2e-1", 0.2), ("0.0", 0)])
def test_a_score_as_people_write_it_is_read(tmp_path, text, number):
    rows = [("a", "b", value) for value in (text, "5", "6")]
    file = write_content(tmp_path / "dev.tsv", table_of(DOORS[2], "tsv", rows))
    assert [row["score"] for row in read_pairs(file)] == [number, 5, 6]


@pytest.mark.parametrize("column", ["sentence1", "sentence2"])
def test_an_empty_sentence_of_a_pair_is_refused(tmp_path, column):
    """It has no direction to compare, and was scored."""
    rows = three_rows(DOORS[2])
    rows[1][DOORS[2].columns.index(column)] = " \t"
    file = write_content(tmp_path / "dev.jsonl", table_of(DOORS[2], "jsonl", rows))
    assert f"{file}, line 2: {column} is empty; fill it or leave the pair out" in refusal(read_sts, str(file))


@pytest.mark.parametrize("door", [DOORS[0], DOORS[3]], ids=lambda door: door.read.__name__)
def test_each_line_is_parsed_once(tmp_path, door, monkeypatch):
    file = write_content(tmp_path / f"{door.name}.jsonl", table_of(door, "jsonl", three_rows(door)))
    decoded, count = lines._decoded, []
    monkeypatch.setattr(lines, "_decoded", lambda *args: (count.append(line) or line for line in decoded(*args)))
    assert len(door.read(file)) == 3
    assert len(count) == 3


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_text_that_fails_leaves_nothing(error):
    def rows():
        yield ("one",)
        raise error

    with pytest.raises(error):
        mapped.mapped_dataset(rows(), ["text"])
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "distilface"
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_left_goes_and_what_another_writes_stays():
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "distilface"
    inside, outer = [], iter([("one",)])

    def rows():
        """While this text is written, another is, from its start to its end."""
        yield ("two",)
        inside.append(mapped.mapped_dataset(outer, ["text"]))
        yield ("three",)

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("killed.new.part", "killed.new.lock", "later.new", "without.new.part"):
        (folder / name).touch()
    written = mapped.mapped_dataset(rows(), ["text"])
    assert [written["text"][:], inside[0]["text"][:]] == [["two", "three"], ["one"]]
    assert [path.suffix for path in folder.iterdir()] == [".arrow", ".arrow"]


def test_a_batch_ends_before_it_is_large(monkeypatch):
    monkeypatch.setattr(mapped, "_CHARACTERS", 10)
    texts = mapped.mapped_dataset(((letter * 6,) for letter in "abcde"), ["text"])
    assert texts["text"][:] == [letter * 6 for letter in "abcde"]
    assert [len(chunk) for chunk in texts.data["text"].chunks] == [2, 2, 1]


def test_what_is_left_out_is_counted(tmp_path, caplog):
    caplog.set_level("INFO", logger="distilface")
    to_train(write_content(tmp_path / "a.txt", "one\n\ntwo\none\n  \n"))
    as_texts(["one", "two", "one ", ""])
    rows = Dataset.from_dict({"text": ["one", "", "two", " \n"], "n": [1, 2, 3, 4]})
    assert as_texts(rows)[1]["text"][:] == ["one", "two"]
    assert caplog.messages == [
        f"text: {repeated} of {count} rows repeat another and {empty} are empty; they are left out"
        for repeated, count, empty in ((1, 5, 2), (1, 4, 1), (0, 4, 2))
    ]


def test_rows_that_break_at_other_places_differ():
    """One digest for both would give the teacher's embeddings of other texts, silently."""
    sets = [["a\nb", "c"], ["a", "b\nc"], ["a", "b", "c"], ["a\0", "b", "c"], ["a\0\nb", "c"], ["a\nb\nc"]]
    assert len({fingerprint(Dataset.from_dict({"text": texts})) for texts in sets}) == len(sets)


def test_pairs_that_break_at_other_places_differ(tmp_path):
    """One of them was dropped as a repeat, silently."""
    rows = [("a\tb", "c"), ("a", "b\tc")]
    file = write_content(tmp_path / "a.en-de.jsonl", table_of(DOORS[3], "jsonl", rows))
    assert [(row["english"], row["other"]) for row in to_align(file)] == rows


@pytest.mark.parametrize(("value", "shown"), [(None, "None"), ("\ud800", "'\\ud800'")])
def test_a_data_set_is_checked_as_a_file_is(value, shown):
    texts = Dataset.from_dict({"text": ["one", None]}) if value is None else ["one", value]
    place = "the data set, row 2, column 'text'" if value is None else "data, item 2"
    assert refusal(as_texts, texts) == f"{place}: {shown} is not text"


def test_the_digest_names_a_row_without_text():
    """The digest of the rows names the teacher's cache, so that a row without text meets it first."""
    said = refusal(fingerprint, Dataset.from_dict({"body": ["one", None]}), "body")
    assert said == "the data set, row 2, column 'body': None is not text"


def test_a_file_that_is_not_read_is_not_a_sentence():
    """Two names of missing files were trained on as two sentences."""
    assert as_texts(["a.json", "b.txt.bz2", "C.TXT"])[0] == ["a.json", "b.txt.bz2", "C.TXT"]
    for name in ("none.json", "none.bz2"):
        assert f"{name} does not exist" in refusal(read_sts, name), "nor a data set of the Hub"
    long = ["狗" * 255, "猫" * 300]
    assert as_texts(long)[1]["text"][:] == long, "a text may be longer than a file's name"
