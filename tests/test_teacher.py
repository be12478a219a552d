"""Teachers: loaded frozen, from a folder, the Hub or a package; named by what decides their vectors."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from forks import run_forked
from hub import Hub, run_python
from sentence_transformers import (
    SentenceTransformer,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tiny import needs_package, tiny_backbone, tiny_model
from torch import nn
from transformers import DistilBertTokenizer

from distilface.hub_ids import PACKAGED, resolve
from distilface.model.identity import fingerprint
from distilface.training.teacher import load_teacher

FROM_THE_HUB = """
import json, sys, time
import huggingface_hub.constants as hub
from distilface import hub_ids
from distilface.training.teacher import load_teacher

def show(id):
    hub_ids._fetched.cache_clear()
    began = time.perf_counter()
    model = load_teacher(id)
    print(json.dumps([model.encode("a happy dog").tolist(), time.perf_counter() - began]))

show("org/tiny"), show("org/older")
hub.ENDPOINT = sys.argv[1]
show("org/tiny"), show("org/older")
hub.HF_HUB_OFFLINE = True
show("org/tiny"), show("org/older")
"""
NO_HUB = """
import json, sys, time
from distilface import hub_ids
from distilface.settings import InputError

def show(id):
    began = time.perf_counter()
    try:
        found = hub_ids.resolve(id)
    except InputError as error:
        found = str(error)
    print(json.dumps([found, time.perf_counter() - began]))

id = hub_ids.DEFAULT_TEACHER
show("org/nothing"), show(id), show(id)
hub_ids._fetched.cache_clear()
hub_ids.PACKAGED[id] = ("the-package", "no_such_module_here", "model")
show(id)
"""


def test_a_teacher_is_frozen_and_in_eval_mode(teacher):
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert not any(part.training for part in teacher.modules())


def test_a_teacher_stored_in_half_precision_computes_in_fp32(tmp_path):
    """The library keeps the stored precision: the embeddings kept as fp32 would be rounded to 3 digits, silently."""
    tiny_model(tmp_path / "teacher").half().save_pretrained(str(tmp_path / "half"), create_model_card=False)
    model = load_teacher(str(tmp_path / "half"), device="cpu")
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_fingerprint_is_the_same_for_the_same_model(tmp_path):
    first = tiny_model(tmp_path / "model")
    again = load_teacher(str(tmp_path / "model"), device="cpu")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    used = load_teacher(str(tmp_path / "copy"), device="cpu")
    used.encode(["a dog", "a cat on the road"])
    used.train()
    assert fingerprint(first) == fingerprint(again) == fingerprint(used)
    assert len(fingerprint(first)) == 64


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


def test_whatever_changes_the_vectors_changes_the_fingerprint(tmp_path):
    """The weights of two poolings over one encoder are the same: one's embeddings would be found for the other."""
    folder = tiny_backbone(tmp_path)
    ids = {}
    for name, change in {"nothing": lambda m: None, **CHANGES}.items():
        transformer = Transformer(str(folder))
        pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")
        model = SentenceTransformer(modules=[transformer, pooling], prompts={"query": "a "}, device="cpu")
        change(model)
        ids[name] = fingerprint(model)
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
    assert max(np.abs(np.array(vectors) - expected).max() for vectors, _ in shown) < 1e-6
    assert max(seconds for _, seconds in shown[2:]) < 10
    fetched = {path.partition("/resolve/")[2].partition("/")[2] for verb, path in hub.requests if verb == "GET"}
    assert {"modules.json", "1_Pooling/config.json", "model.safetensors", "pytorch_model.bin"} <= fetched
    assert not [
        path for _, path in hub.requests if path.startswith("/org/tiny/") and path.endswith("pytorch_model.bin")
    ]
    assert not [name for name in fetched if name.endswith((".h5", ".msgpack", ".ot", ".onnx", "openvino_model.bin"))]


@needs_package
def test_no_hub_is_one_sentence_at_once_or_the_packaged_copy(hub: Hub, tmp_path: Path):
    done = run_forked(NO_HUB, env=hub.dead_env(tmp_path))
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert max(seconds for _, seconds in shown) < 5
    nothing, packaged, again, neither = [output for output, _ in shown]
    refusal = "the model org/nothing could not be downloaded from the Hub (ConnectError); connect, or give a folder"
    assert nothing == refusal
    assert packaged == again
    assert (Path(packaged) / "model.safetensors").is_file()
    assert neither.endswith("(ConnectError); connect, or give a folder, or pip install the-package")
    said = [line for line in done.stderr.splitlines() if "in reach" in line]
    model, (package, *_) = next(iter(PACKAGED.items()))
    assert said == [f"{model}: the Hub is not in reach; using the copy in the package {package}"]
