"""The teacher's embeddings: right row by row, computed once, refused before the first where that cannot end well."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from filelock import FileLock
from sentence_transformers import SentenceTransformer
from tiny import WORDS, needs_package, tiny_model

from distilface.embedding import teacher_cache as module
from distilface.embedding.rounding import restored
from distilface.embedding.teacher_cache import embed
from distilface.settings import InputError
from distilface.training.teacher import load_teacher

MEMORY = """
import json, resource, sys
from distilface.data.texts import read_texts
from distilface.compression.student import load_student
from distilface.embedding.teacher_cache import embed

texts = read_texts([sys.argv[1]])
teacher = load_student("sentence-transformers/all-MiniLM-L6-v2", [0], max_seq_length=8).eval()
dataset = embed(teacher, texts, sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([len(texts), len(dataset), used]))
"""
Usage = namedtuple("Usage", "free")


def sentences(count):
    """Make distinct sentences of 1 to 30 words, no two neighbours of one length."""
    draw = np.random.default_rng(0)
    return [f"{' '.join(draw.choice(WORDS.split(), 1 + i * 7 % 30))} {chr(97 + i % 26)}{i}" for i in range(count)]


@pytest.fixture
def texts():
    return Dataset.from_dict({"text": sentences(30)})


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 8)


@pytest.fixture
def encoded(monkeypatch):
    """Count the sentences of every call of ``encode``; ``encoded.fail(n, error)`` raises in the n-th call."""

    class Calls(list):
        at, error = 0, None

        def fail(self, at, error):
            self.clear()
            self.at, self.error = at, error

    calls, encode = Calls(), SentenceTransformer.encode

    def counting(self, rows, *args, **kwargs):
        calls.append(len(rows))
        if calls.error and len(calls) == calls.at:
            raise calls.error
        return encode(self, rows, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", counting)
    return calls


def one_by_one(model, texts, prompt=""):
    """Embed each sentence alone, by the encoder and numpy: no batch, no order, no padding."""
    rows = []
    for text in texts:
        tokens = model.tokenizer(prompt + text, return_tensors="pt")
        with torch.no_grad():
            rows.append(model[0].model(**tokens).last_hidden_state[0].numpy().mean(axis=0))
    return np.array(rows)


def labels(dataset):
    return np.asarray(dataset["label"], np.float32)


def shards(cache):
    """List the shards of the cache, the unfinished ones too."""
    return sorted(path.name for path in cache.glob("*-fp32/0*") if path.suffix != ".keys")


@pytest.mark.usefixtures("small_shards")
def test_embeddings_are_the_teachers_row_by_row(teacher, texts, tmp_path):
    """Shards, batches by length and a shuffled data set each have an order of their own to mix rows up."""
    shuffled = texts.add_column("n", range(30)).rename_column("text", "body").shuffle(seed=3)
    rows = embed(teacher, shuffled, tmp_path, column="body", batch_size=3, bf16=False)
    assert rows.column_names == ["body", "label"]
    assert rows["body"][:] == shuffled["body"][:] != texts["text"][:]
    assert np.abs(labels(rows) - one_by_one(teacher, shuffled["body"])).max() < 1e-5


def test_the_teachers_own_prompt_is_applied(tmp_path, texts):
    model = tiny_model(tmp_path / "plain")
    prompted = SentenceTransformer(modules=list(model), prompts={"query": "the big dog "}, default_prompt_name="query")
    prompted.save_pretrained(str(tmp_path / "prompted"), create_model_card=False)
    plain, prompted = (load_teacher(str(tmp_path / name), device="cpu") for name in ("plain", "prompted"))
    embeddings = labels(embed(prompted, texts, tmp_path / "cache", bf16=False))
    assert np.abs(embeddings - one_by_one(plain, texts["text"], "the big dog ")).max() < 1e-5
    assert np.abs(embeddings - labels(embed(plain, texts, tmp_path / "cache", bf16=False))).max() > 0.01


def test_a_teacher_that_keeps_some_dimensions(tmp_path, texts):
    model = tiny_model(tmp_path / "teacher")
    short = SentenceTransformer(str(tmp_path / "teacher"), truncate_dim=8, device="cpu")
    assert (
        np.abs(labels(embed(short, texts, tmp_path, bf16=False)) - one_by_one(model, texts["text"])[:, :8]).max() < 1e-5
    )


def test_bf16_is_close_and_kept_apart(teacher, texts, tmp_path):
    exact, rounded = (labels(embed(teacher, texts, tmp_path, bf16=bf16)) for bf16 in (False, True))
    assert 0 < np.abs(exact - rounded).max() < 0.05
    assert len(list(tmp_path.glob("*-bf16"))) == len(list(tmp_path.glob("*-fp32"))) == 1


def test_found_in_the_cache_the_teacher_is_not_asked(teacher, texts, tmp_path, encoded, monkeypatch):
    first = labels(embed(teacher, texts, tmp_path / "cache"))
    encoded.fail(1, AssertionError("asked again"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0))
    again = load_teacher(str(tmp_path / "teacher"), device="cpu")
    assert np.array_equal(labels(embed(again, texts, tmp_path / "cache")), first)
    assert not encoded


def test_of_other_weights_all_is_computed_anew_and_of_other_text_what_is_new(teacher, texts, tmp_path, encoded):
    embed(teacher, texts, tmp_path / "cache", bf16=False)
    with torch.no_grad():
        teacher[0].model.embeddings.word_embeddings.weight[5, 3] += 1
    embeddings = embed(teacher, texts, tmp_path / "cache", bf16=False)
    assert np.abs(labels(embeddings) - one_by_one(teacher, texts["text"])).max() < 1e-5
    changed = [*texts["text"][:29], "another last one"]
    embeddings = embed(teacher, Dataset.from_dict({"text": changed}), tmp_path / "cache", bf16=False)
    assert np.abs(labels(embeddings) - one_by_one(teacher, changed)).max() < 1e-5
    assert encoded == [30, 30, 1]


def grown(texts):
    """Return every third of the texts, in another order, between new ones."""
    old = texts["text"][:][::-3]
    return Dataset.from_dict({"text": [text for row, each in enumerate(old) for text in (each, f"a new cat {row}")]})


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_of_text_that_has_grown_only_the_new_is_embedded(teacher, texts, tmp_path, encoded, caplog, dtype):
    """In the rows where it now stands, over several shards, and as often as the text grows."""
    caplog.set_level(logging.INFO, logger="distilface")
    embed(teacher, texts, tmp_path, bf16=False, dtype=dtype)
    encoded.clear()
    more = grown(texts)
    first = embed(teacher, more, tmp_path, bf16=False, dtype=dtype)
    assert sum(encoded) == 10
    assert "teacher: 10 of 20 embeddings to compute" in caplog.text
    assert "; 10 are taken from those of other text" in caplog.text
    tolerance = {"float32": 1e-5, "float16": 1e-3, "int8": 0.02}[dtype]
    got = restored(np.asarray(first.with_format("numpy")["label"][:]))
    assert np.abs(got - one_by_one(teacher, more["text"])).max() < tolerance
    encoded.clear()
    both = Dataset.from_dict({"text": ["the last", *texts["text"][:], *more["text"][1::2]]})
    again = embed(teacher, both, tmp_path, bf16=False, dtype=dtype)
    assert encoded == [1]
    got = restored(np.asarray(again.with_format("numpy")["label"][:]))
    assert np.abs(got - one_by_one(teacher, both["text"])).max() < tolerance


def test_another_precision_or_teacher_gives_no_embedding(teacher, texts, tmp_path, encoded):
    for number, (dtype, other) in enumerate([("int8", "float32"), ("float32", "int8")]):
        embed(teacher, texts, tmp_path / str(number), bf16=False, dtype=dtype)
        encoded.clear()
        embed(teacher, grown(texts), tmp_path / str(number), bf16=False, dtype=other)
        assert sum(encoded) == 20
    embed(teacher, texts, tmp_path, bf16=False)
    encoded.clear()
    embed(teacher, grown(texts), tmp_path, bf16=True)
    assert sum(encoded) == 20
    with torch.no_grad():
        teacher[0].model.embeddings.word_embeddings.weight[5, 3] += 1
    more = grown(texts)
    rows = embed(teacher, more, tmp_path, bf16=False)
    assert np.abs(labels(rows) - one_by_one(teacher, more["text"])).max() < 1e-5


@pytest.mark.parametrize("name", ["000000000.arrow", "000000000.keys"])
@pytest.mark.parametrize("damage", ["gone", "short"])
def test_what_is_damaged_among_other_text_is_embedded_anew(teacher, texts, tmp_path, encoded, name, damage):
    embed(teacher, texts, tmp_path, bf16=False)
    file = next(tmp_path.glob(f"*/{name}"))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    encoded.clear()
    more = grown(texts)
    rows = embed(teacher, more, tmp_path, bf16=False)
    assert sum(encoded) == 20
    assert np.abs(labels(rows) - one_by_one(teacher, more["text"])).max() < 1e-5


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interrupted_pass_goes_on_where_it_stopped(teacher, texts, tmp_path, encoded, caplog, error):
    encoded.fail(3, error)
    with pytest.raises(type(error)):
        embed(teacher, texts, tmp_path, bf16=False)
    assert encoded == [8, 8, 8]
    assert shards(tmp_path) == ["000000000.arrow", "000000001.arrow"]
    encoded.fail(0, None)
    caplog.set_level(logging.INFO, logger="distilface")
    rows = embed(teacher, texts, tmp_path, bf16=False)
    assert encoded == [8, 6]
    assert "14 of 30 embeddings to compute" in caplog.text
    assert np.abs(labels(rows) - one_by_one(teacher, texts["text"])).max() < 1e-5
    assert {Path(file["filename"]) for file in rows.cache_files} == set(tmp_path.glob("*-fp32/*.arrow"))


@pytest.mark.usefixtures("small_shards")
def test_a_second_process_waits_for_the_first(teacher, texts, tmp_path, encoded, caplog):
    caplog.set_level(logging.INFO, logger="distilface")
    first = labels(embed(teacher, texts, tmp_path / "a", bf16=False))
    there = next((tmp_path / "a").iterdir())
    here = tmp_path / "b" / there.name
    here.mkdir(parents=True)
    encoded.fail(1, AssertionError("computed twice"))
    rows = []
    second = threading.Thread(target=lambda: rows.append(labels(embed(teacher, texts, tmp_path / "b", bf16=False))))
    with FileLock(here / "lock"):
        second.start()
        while f"another process is writing to {here}; waiting for it" not in caplog.text:
            time.sleep(0.01)
        for file in there.glob("*.arrow"):
            shutil.copy(file, here)
    second.join(60)
    assert np.array_equal(rows, [first])


@pytest.mark.usefixtures("small_shards")
def test_the_cache_of_an_older_version_is_taken_over(teacher, texts, tmp_path, encoded):
    """Of each shard it kept a data set, in a folder named after the first row; the last one was not finished."""
    first = labels(embed(teacher, texts, tmp_path, bf16=False))
    for file in sorted(tmp_path.glob("*-fp32/*.arrow")):
        number = int(file.stem)
        folder = file.with_name(f"{number * 8:09d}" + (".77.part" if number == 3 else ""))
        Dataset.from_file(str(file)).save_to_disk(folder)
        file.unlink()
    encoded.fail(0, None)
    assert np.array_equal(labels(embed(teacher, texts, tmp_path, bf16=False)), first)
    assert encoded == [6]
    assert shards(tmp_path) == [*(f"00000000{number}.arrow" for number in range(4)), "000000024.77.part"]


def test_a_teacher_that_gives_nan_is_refused_and_nothing_kept(teacher, texts, tmp_path):
    with torch.no_grad():
        teacher[0].model.embeddings.word_embeddings.weight[5] = np.nan
    with pytest.raises(InputError, match="the teacher gives NaN or infinity for"):
        embed(teacher, texts, tmp_path, bf16=False)
    assert shards(tmp_path) == []


def test_the_size_is_said_and_checked_before_the_first_sentence(teacher, tmp_path, encoded, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="distilface")
    many, size = Dataset.from_dict({"text": ["a dog"] * 20_000}), 20_000 * (32 * 4 + 16)
    encoded.fail(1, RuntimeError("computed"))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size - 1))
    with pytest.raises(InputError, match="free some space or name another folder with --cache-dir"):
        embed(teacher, many, tmp_path)
    assert f"20,000 of 20,000 embeddings to compute, 32 x float32, 3 MB in {tmp_path}" in caplog.text
    assert not encoded
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(size))
    with pytest.raises(RuntimeError, match="computed"):
        embed(teacher, many, tmp_path)


def test_the_time_is_said_before_a_long_pass(teacher, tmp_path, monkeypatch, caplog):
    """A teacher of 100 sentences a second, by the clock that it turns itself."""
    caplog.set_level(logging.INFO, logger="distilface")
    clock, real = [0.0], teacher.encode

    def encode(texts, *arguments, **options):
        clock[0] += len(texts) / 100
        return real(texts, *arguments, **options)

    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(teacher, "encode", encode)
    embed(teacher, Dataset.from_dict({"text": ["a dog"] * 6_000}), tmp_path)
    assert "teacher: 100 sentences a second of your text, so about 60 seconds" in caplog.text


@needs_package
@pytest.mark.data
@pytest.mark.timeout(1800)
def test_the_whole_corpora_cost_less_than_3_gib_of_memory(tmp_path):
    corpora = Path(os.environ["DISTILFACE_DATA"]) / "corpora"
    command = [sys.executable, "-c", MEMORY, str(corpora), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows, embedded, used = json.loads(done.stdout.splitlines()[-1])
    assert rows == embedded > 1_000_000
    assert used < 3 * 2**30
