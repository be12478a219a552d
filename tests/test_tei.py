"""A saved folder as Text Embeddings Inference reads it, field by field, by its source; the tests do not run it itself.

They follow its router (pooling, number of tokens), its ONNX backend (of 1.7, and of later ones, which ask for more of
config.json) and its Candle backend. A field that is missing stops it, or changes the vectors without a message.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.util import pairwise_cos_sim
from tiny import sentences
from tokenizers import Tokenizer
from transformers import AutoModel

from distilface.cards.card import make_card
from distilface.model.folder import load, save_folder

pytestmark = pytest.mark.usefixtures("one_thread")

ROUTER = {"architectures": list, "model_type": str, "max_position_embeddings": int, "pad_token_id": int}
ONNX = {"hidden_size": int, "num_hidden_layers": int}
CANDLE = {
    **dict.fromkeys(("vocab_size", "dim", "n_layers", "n_heads", "hidden_dim", "max_position_embeddings"), int),
    **{"pad_token_id": int, "activation": str},
}
POOLING = dict.fromkeys(("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"), bool)
MODULES = {f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")}
DENSE = {"in_features": int, "out_features": int, "bias": bool, "activation_function": str}
ACTIVATIONS = {"torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"}
TEXTS = [*sentences(11), "the dog " * 100]
#: The most texts in a batch of its ONNX backend.
BATCH = 8


def read(file: Path, fields: dict[str, type] | None = None) -> Any:
    """Read a JSON file, and check the types of these fields: a number in place of a flag is refused."""
    content = json.loads(file.read_text(encoding="utf-8"))
    assert {name: type(content.get(name)) for name in fields or {}} == (fields or {}), file
    return content


def pooling(folder: Path) -> str:
    """Choose the pooling as its router does: without a pooling file, a kind of BERT is pooled by its first token."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        assert "bert" in read(folder / "config.json")["model_type"]
        return "cls"
    flags = read(file, {f"pooling_mode_{name}": kind for name, kind in POOLING.items()})
    return "cls" if flags["pooling_mode_cls_token"] else "mean" if flags["pooling_mode_mean_tokens"] else "refused"


def encode(folder: Path) -> list[list[int]]:
    """Return the ids of the texts as it does: at most ``max_seq_length`` each, no padding."""
    length = read(folder / "sentence_bert_config.json", {"max_seq_length": int})["max_seq_length"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return [encoding.ids for encoding in tokenizer.encode_batch(TEXTS)]


def embed(folder: Path, later: bool) -> np.ndarray:
    """Compute as its ONNX backend does; the later ones take ``sentence_embedding`` where a file gives it."""
    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask"]
    names, embeddings = [output.name for output in session.get_outputs()], []
    padding = read(folder / "config.json")["pad_token_id"] if later else 0
    ids = encode(folder)
    for batch in (ids[start : start + BATCH] for start in range(0, len(ids), BATCH)):
        shape = (len(batch), max(map(len, batch)))
        inputs, mask = np.full(shape, padding, np.int64), np.zeros(shape, np.int64)
        for row, text in enumerate(batch):
            inputs[row, : len(text)], mask[row, : len(text)] = text, 1
        outputs = dict(zip(names, session.run(None, {"input_ids": inputs, "attention_mask": mask}), strict=True))
        tokens, weights = outputs["last_hidden_state"], mask[:, :, None]
        pooled = tokens[:, 0] if pooling(folder) == "cls" else (tokens * weights).sum(1) / weights.sum(1)
        embeddings.append(outputs["sentence_embedding"] if later else pooled)
    return np.concatenate(embeddings)


@pytest.mark.parametrize("kind", ["mean", "cls", "dense"])
def test_every_field_that_it_reads_is_there(students, kind):
    """Its ONNX backend reads the width and the layers by names that DistilBERT's own configuration does not have."""
    folder = students[kind]
    config = read(folder / "config.json", {**ROUTER, **ONNX, **CANDLE})
    assert (config["hidden_size"], config["num_hidden_layers"]) == (config["dim"], config["n_layers"])
    assert not config["architectures"][0].endswith("Classification"), "it would serve classes"
    assert config["activation"] in ("gelu", "relu")
    assert pooling(folder) == ("cls" if kind == "cls" else "mean")
    modules = read(folder / "modules.json")
    assert {module["type"] for module in modules} <= MODULES, "it would leave a Dense out"
    assert [set(module) for module in modules] == [{"idx", "name", "path", "type"}] * len(modules)
    assert read(folder / "tokenizer_config.json").get("padding_side", "right") == "right"
    assert not (folder / "model.onnx").exists(), "it would be taken before onnx/model.onnx"
    with safe_open(folder / "model.safetensors", "numpy") as weights:
        assert {"embeddings.word_embeddings.weight", "transformer.layer.0.attention.q_lin.weight"} <= set(
            weights.keys()
        )


def test_a_dense_layer_it_knows(students, tmp_path):
    """Its Candle backend knows two activations, and does not start with another."""
    for activation, known in ((torch.nn.Identity(), True), (torch.nn.Tanh(), True), (torch.nn.ReLU(), False)):
        modules = [*load(students["mean"]), Dense(32, 12, activation_function=activation)]
        folder = tmp_path / type(activation).__name__
        save_folder(SentenceTransformer(modules=modules, device="cpu"), folder)
        config = read(folder / "2_Dense" / "config.json", DENSE)
        assert (config["activation_function"] in ACTIVATIONS) is known
        assert ("on a CPU only" in make_card(folder)[0]) is not known


@pytest.mark.parametrize("kind", ["mean", "cls", "dense"])
@pytest.mark.parametrize("later", [False, True], ids=["1.7", "later"])
def test_its_vectors_are_the_folders(students, kind, later):
    """1.7 left a Dense out; the card's words hold from the later ones on."""
    expected, theirs = load(students[kind]).encode(TEXTS), embed(students[kind], later)
    if kind == "dense" and not later:
        assert theirs.shape != expected.shape
        return
    assert pairwise_cos_sim(theirs, expected).min() > 0.9999
    assert np.allclose(theirs, expected, atol=1e-5)


def test_the_last_four_layers_would_be_pooled_in_another_way(students):
    """It has no pooling file to read and takes the first token of the last layer; only its log says so."""
    folder = students["last4"]
    assert pooling(folder) == "cls"
    tokens = torch.tensor([encode(folder)[0]])
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(folder)(input_ids=tokens).last_hidden_state[:, 0]
    assert pairwise_cos_sim(theirs, load(folder).encode(TEXTS[:1])).item() < 0.99
    assert "Do not serve it by [Text Embeddings Inference]" in make_card(folder)[0]


def test_a_recurrent_student_needs_its_onnx_file(students):
    """Candle has no ALBERT; the ONNX backend, of its CPU images, reads the fields that it needs."""
    read(students["albert"] / "config.json", {**ROUTER, **ONNX})
    assert "on a CPU only" in make_card(students["albert"])[0]
