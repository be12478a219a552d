"""A folder of .parquet files to a folder of embeddings, in one process: the vectors, going on, mistakes refused."""

import json
import os
import shutil
import sys

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from parts import FILES, PARTS, TEXTS, content, embed_files, expected, run, save_model, write_files
from refusals import refusal
from tiny import tiny_model
from warm import kill_at

from distilface import cli
from distilface.data.location import Location
from distilface.embedding import part_writer, store
from distilface.model.folder import save_folder

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Embed the folder once: the input, and what is made of it."""
    return embed_files(model, tmp_path_factory.mktemp("whole"))


@pytest.fixture
def begun(whole, tmp_path):
    """Return the input, and a copy of the output in which a part is missing."""
    shutil.copytree(whole[1], tmp_path / "out")
    (tmp_path / "out" / PARTS[1]).unlink()
    return whole[0], tmp_path / "out"


def test_every_row_is_upstreams_in_its_place(model, whole):
    output = whole[1]
    assert [file.name for file in sorted(output.iterdir())] == ["_distilface.json", *PARTS]
    table = pq.read_table([output / name for name in PARTS])
    assert table.column_names == ["row", "text", "embedding"]
    assert table.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32()), 32)
    assert table["row"].to_pylist() == list(range(len(TEXTS)))
    assert table["text"].to_pylist() == TEXTS
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist(), np.float32), expected(model), atol=1e-5)
    rows = [pq.ParquetFile(output / name).metadata.num_rows for name in PARTS]
    assert rows == [9, 20, 14, 5], "a file, the two parts of a larger one, a file in a folder below"


def test_the_report_is_a_single_files(whole):
    _, output, report = whole
    assert (report.rows, report.width, report.empty, report.truncated, report.computed) == (48, 32, 2, 1, 48)
    assert report.megabytes == sum((output / name).stat().st_size for name in PARTS) / 1e6
    assert str(report).startswith(f"{output}: 48 rows of 32 numbers, ")
    assert str(report).endswith("; 2 empty (zeros), 1 cut at 64 tokens")
    kept = json.loads((output / "_distilface.json").read_text())["report"]
    assert (kept["parts"], kept["rows"], kept["empty"], kept["truncated"]) == (4, 48, 2, 1)
    note = json.loads(pq.ParquetFile(output / PARTS[2]).metadata.metadata[b"distilface"])
    assert (note["file"], note["first"], note["rows"]) == ("b.parquet", 20, 14)


def test_a_file_alone_has_the_same_numbers(model, whole, tmp_path):
    """To the last bit: the batches are the same."""
    source, output, _ = whole
    for name, part in (("a.parquet", PARTS[0]), ("sub/c.parquet", PARTS[3])):
        words = ("--chunk_rows", "8", "--batch_size", "4", "--threads", "1")
        cli.run(["encode", str(model), str(source / name), str(tmp_path / part), *words])
        alone = pq.read_table(tmp_path / part)["embedding"]
        assert alone.equals(pq.read_table(output / part)["embedding"])


def test_a_missing_part_is_made_again_and_no_other(model, whole, begun, caplog):
    source, output = begun
    before = {name: (output / name).stat().st_mtime_ns for name in PARTS if name != PARTS[1]}
    report = run(model, source, output, "--keep-text")
    assert (report.rows, report.computed, report.empty, report.truncated) == (48, 20, 2, 1)
    assert "encode: 20 of 48 rows to compute, 28 are there; 1 of 4 parts, fp32, 32 dimensions" in caplog.text
    assert content(output) == content(whole[1])
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    assert run(model, source, output, "--keep-text").computed == 0


def test_a_part_that_is_damaged_or_anothers_is_made_again(model, whole, begun, caplog):
    source, output = begun
    (output / PARTS[0]).write_bytes((output / PARTS[0]).read_bytes()[:-20])
    shutil.copy(source / "a.parquet", output / PARTS[2])
    assert run(model, source, output, "--keep-text").computed == 9 + 20 + 14
    assert f"{output}/{PARTS[0]} is damaged (ArrowInvalid), and is made again" in caplog.text
    assert f"{output}/{PARTS[2]} is not of this encoding, and is made again" in caplog.text
    assert content(output) == content(whole[1])


def test_killed_before_any_name_is_given_it_comes_to_the_same_bytes(model, whole, tmp_path, warm):
    """Each file gets its name by two of ``Path.replace``; a kill leaves unfinished ones, which the next run clears."""
    source, output = whole[0], tmp_path / "out"
    command = ["encode", str(model), str(source), str(output), "--keep-text", "--part_rows", "20"]
    command += ["--chunk_rows", "8", "--batch_size", "4", "--threads", "1"]
    for call in (2, 4, 3, 6):
        done = warm(cli.__file__, *command, cwd=tmp_path, before=kill_at("pathlib.Path.replace", call))
        assert done.code == -9
        assert list(output.glob(".part-*")), "what was begun"
    assert 0 < len(list(output.glob("part-*"))) < 4
    assert warm(cli.__file__, *command, cwd=tmp_path).code == 0
    assert content(output) == content(whole[1])


def test_after_ctrl_c_it_says_what_is_kept(model, whole, tmp_path, monkeypatch):
    real = part_writer.PartWriter.write

    def interrupted(self, part):
        if part.number == 2:
            raise KeyboardInterrupt
        return real(self, part)

    monkeypatch.setattr(part_writer.PartWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt) as stop:
        run(model, whole[0], tmp_path / "out")
    assert str(stop.value) == f"29 of 48 rows are kept in {tmp_path / 'out'}; run the same command again to go on"


def test_it_goes_on_with_nothing_else(model, begun, tmp_path):
    source, output = begun
    save_folder(tiny_model(tmp_path / "made", seed=3), tmp_path / "other")
    changed = tmp_path / "changed"
    shutil.copytree(source, changed)
    os.utime(changed / "a.parquet", ns=(0, 0))
    for words, what in [
        ((tmp_path / "other", source, output, "--keep-text"), "the model was another"),
        ((model, changed, output, "--keep-text"), "the text was another"),
        ((model, source, output), "--keep_text was True and is False"),
        ((model, source, output, "--keep-text", "--part_rows", "30"), "--part_rows was 20 and is 30"),
        ((model, source, output, "--keep-text", "--text_column", "n"), "--text_column was text and is n"),
    ]:
        said = refusal(run, *words)
        assert f"{output} holds another encoding ({what}); go on with what it was begun with" in said
    report = run(model, source, output, "--overwrite", "--part_rows", "100")
    assert report.computed == 48
    assert sorted(content(output)) == ["_distilface.json", *PARTS[:3]], "the other's parts are gone"
    assert pq.read_table(output / PARTS[0]).column_names == ["row", "embedding"]


def test_a_store_gives_the_same_bytes_and_goes_on(model, whole, caplog):
    """A store in memory stands for any; its parts are as those of a local folder."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.put(f"{whole[0]}/", "/texts/", recursive=True)
    assert run(model, "memory://texts", "memory://vectors/new", "--keep-text").computed == 48
    assert {name: memory.cat(f"/vectors/new/{name}") for name in PARTS} == {
        name: part.replace(_key(whole[1] / PARTS[0]), _key(memory.open(f"/vectors/new/{PARTS[0]}")))
        for name, part in content(whole[1]).items()
        if name in PARTS
    }
    memory.rm(f"/vectors/new/{PARTS[1]}")
    assert run(model, "memory://texts", "memory://vectors/new", "--keep-text").computed == 20
    said = refusal(run, model, "memory://texts", "memory://vectors/new", "--variant", "bf16")
    assert "memory://vectors/new holds another encoding (--variant was fp32 and is bf16)" in said
    assert run(model, "memory://texts", "memory://vectors/new", "--overwrite").computed == 48
    memory.store.clear()


