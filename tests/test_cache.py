"""The teacher's embeddings: right row by row, kept on disk and found again, whole or not at all."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from tiny import WORDS, needs_package, tiny_model
from torch import nn

from distilface.embedding import teacher_cache as module
from distilface.embedding.teacher_cache import embed
from distilface.settings import InputError
from distilface.training.teacher import load_teacher

MEMORY = """
import json, resource, sys
from distilface.data.texts import read_texts
from distilface.compression.student import load_student
from distilface.embedding.teacher_cache import embed

texts = read_texts([sys.argv[1]])
teacher = load_student("sentence-transformers/all-MiniLM-L6-v2", [0], max_seq_length=256).eval()
dataset = embed(teacher, texts, sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([len(texts), len(dataset), used]))
"""
Usage = namedtuple("Usage", "total used free")


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
    return sorted(path.name for path in cache.glob("*-fp32/*"))


def mistake(call, *args, **kwargs):
    """Call what must be refused and give the sentence."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_embeddings_are_the_teachers_row_by_row(teacher, texts, tmp_path):
    found = embed(teacher, texts, tmp_path / "cache", batch_size=4, bf16=False)
    assert found["text"][:] == texts["text"][:]
    assert found.column_names == ["text", "label"]
    assert np.abs(labels(found) - one_by_one(teacher, texts["text"])).max() < 1e-5
    assert found.features["label"].feature.dtype == "float32"


@pytest.mark.usefixtures("small_shards")
def test_the_order_is_that_of_the_texts(teacher, texts, tmp_path):
    """Shards, batches by length and a shuffled data set each have an order of their own to mix rows up."""
    shuffled = texts.add_column("n", range(30)).rename_column("text", "body").shuffle(seed=3)
    found = embed(teacher, shuffled, tmp_path, column="body", batch_size=3, bf16=False)
    assert found["body"][:] == shuffled["body"][:] != texts["text"][:]
    assert np.abs(labels(found) - one_by_one(teacher, shuffled["body"])).max() < 1e-5


def test_the_teachers_own_prompt_is_applied(tmp_path, texts):
    model = tiny_model(tmp_path / "plain")
    prompted = SentenceTransformer(modules=list(model), prompts={"query": "the big dog "}, default_prompt_name="query")
    prompted.save_pretrained(str(tmp_path / "prompted"), create_model_card=False)
    plain, prompted = (load_teacher(str(tmp_path / name), device="cpu") for name in ("plain", "prompted"))
    found = labels(embed(prompted, texts, tmp_path / "cache", bf16=False))
    assert np.abs(found - one_by_one(plain, texts["text"], "the big dog ")).max() < 1e-5
    assert np.abs(found - labels(embed(plain, texts, tmp_path / "cache", bf16=False))).max() > 0.01


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


def test_found_in_the_cache_the_teacher_is_not_asked(teacher, texts, tmp_path, encoded):
    first = labels(embed(teacher, texts, tmp_path / "cache"))
    encoded.fail(1, AssertionError("asked again"))
    again = load_teacher(str(tmp_path / "teacher"), device="cpu")
    assert np.array_equal(labels(embed(again, texts, tmp_path / "cache")), first)
    assert not encoded


def test_other_weights_or_other_text_are_computed_anew(teacher, texts, tmp_path, encoded):
    embed(teacher, texts, tmp_path / "cache", bf16=False)
    with torch.no_grad():
        teacher[0].model.embeddings.word_embeddings.weight[5, 3] += 1
    found = embed(teacher, texts, tmp_path / "cache", bf16=False)
    assert np.abs(labels(found) - one_by_one(teacher, texts["text"])).max() < 1e-5
    changed = [*texts["text"][:29], "another last one"]
    found = embed(teacher, Dataset.from_dict({"text": changed}), tmp_path / "cache", bf16=False)
    assert np.abs(labels(found) - one_by_one(teacher, changed)).max() < 1e-5
    assert encoded == [30, 30, 30]


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interrupted_pass_goes_on_where_it_stopped(teacher, texts, tmp_path, encoded, capsys, error):
    encoded.fail(3, error)
    with pytest.raises(type(error)):
        embed(teacher, texts, tmp_path, bf16=False)
    assert encoded == [8, 8, 8]
    assert shards(tmp_path) == ["000000000", "000000008"]
    encoded.fail(0, None)
    capsys.readouterr()
    found = embed(teacher, texts, tmp_path, bf16=False)
    assert encoded == [8, 6]
    said = capsys.readouterr().err
    assert "14 of 30 embeddings to compute" in said
    assert "Saving the dataset" not in said  # the library's bar for each shard, amid ours
    assert not datasets.are_progress_bars_disabled()
    assert shards(tmp_path) == ["000000000", "000000008", "000000016", "000000024"]
    assert np.abs(labels(found) - one_by_one(teacher, texts["text"])).max() < 1e-5


