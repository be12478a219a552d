"""A file of text to a file of embeddings: row by row upstream's, the same bytes after any kill, mistakes refused."""

import contextlib
import gc
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Generator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from exported import PAIRS_SET, cosines
from filelock import FileLock
from parts import save_model
from refusals import refusal
from sentence_transformers import SentenceTransformer
from tiny import WORDS, sentences, table, tiny_model, write_content
from warm import kill_at

from distilface import cli, extras
from distilface.console import run_command
from distilface.data import rows
from distilface.data import text_file as chunks
from distilface.data.text_file import TextFile
from distilface.embedding import ray_cluster, ray_workers
from distilface.embedding import worker as engines
from distilface.embedding.output import Output
from distilface.exporters import exporting as export
from distilface.exporters import parity
from distilface.model.folder import Folder, save_folder
from distilface.runtimes import opening
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
#: 27 rows: chunks of 8 make four shards. Two are empty, two longer than the 64 tokens that a tiny model reads.
TEXTS = [*sentences(10), "", *sentences(6, seed=1), "the dog " * 70, *sentences(7, seed=2), "  \t ", "cat " * 63]
SMALL = ("--chunk_rows", "8", "--batch_size", "4", "--threads", "1")
Usage = namedtuple("Usage", "free")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("encode"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """Save a folder with the int8 files of any x86 processor, and of ARM."""
    saved = save_model(tmp_path_factory.mktemp("exported"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "LOSS", 100.0)  # a random model's scores mean nothing
        export.export(saved, PAIRS_SET, ["vnni", "avx2", "arm64"])
    return saved


@pytest.fixture
def lines(tmp_path) -> Path:
    file = tmp_path / "lines.txt"
    file.write_text("".join(f"{text}\n" for text in TEXTS))
    return file


@pytest.fixture(scope="module")
def expected(folder) -> np.ndarray:
    """Embed every text alone, by plain upstream code; without text, zeros."""
    model = SentenceTransformer(str(folder), device="cpu")
    return np.array([model.encode(text) if text.strip() else np.zeros(32, np.float32) for text in TEXTS])


def write_input(file: Path, column: str = "text") -> Path:
    """Write :data:`TEXTS` as the name of the file says."""
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "txt":
        return write_content(file, "".join(f"{text}\r\n" for text in TEXTS))
    if kind == "parquet":
        pq.write_table(pa.table({"n": range(len(TEXTS)), column: TEXTS}), file, row_group_size=10)
        return file
    rows = [(1, text.replace("\t", " ") if kind == "tsv" else text) for text in TEXTS]
    return write_content(file, table(kind, ("n", column), rows))


def run(folder, source, output, *words):
    return cli.run(["encode", str(folder), str(source), str(output), *SMALL, *words])


def read(file: Path) -> np.ndarray:
    """Read the embeddings of an output, by the libraries of its users."""
    if file.suffix == ".npy":
        return np.load(file)
    return np.array(pq.read_table(file)["embedding"].to_pylist(), np.float32)


# ---- the rows


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("a.txt", "v.npy"),
        ("a.txt.gz", "v.parquet"),
        ("a.csv", "v.parquet"),
        ("a.tsv", "v.npy"),
        ("a.jsonl", "v.parquet"),
        ("a.jsonl.gz", "v.npy"),
        ("a.parquet", "v.parquet"),
    ],
)
def test_every_row_is_upstreams_in_its_place(folder, expected, tmp_path, caplog, source, output):
    input_file = write_input(tmp_path / source, "body")
    report = run(folder, input_file, tmp_path / "new" / output, "--text-column", "body")
    file = tmp_path / "new" / output
    assert [path.name for path in file.parent.iterdir()] == [output], "no shard is left"
    np.testing.assert_allclose(read(file), expected, atol=1e-5)
    assert (report.rows, report.width, report.empty, report.truncated) == (27, 32, 2, 2)
    assert report.megabytes == file.stat().st_size / 1e6
    assert f"encode: 27 of 27 rows to compute; fp32, 32 dimensions, about 0.0 MB in {file}" in caplog.text
    assert str(report).startswith(f"{file}: 27 rows of 32 numbers, 0.0 MB, ")
    assert str(report).endswith("; 2 empty (zeros), 2 cut at 64 tokens")