def _key(part) -> bytes:
    """Return the key in a part: of a file's time, which is another in another store."""
    return json.loads(pq.ParquetFile(part).metadata.metadata[b"distilface"])["key"].encode()


# ---- mistakes


def test_a_damaged_file_is_named_before_anything_is_written(model, tmp_path):
    write_files(tmp_path / "in")
    file = tmp_path / "in" / "b.parquet"
    file.write_bytes(file.read_bytes()[:-10])
    said = refusal(run, model, tmp_path / "in", tmp_path / "out")
    assert said.startswith(f"{file} cannot be read as Parquet (")
    assert said.endswith("); write it again")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"body": ["a"]}, "d.parquet: no column 'text'; found body"),
        ({"text": ["a", None]}, "d.parquet, row 2: nothing in column 'text'"),
        ({"text": [1, 2]}, "d.parquet, row 1, column 'text': 1 is not text"),
        ({"text": ["a"] * 24 + [None]}, "d.parquet, row 25: nothing in column 'text'"),
    ],
)
def test_text_that_is_none_is_refused_with_its_row(model, tmp_path, table, sentence):
    """What was done before stays, and the part of the mistake is not there."""
    write_files(tmp_path / "in")
    pq.write_table(pa.table(table), tmp_path / "in" / "d.parquet", row_group_size=10)
    assert f"{tmp_path / 'in'}/{sentence}" in refusal(run, model, tmp_path / "in", tmp_path / "out")
    assert not list(tmp_path.glob("out/.part-*"))