@pytest.mark.usefixtures("small_shards")
def test_a_shard_that_was_killed_while_it_was_written_is_not_taken(teacher, texts, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(self, folder, *args, **kwargs):
        Path(folder).mkdir()
        (Path(folder) / "data-00000-of-00001.arrow").write_bytes(b"half")
        raise Killed

    with monkeypatch.context() as dying:
        dying.setattr(Dataset, "save_to_disk", killed)
        dying.setattr(shutil, "rmtree", lambda *args, **kwargs: None)  # a kill clears nothing away
        with pytest.raises(Killed):
            embed(teacher, texts, tmp_path, bf16=False)
    assert len(shards(tmp_path)) == 1
    found = embed(teacher, texts, tmp_path, bf16=False)
    assert np.abs(labels(found) - one_by_one(teacher, texts["text"])).max() < 1e-5


def with_shard(cache, name, numbers):
    """Replace a shard of the cache by one of these numbers, and give its folder."""
    folder = next(cache.glob(f"*/{name}"))
    features = Dataset.load_from_disk(str(folder)).features
    shutil.rmtree(folder)
    Dataset.from_dict({"label": numbers}, features=features).save_to_disk(folder)
    return str(folder)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_in_the_cache_is_refused(teacher, texts, tmp_path, bad):
    """A single NaN makes the loss NaN from that batch on, an epoch later."""
    numbers = labels(embed(teacher, texts, tmp_path, bf16=False))[8:16].copy()
    numbers[5, 31] = bad
    folder = with_shard(tmp_path, "000000008", numbers)
    message = mistake(embed, teacher, texts, tmp_path, bf16=False)
    assert f"hold {bad} in row 5" in message
    assert f"delete {folder} and run again" in message
    shutil.rmtree(folder)
    assert np.isfinite(labels(embed(teacher, texts, tmp_path, bf16=False))).all()


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("rows", [7, 9])
def test_a_shard_of_another_length_is_refused(teacher, texts, tmp_path, rows):
    """Joined as it is, every later sentence would meet its neighbour's embedding, silently."""
    embed(teacher, texts, tmp_path, bf16=False)
    folder = with_shard(tmp_path, "000000016", np.zeros((rows, 32), np.float32))
    message = mistake(embed, teacher, texts, tmp_path, bf16=False)
    assert f"hold {rows} rows, not 8" in message
    assert f"delete {folder} and run again" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [("state.json", None), ("state.json", b"{"), ("*.arrow", b""), ("*.arrow", b"half"), ("*.arrow", 300)],
)
def test_a_damaged_shard_is_refused(teacher, texts, tmp_path, name, content):
    embed(teacher, texts, tmp_path, bf16=False)
    file = next(tmp_path.glob(f"*/000000000/{name}"))
    if content is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:content] if isinstance(content, int) else content)
    message = mistake(embed, teacher, texts, tmp_path, bf16=False)
    assert "cached embeddings cannot be read" in message
    assert f"delete {file.parent} and run again" in message


def test_a_teacher_that_gives_nan_is_refused_and_nothing_kept(teacher, texts, tmp_path):
    """Kept, it would be blamed on the cache, and be the same when computed anew."""
    with torch.no_grad():
        teacher[0].model.embeddings.word_embeddings.weight[5] = np.nan
    assert "the teacher gives NaN or infinity for" in mistake(embed, teacher, texts, tmp_path / "cache", bf16=False)
    assert shards(tmp_path / "cache") == []


def test_the_size_is_said_before_the_first_sentence(teacher, tmp_path, encoded, capsys):
    many = Dataset.from_dict({"text": ["a dog"] * 20_000})
    encoded.fail(1, RuntimeError("stop"))
    with pytest.raises(RuntimeError, match="stop"):
        embed(teacher, many, tmp_path)
    said = capsys.readouterr().err
    # 20,000 rows of 32 numbers of 4 bytes are 2.56 million bytes.
    assert "20,000 of 20,000 embeddings to compute, 32 x float32, 3 MB in " in said
    assert str(tmp_path) in said


def test_no_room_on_the_disk_is_said_before_the_first_sentence(teacher, texts, tmp_path, encoded, monkeypatch):
    needed = 30 * 32 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, needed - 1))
    message = mistake(embed, teacher, texts, tmp_path)
    assert "free some space or name another folder with --cache-dir" in message
    assert not encoded
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, needed))
    embed(teacher, texts, tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 0))
    embed(teacher, texts, tmp_path)


@pytest.mark.usefixtures("small_shards")
def test_the_embeddings_stay_on_disk(teacher, texts, tmp_path):
    found = embed(teacher, texts, tmp_path)
    files = {Path(file["filename"]) for file in found.cache_files}
    assert len(files) == 4
    assert all(tmp_path in file.parents for file in files)


def test_a_training_step_reads_them(teacher, texts, tmp_path):
    """The loss of the trainer's step is the mean squared difference that numpy finds."""
    dataset = embed(teacher, texts, tmp_path / "cache", bf16=False)
    student = tiny_model(tmp_path / "student", seed=1)
    for part in student.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    before = student.encode(dataset["text"][:])
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(tmp_path / "run"),
        per_device_train_batch_size=30,
        max_steps=1,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        learning_rate=1e-3,
    )
    loss = EmbedDistillLoss(student, distance_metric="mse")
    trainer = SentenceTransformerTrainer(model=student, args=settings, train_dataset=dataset, loss=loss)
    expected = ((before - labels(dataset)) ** 2).mean()
    assert trainer.train().training_loss == pytest.approx(expected, rel=1e-4)
    assert np.abs(student.encode(dataset["text"][:]) - before).max() > 1e-4


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