def test_what_is_in_the_files(folder, lines, tmp_path):
    """The header of numpy's own writer; row numbers, text as it was given, a list of fixed size."""
    run(folder, lines, tmp_path / "v.npy")
    np.save(tmp_path / "numpy.npy", np.load(tmp_path / "v.npy"))
    assert (tmp_path / "v.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    run(folder, lines, tmp_path / "v.parquet")
    run(folder, lines, tmp_path / "t.parquet", "--keep-text")
    plain, kept = pq.read_table(tmp_path / "v.parquet"), pq.read_table(tmp_path / "t.parquet")
    assert plain.column_names == ["row", "embedding"]
    assert kept.column_names == ["row", "text", "embedding"]
    assert kept["text"].to_pylist() == TEXTS
    assert kept["row"].to_pylist() == plain["row"].to_pylist() == list(range(27))
    assert plain.schema.field("embedding").type == pa.list_(pa.field("element", pa.float32()), 32)
    assert plain["embedding"].equals(kept["embedding"])
    assert np.array_equal(read(tmp_path / "v.parquet"), np.load(tmp_path / "v.npy"))


@pytest.mark.parametrize("kind", ["txt", "csv", "tsv"])
def test_a_blank_line_of_one_column_keeps_its_place(folder, expected, tmp_path, kind):
    """Later vectors moved up by one: each was another text's, silently. The last line needs no end."""
    lines = [TEXTS[0], "", TEXTS[1]] if kind == "txt" else ["text", TEXTS[0], "", TEXTS[1]]
    report = run(folder, write_content(tmp_path / f"a.{kind}", "\ufeff" + "\n".join(lines)), tmp_path / "v.npy")
    assert (report.rows, report.empty) == (3, 1)
    np.testing.assert_allclose(read(tmp_path / "v.npy"), [expected[0], np.zeros(32), expected[1]], atol=1e-5)


def test_the_folders_own_prompt_is_applied(tmp_path, lines, exported):
    model = SentenceTransformer(
        modules=list(tiny_model(tmp_path / "made")), prompts={"q": "big dog "}, default_prompt_name="q", device="cpu"
    )
    save_folder(model, tmp_path / "m")
    run(tmp_path / "m", lines, tmp_path / "v.npy")
    rows = [row for row, text in enumerate(TEXTS) if text.strip()]
    expected = model.encode([TEXTS[row] for row in rows], prompt="big dog ")
    assert np.abs(expected - model.encode([TEXTS[row] for row in rows], prompt="")).max() > 0.01
    np.testing.assert_allclose(np.load(tmp_path / "v.npy")[rows], expected, atol=1e-5)
    file = opening.choose(Folder(exported), "int8")  # of the same weights, without the prompt
    variant = engines.Variant(str(tmp_path / "m"), "int8", file, batch_size=4, threads=1, device="cpu")
    embeddings = engines.Worker(variant).encode(0, TEXTS[:8]).embeddings
    prompted = opening.open_file(file, exported).encode([f"big dog {text}" for text in TEXTS[:8]], batch_size=4)
    assert np.array_equal(embeddings, prompted)


@pytest.mark.parametrize("count", [61, 62, 63, 64])
@pytest.mark.parametrize("token", ["cat ", "!"])
def test_a_text_is_counted_as_cut_from_the_first_token_on_that_is_not_read(folder, tmp_path, count, token):
    """Of a text of marks every byte is a token: the shortest one that can be cut."""
    (tmp_path / "a.txt").write_text(token * count)
    assert run(folder, tmp_path / "a.txt", tmp_path / "v.npy").truncated == (count > 62)  # 62 and two marks are 64


@pytest.mark.parametrize("text", ["é" * 40, "ﷺ" * 9, "½ ﬃ" * 20, "a b " * 9, "狗" * 61, "\U0001f600" * 70])
def test_no_text_has_more_tokens_than_is_said(folder, text):
    """A text for which that is few is not tokenised to see whether it is cut."""
    tokenizer = SentenceTransformer(str(folder), device="cpu").tokenizer
    assert len(tokenizer.tokenize(text)) <= engines._most_tokens(text)


# ---- variants


def test_bf16_is_close(folder, lines, expected, tmp_path):
    run(folder, lines, tmp_path / "v.npy", "--variant", "bf16")
    embeddings = np.load(tmp_path / "v.npy")
    assert 0 < np.abs(embeddings - expected).max() < 0.05


def test_int8_runs_the_export_in_the_same_batches(exported, lines, expected, tmp_path):
    run(exported, lines, tmp_path / "v.npy", "--variant", "int8")
    embeddings = np.load(tmp_path / "v.npy")
    encoder = opening.open_file(opening.choose(Folder(exported), "int8"), exported)
    for start in range(0, 27, 8):
        rows = [row for row in range(start, min(start + 8, 27)) if TEXTS[row].strip()]
        assert np.array_equal(embeddings[rows], encoder.encode([TEXTS[row] for row in rows], batch_size=4))
    full = np.abs(expected).max(axis=1) > 0
    assert cosines(embeddings[full], expected[full]).min() > 0.9


@pytest.mark.parametrize(
    ("machine", "vnni", "file"),
    [
        ("x86_64", True, "model_qint8_avx512_vnni.onnx"),
        ("x86_64", False, "model_quint8_avx2.onnx"),
        ("aarch64", False, "model_qint8_arm64.onnx"),
    ],
)
def test_the_export_is_the_processors(exported, monkeypatch, machine, vnni, file):
    """Weights from -128 on an x86 without VNNI overflow without a word."""
    monkeypatch.setattr(opening.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    assert opening.choose(Folder(exported), "int8").file.name == file


def test_without_an_export_of_these_weights_int8_is_refused(folder, exported, lines, tmp_path):
    said = refusal(run, folder, lines, tmp_path / "v.npy", "--variant", "int8")
    assert f"{folder} has no int8 export of its weights for this processor; make it first: distilface export" in said
    save_folder(tiny_model(tmp_path / "made", seed=5), tmp_path / "other")
    for name in ("onnx", "export.json"):
        (tmp_path / "other" / name).symlink_to(exported / name)
    assert "has no int8 export" in refusal(run, tmp_path / "other", lines, tmp_path / "v.npy", "--variant", "int8")


# ---- going on


def test_killed_at_every_step_it_comes_to_the_same_bytes(folder, exported, lines, tmp_path, warm):
    """Every file gets its name by ``Path.replace``: the key, four shards, the whole file, the report, the output.

    Each run does one of these and is killed before the next; without a report, the whole file is written anew.
    """
    whole, output = tmp_path / "whole.parquet", tmp_path / "v.parquet"
    words = ("--variant", "int8", "--keep-text")
    run(exported, lines, whole, *words)
    command = ["encode", str(exported), str(lines), str(output), *SMALL, *words]
    codes = []
    for call in (2, 2, 2, 2, 2, 2, 3, 2):
        assert not output.exists()
        codes.append(warm(cli.__file__, *command, cwd=tmp_path, before=kill_at("pathlib.Path.replace", call)).code)
    assert codes == [-9] * 7 + [0]
    assert output.read_bytes() == whole.read_bytes()
    assert not output.with_name("v.parquet.shards").exists()


def test_killed_while_it_clears_away_it_is_whole(folder, lines, tmp_path, warm):
    output = tmp_path / "v.npy"
    command = ["encode", str(folder), str(lines), str(output), *SMALL]
    done = warm(cli.__file__, *command, cwd=tmp_path, before=kill_at("pathlib.Path.unlink", 5))
    assert done.code == -9
    before = output.read_bytes()
    left = [path.name for path in output.with_name("v.npy.shards").iterdir()]
    assert 0 < sum(name.endswith(".arrow") for name in left) < 4
    done = warm(cli.__file__, *command, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert done.stdout.startswith(f"{output}: 27 rows of 32 numbers")
    assert output.read_bytes() == before
    assert not output.with_name("v.npy.shards").exists()
    done = warm(cli.__file__, *command, cwd=tmp_path)
    assert done.code == 2
    assert done.stderr.splitlines()[-1] == f"error: {output} exists; name another file, or add --overwrite"


@pytest.fixture
def stopped(folder, lines, tmp_path, monkeypatch) -> Path:
    """Interrupt an encoding in its third chunk, and give its output."""
    real = engines.Worker.encode

    def interrupted(self, number, texts):
        if number == 2:
            raise KeyboardInterrupt
        return real(self, number, texts)

    with monkeypatch.context() as patch:
        patch.setattr(engines.Worker, "encode", interrupted)
        with pytest.raises(KeyboardInterrupt) as stop:
            run(folder, lines, tmp_path / "v.npy")
    shards = tmp_path / "v.npy.shards"
    assert str(stop.value) == f"16 of 27 rows are kept in {shards}; run the same command again to go on"
    assert not (tmp_path / "v.npy").exists()
    return tmp_path / "v.npy"


def test_after_ctrl_c_only_the_rest_is_computed(folder, lines, stopped, tmp_path, monkeypatch, caplog):
    run(folder, lines, tmp_path / "whole.npy")
    computed, real = [], engines.Worker.encode
    monkeypatch.setattr(
        engines.Worker, "encode", lambda self, number, texts: (computed.append(number), real(self, number, texts))[1]
    )
    report = run(folder, lines, stopped)
    assert computed == [2, 3]
    assert (report.rows, report.computed, report.truncated) == (27, 11, 2)
    assert "encode: 11 of 27 rows to compute, 16 are there; fp32" in caplog.text
    assert stopped.read_bytes() == (tmp_path / "whole.npy").read_bytes()


def test_it_goes_on_with_nothing_else(folder, lines, stopped, tmp_path, expected, caplog):
    """Shards of two models, texts or settings in one file would be found by nobody."""
    save_folder(tiny_model(tmp_path / "made", seed=3), tmp_path / "other")
    changed = tmp_path / "changed.txt"
    changed.write_text(lines.read_text().replace(TEXTS[20], "another", 1))
    remedy = "begin anew with --overwrite, or name another output"
    for words, what in [
        ((tmp_path / "other", lines), "the model was another"),
        ((folder, changed), "the text was another"),
        ((folder, lines, "--variant", "bf16"), "--variant was fp32 and is bf16"),
        ((folder, lines, "--batch_size", "5"), "--batch_size was 4 and is 5"),
        ((folder, lines, "--threads", "2"), "--threads was 1 and is 2"),
    ]:
        said = refusal(run, *words[:2], stopped, *words[2:])
        assert f"{stopped}.shards holds the beginning of another encoding ({what})" in said
        assert said.endswith(remedy)
    run(tmp_path / "other", lines, stopped, "--overwrite")
    assert "the beginning of another encoding is dropped (the model was another)" in caplog.text
    other = SentenceTransformer(str(tmp_path / "other"), device="cpu")
    np.testing.assert_allclose(np.load(stopped)[0], other.encode(TEXTS[0]), atol=1e-5)
    assert np.abs(np.load(stopped) - expected).max() > 0.01


def test_an_input_that_grows_meanwhile_is_refused(folder, lines, tmp_path, monkeypatch):
    survey = TextFile.survey

    def growing(self):
        result = survey(self)
        with lines.open("a") as file:
            file.write("one more\n")
        return result

    monkeypatch.setattr(TextFile, "survey", growing)
    assert f"{lines} was changed while it was read" in refusal(run, folder, lines, tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()


@pytest.mark.parametrize("read", [0, 1, 4])
@pytest.mark.parametrize("change", ["another text", "cut short", "gone"])
def test_a_change_of_the_input_is_noticed_at_any_time(lines, read, change):
    """A text of the same length too, and after the last chunk: a file that became shorter ends early."""
    source, content = TextFile(lines, "text", 8), lines.read_text()
    survey = source.survey()
    chunks = source.surveyed_chunks(survey, range(4))
    assert [next(chunks) for _ in range(read)] == list(source.surveyed_chunks(survey, range(read)))
    lines.unlink()
    if change != "gone":
        lines.write_text(content[:100] if change == "cut short" else content.replace("dog", "cat"))
        os.utime(lines, ns=(0, survey.state[1] + 10**7))  # by a coarse clock both would have the same time
    assert "was changed while it was read; run again when it is finished" in refusal(list, chunks)


def test_two_at_once_do_not_meet(folder, lines, tmp_path):
    (tmp_path / "v.npy.shards").mkdir()
    with FileLock(tmp_path / "v.npy.shards" / "lock"):
        assert "another process is writing" in refusal(run, folder, lines, tmp_path / "v.npy")
    run(folder, lines, tmp_path / "v.npy")


def test_an_output_that_is_there_is_replaced_only_when_asked(folder, lines, tmp_path):
    (tmp_path / "v.npy").write_bytes(b"mine")
    said = refusal(run, folder, lines, tmp_path / "v.npy")
    assert said == f"{tmp_path / 'v.npy'} exists; name another file, or add --overwrite"
    assert (tmp_path / "v.npy").read_bytes() == b"mine"
    assert not (tmp_path / "v.npy.shards").exists()
    run(folder, lines, tmp_path / "v.npy", "--overwrite")
    assert np.load(tmp_path / "v.npy").shape == (27, 32)


# ---- memory


def test_no_more_than_a_chunk_is_held(folder, tmp_path, monkeypatch):
    """Between one shard and the next no more rows are read than one chunk has."""
    file = tmp_path / "a.txt"
    file.write_text("a dog\n" * 100)
    read_rows, lines_of, written = [], rows.decoded_lines, Output.write

    def counted(path):
        for line in lines_of(path):
            read_rows.append(line)
            yield line

    def write(self, number, *args):
        assert len(read_rows) <= 100 + (number + 1) * 8  # the survey has read them all once
        written(self, number, *args)

    monkeypatch.setattr(rows, "decoded_lines", counted)
    monkeypatch.setattr(Output, "write", write)
    assert run(folder, file, tmp_path / "v.npy").rows == 100
    assert len(read_rows) == 200


MEMORY = """
import json, resource, sys
from distilface import cli
found = cli.run(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([found.rows, used]))
"""


@pytest.mark.slow
def test_a_million_lines_cost_no_more_memory_than_ten_thousand(folder, tmp_path):
    used = []
    for count in (10_000, 1_000_000):
        draw = random.Random(0)
        with (tmp_path / f"{count}.txt").open("w") as file:
            file.writelines(f"{' '.join(draw.choices(WORDS.split(), k=8))}\n" for _ in range(count))
        words = ["encode", str(folder), str(tmp_path / f"{count}.txt"), str(tmp_path / f"{count}.parquet")]
        done = subprocess.run([sys.executable, "-c", MEMORY, *words], stdout=subprocess.PIPE, text=True, check=True)
        rows, memory = json.loads(done.stdout.splitlines()[-1])
        assert rows == count == pq.ParquetFile(tmp_path / f"{count}.parquet").metadata.num_rows
        used.append(memory)
    assert used[1] - used[0] < 100 * 2**20


# ---- mistakes

LATIN = pa.array([b"a dog", b"caf\xe9"]).view(pa.string())


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", b"a dog\n" * 20 + b"caf\xe9\n", "a.txt, line 21: byte 0xe9 is not UTF-8"),
        ("a.csv", b"text\na dog\ncaf\xe9\n", "a.csv, line 3: byte 0xe9 is not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "a.jsonl, line 2: no column 'text'; found body"),
        ("a.jsonl", b'{"text": "a"}\n{"text": 5}\n', "a.jsonl, line 2, column 'text': 5 is not text"),
        ("a.jsonl", b'{"text": "a"}\n{"text": null}\n', "a.jsonl, line 2: nothing in column 'text'"),
        ("a.txt", b"", "a.txt holds no row; it is empty"),
        ("a.txt.gz", b"plain", "a.txt.gz is a broken gzip file"),
        ("a.parquet", b"plain", "a.parquet cannot be read as Parquet"),
        ("a.parquet", {"body": ["a"]}, "a.parquet: no column 'text'; found body"),
        ("a.parquet", {"text": ["a", None]}, "a.parquet, row 2: nothing in column 'text'"),
        ("a.parquet", {"text": [1, 2]}, "a.parquet, row 1, column 'text': 1 is not text"),
        ("a.parquet", {"text": LATIN}, "a.parquet, row 2: byte 0xe9 is not UTF-8"),
        ("a.pdf", b"plain", "a.pdf: .pdf suffix; text is read from .txt, .csv, .tsv, .jsonl (each also .gz) and"),
    ],
)
def test_a_bad_input_is_refused_before_anything_is_computed(folder, tmp_path, monkeypatch, name, content, sentence):
    monkeypatch.setattr(engines.Worker, "__init__", lambda *args: pytest.fail("computed"))
    if isinstance(content, dict):
        pq.write_table(pa.table(content), tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    assert f"{tmp_path}/{sentence}" in refusal(run, folder, tmp_path / name, tmp_path / "v.npy")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["FOLDER", "IN"], "no output given; as distilface encode models/mine lines.txt vectors.parquet"),
        (["FOLDER"], "no input given"),
        (["FOLDER", "IN", "v.npy", "more"], "unexpected words: more"),
        (["nowhere", "IN", "v.npy"], "nowhere does not exist; give a model folder"),
        (["FOLDER", "none.txt", "v.npy"], "none.txt does not exist; give one file of text"),
        (["FOLDER", ".", "v.npy"], "v.npy names a file, and the input is a folder; name a folder for its embeddings"),
        (["FOLDER", "IN", "v.txt"], "v.txt: .txt suffix; embeddings are written to .parquet or .npy"),
        (["FOLDER", "IN", "v.npy", "--keep-text"], "v.npy has no place for text"),
        (["FOLDER", "IN", "v.npy", "--variant", "int4"], "unknown variant 'int4': did you mean 'int8'?"),
        (["FOLDER", "IN", "v.npy", "--engine", "rya"], "unknown engine 'rya': did you mean 'ray'?"),
        (["FOLDER", "IN", "v.npy", "--workers", "2"], "--workers 2 is for --engine ray"),
        (["FOLDER", "IN", "v.npy", "--chunk_rows", "0"], "--chunk_rows is 0; it must be 1 or more"),
        (["FOLDER", "IN", "v.npy", "--variant", "int8", "--device", "cuda"], "int8 runs on the CPU, not on cuda"),
    ],
)
def test_a_mistake_is_one_sentence(folder, lines, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": str(folder), "IN": str(lines)}
    assert sentence in refusal(cli.run, ["encode", *(places.get(word, word) for word in words)])
    assert [path.name for path in tmp_path.iterdir()] == ["lines.txt"]


def test_an_input_is_not_replaced_by_its_embeddings(folder, tmp_path):
    file = write_input(tmp_path / "a.parquet")
    assert "is the input as well" in refusal(run, folder, file, file, "--overwrite")


def test_no_room_on_the_disk_is_said_before_the_first_row(folder, lines, tmp_path, monkeypatch):
    """The shards and the whole file stand side by side."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * 27 * 32 * 4 - 1))
    assert "free some space or name a file elsewhere" in refusal(run, folder, lines, tmp_path / "v.npy")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2 * 27 * 32 * 4))
    run(folder, lines, tmp_path / "v.npy")


def test_a_disk_that_gets_full_leaves_whole_shards(folder, lines, tmp_path, monkeypatch, capsys):
    real = Output.write

    def full(self, number, *args):
        if number == 2:
            raise OSError(28, "No space left on device", "v.npy")
        real(self, number, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "write", full)
        with pytest.raises(SystemExit) as left:
            run_command(lambda: run(folder, lines, tmp_path / "v.npy"))
    assert left.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: the disk is full (v.npy); free some space"
    assert run(folder, lines, tmp_path / "v.npy").computed == 11


def test_a_model_that_gives_nan_is_refused(tmp_path, lines):
    model = tiny_model(tmp_path / "made")
    with torch.no_grad():
        model[0].model.embeddings.word_embeddings.weight[5:].fill_(np.nan)
    save_folder(model, tmp_path / "m")
    assert f"{tmp_path / 'm'} gives NaN or infinity for" in refusal(run, tmp_path / "m", lines, tmp_path / "v.npy")
    assert not list((tmp_path / "v.npy.shards").glob("*.arrow"))


# ---- Ray


def test_without_ray_the_extra_is_named(folder, lines, tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    said = refusal(run, folder, lines, tmp_path / "v.npy", "--engine", "ray")
    assert said == "the workers of --engine ray need ray; pip install 'distilface[ray]'"


@pytest.mark.parametrize(
    ("device", "threads", "room"),
    [("cpu", 1, 11), ("cpu", 2, 5), ("cpu", 4, 2), ("cpu", 8, 1), ("cuda", 1, 2), ("cuda:0", 8, 1), ("mps", 3, 3)],
)
def test_workers_that_would_wait_for_ever_are_refused(device, threads, room):
    """A worker lies on one machine: CPUs left on two make none."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    variant = engines.Variant("m", "fp32", None, batch_size=4, threads=threads, device=device)
    assert ray_cluster.worker_count(nodes, variant, None) == room
    assert ray_cluster.worker_count(nodes, variant, room) == room
    assert ray_cluster.worker_count(nodes, variant, 1) == 1
    with pytest.raises(InputError, match=f"Ray has room for {room} workers of {threads} threads.* and {room + 1} are"):
        ray_cluster.worker_count(nodes, variant, room + 1)
    assert "room for 0 workers" in refusal(ray_cluster.worker_count, [], variant, None)


def test_a_cluster_that_is_not_there_is_told_in_one_sentence(folder, lines, tmp_path, monkeypatch):
    """At once: Ray itself would try for many minutes."""
    said = refusal(ray_cluster.check_address, "ray://a:10001")
    assert "RAY_ADDRESS is ray://a:10001, and the file must be read on a machine of" in said
    with socket.create_server(("localhost", 0)) as server:
        address = f"localhost:{server.getsockname()[1]}"
        ray_cluster.check_address(address)
    for wrong in (address, "localhost:99999"):
        with pytest.raises(InputError, match=f"no cluster of Ray answers .*; RAY_ADDRESS is {wrong}: start a"):
            ray_cluster.check_address(wrong)
    for left_to_ray in ("", "auto", "local"):
        ray_cluster.check_address(left_to_ray)


@pytest.fixture(scope="module")
def ray_of_two():
    """Start Ray with two CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray = pytest.importorskip("ray", reason="needs ray (the extra 'ray')")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield ray
        ray.shutdown()


def on_two(folder: str, source: TextFile, survey: chunks.Survey) -> Generator[engines.Done]:
    gc.collect()  # Ray ends the workers of the test before a few seconds after nothing refers to them any more
    _, left = psutil.wait_procs(embedding_workers(), timeout=60)
    assert not left
    variant = engines.Variant(folder, "fp32", None, batch_size=4, threads=1, device="cpu")
    return ray_workers.on_ray(variant, source, survey, range(len(survey.sizes)), 2)


def embedding_workers() -> list[psutil.Process]:
    workers = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "(_Embedding)" in " ".join(child.cmdline()):
                workers.append(child)
    return workers


@pytest.mark.usefixtures("ray_of_two")
def test_two_workers_of_ray_give_the_same_bytes(exported, lines, tmp_path):
    run(exported, lines, tmp_path / "one.parquet", "--variant", "int8", "--keep-text")
    words = ("--engine", "ray", "--workers", "2", "--keep-text")
    report = run(exported, lines, tmp_path / "two.parquet", "--variant", "int8", *words)
    assert (report.rows, report.computed, report.truncated) == (27, 27, 2)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    missing = refusal(run, exported, lines, tmp_path / "three.parquet", *words[:3], "3")
    assert "Ray has room for 2 workers of 1 threads each, and 3 are wanted" in missing


@pytest.mark.usefixtures("ray_of_two")
def test_what_ray_has_not_done_yet_is_done_by_the_next_run(folder, lines, tmp_path, monkeypatch):
    run(folder, lines, tmp_path / "one.npy")
    real, written = Output.write, []

    def write(output, number, *rest):
        real(output, number, *rest)
        written.append(number)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Output, "write", write)
    with pytest.raises(KeyboardInterrupt, match="of 27 rows are kept"):
        run(folder, lines, tmp_path / "two.npy", "--engine", "ray", "--workers", "2")
    report = run(folder, lines, tmp_path / "two.npy", "--engine", "ray", "--workers", "2")
    assert sorted(written) == [0, 1, 2, 3]
    assert report.computed == sum((8, 8, 8, 3)[number] for number in written[2:])
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()


@pytest.mark.usefixtures("ray_of_two")
def test_a_worker_of_ray_that_is_killed_loses_no_chunk(folder, tmp_path):
    """Its chunk is computed anew: each is given once, and with its own text."""
    texts = sentences(400)
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts))
    source = TextFile(tmp_path / "a.txt", "text", 1)
    results, seen = {}, set()
    for done in on_two(str(folder), source, source.survey()):
        assert done.number not in results
        results[done.number] = done.texts
        workers = embedding_workers()
        if not seen:
            workers[0].kill()
        seen |= {worker.pid for worker in workers}
    assert len(seen) == 3, "two workers, and the one that took the place of the killed"
    assert [results[number] for number in range(400)] == [[text] for text in texts]


def test_a_worker_of_ray_without_the_folder_is_told_in_one_sentence(ray_of_two, folder, lines, capfd):
    source = TextFile(lines, "text", 8)
    none = folder / "none"
    said = refusal(list, on_two(str(none), source, source.survey()))
    assert said.startswith(f"Ray has ended before the work ({none} does not exist; give a model folder); {none} must")
    assert "Traceback" not in capfd.readouterr().err
    assert ray_of_two.is_initialized(), "a cluster that was there stays"


@pytest.mark.usefixtures("ray_of_two")
def test_a_file_that_changes_under_ray_is_told_in_one_sentence(folder, lines, capfd):
    source = TextFile(lines, "text", 8)
    survey = source.survey()
    lines.write_text(lines.read_text().replace("dog", "horse"))
    said = refusal(list, on_two(str(folder), source, survey))
    assert said == f"{lines} was changed while it was read; run again when it is finished"
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_of_ray_that_ends_each_time_is_not_started_for_ever(ray_of_two, folder, lines, monkeypatch):
    monkeypatch.setattr(ray_cluster, "RESTARTS", 1)
    source = TextFile(lines, "text", 8)
    work = on_two(str(folder), source, source.survey())
    killed, over = set(), threading.Event()

    def kill():
        while not over.wait(0.1):
            for worker in embedding_workers():
                worker.kill()
                killed.add(worker.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        said = refusal(list, work)
    finally:
        over.set()
        killer.join()
    assert 2 <= len(killed) <= 4, "each of the two, and the one that took its place"
    assert said.startswith("Ray has ended before the work (")
    assert said.endswith(f"; {folder} must lie at that path on every machine; run the same command again to go on")
    assert ray_of_two.is_initialized()


def test_the_command_starts_ray_itself_and_says_no_more_than_alone(folder, lines, tmp_path):
    """By a path from the working directory and through a link that has no suffix, which the reading worker has not."""
    pytest.importorskip("ray", reason="needs ray (the extra 'ray')")
    run(folder, lines, tmp_path / "one.parquet", "--keep-text")
    lines.rename(tmp_path / "content")
    lines.symlink_to("content")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}

    def command(*words):
        words = ["encode", str(folder), lines.name, "two.parquet", *SMALL, "--keep-text", "--engine", "ray", *words]
        return subprocess.run(
            [sys.executable, "-m", "distilface.cli", *words],
            cwd=tmp_path,
            env=environment | {"RAY_ADDRESS": "local", "PYTHONPATH": str(Path(cli.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )

    refused = command("--workers", "9999")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].startswith("error: Ray has room for ")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "two.parquet").exists()
    done = command("--workers", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("two.parquet: 27 rows of 32 numbers")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    printed = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Loading weights")]
    assert len([line for line in printed if line.startswith("encode: ")]) == len(printed), printed