def test_a_file_that_changes_meanwhile_is_refused(model, tmp_path, monkeypatch):
    write_files(tmp_path / "in")
    real = part_writer.PartWriter.write

    def changing(self, part):
        if part.number == 1:
            os.utime(tmp_path / "in" / "b.parquet", ns=(0, 0))
        return real(self, part)

    monkeypatch.setattr(part_writer.PartWriter, "write", changing)
    said = refusal(run, model, tmp_path / "in", tmp_path / "out")
    assert said == f"{tmp_path / 'in'}/b.parquet was changed while it was read; run again when it is finished"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("IN", "v.npy"), "v.npy names a file, and the input is a folder; name a folder"),
        (("IN", "IN"), "is the input or lies in it; name another output"),
        (("IN", "IN/vectors"), "is the input or lies in it; name another output"),
        (("EMPTY", "out"), "holds no .parquet file; give a folder of them"),
        (("ROWLESS", "out"), "holds no row; its .parquet files are empty"),
        (("IN", "FULL"), "is not empty (mine.txt) and holds no encoding; name another folder"),
        (("IN", "out", "--part_rows", "0"), "--part_rows is 0; it must be 1 or more"),
        (("IN", "nosuch://bucket/out"), "nosuch://bucket/out cannot be opened (ValueError: Protocol not known: nosuch"),
        (("memory://none", "out"), "memory://none holds no .parquet file"),
        (("s3://name:secret@bucket/texts", "out"), "s3://bucket/texts cannot be "),
    ],
)
def test_a_mistake_is_one_sentence(model, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    write_files(tmp_path / "IN")
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FULL").mkdir()
    (tmp_path / "FULL" / "mine.txt").touch()
    (tmp_path / "ROWLESS").mkdir()
    shutil.copy(tmp_path / "IN" / "aa.parquet", tmp_path / "ROWLESS")
    said = refusal(run, model, *words)
    assert sentence in said
    assert "secret" not in said
    assert not (tmp_path / "out" / "_distilface.json").exists()


def test_no_room_and_another_process_are_said_before_the_first_part(model, whole, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with FileLock(tmp_path / "out" / "lock"):
        assert "another process is writing to" in refusal(run, model, whole[0], tmp_path / "out")
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, 48 * 136 - 1))
    assert "free some space or name a folder elsewhere" in refusal(run, model, whole[0], tmp_path / "out")


def test_a_worker_without_the_shared_folder_says_so(model, whole, tmp_path):
    """A machine of a cluster that does not see the output would else make one of its own."""
    task = part_writer.PartTask(None, None, Location.of(str(tmp_path / "none")), 8, False, 32, "key")
    writer = part_writer.PartWriter.__new__(part_writer.PartWriter)
    writer.task = task
    part = part_writer.Part(0, "a.parquet", 1, "1", 0, 1, 0, 0, len(FILES["a.parquet"]))
    assert "is not on the machine" in refusal(writer.write, part)
