"""The model folder: its vectors, its name by its content, and refused with one sentence where it is none."""

import numpy as np
import pytest
import torch
from five import TEXTS, contents, make
from sentence_transformers.base.modules import Normalize

from distilface.model.folder import Folder, load, save_folder
from distilface.run import Run
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_last4_is_the_mean_of_the_last_four_states_then_of_the_tokens(tmp_path):
    model = make("last4")
    inputs = model[0].tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    assert not model[1].layer_weights.requires_grad
    with torch.no_grad():
        states = model[0].model.eval()(inputs["input_ids"], inputs["attention_mask"], output_hidden_states=True)
    layers = np.mean([state.numpy() for state in states.hidden_states[-4:]], axis=0)
    mask = inputs["attention_mask"].numpy()[:, :, None]
    expected = (layers * mask).sum(1) / mask.sum(1)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)
    assert not np.allclose(make("mean").encode(TEXTS), expected, atol=1e-2)
    again = load(save_folder(model, tmp_path / "m").path)
    np.testing.assert_allclose(again.encode(TEXTS), expected, atol=1e-6)
    assert not again[1].layer_weights.requires_grad
    assert not again.training


def test_size_and_fingerprint_are_those_of_the_model(tmp_path):
    """A fingerprint of the weights alone would file two poolings of one encoder under one name."""
    first = save_folder(make("mean"), tmp_path / "a", run={"seed": 1})
    again = save_folder(load(first.path), tmp_path / "b", name="other")
    assert (first.run, again.run) == (Run(seed=1), None)
    assert first.fingerprint == again.fingerprint
    assert first.megabytes == first.bytes / 1e6
    assert first.parameters == sum(p.numel() for p in make("mean").parameters())
    (first.path / "onnx.bin").write_bytes(b"0" * 1000)
    beside = {"README.md", "special_tokens_map.json"}
    sizes = [len(content) for name, content in contents(again.path).items() if name not in beside]
    assert first.bytes == again.bytes == sum(sizes)
    others = [make("cls"), make("mean", Normalize()), make("mean").bfloat16()]
    prints = {save_folder(m, tmp_path / f"o{i}").fingerprint for i, m in enumerate(others)}
    prints.add(save_folder(make("mean"), tmp_path / "short", max_seq_length=32).fingerprint)
    assert len(prints | {first.fingerprint}) == 5


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_out_of_range_is_refused(length, tmp_path):
    with pytest.raises(InputError, match=f"max_seq_length {length} is out of range; the encoder has 64"):
        save_folder(make("mean"), tmp_path / "m", max_seq_length=length)


def damage(path, name, content=None):
    (path / name).unlink() if content is None else (path / name).write_bytes(content)


FOREIGN = b'[{"idx": 0, "name": "0", "path": "", "type": "custom.Encoder"}]'
DAMAGED = {
    "has no model.safetensors, no tokenizer.json": lambda p: [
        damage(p, "tokenizer.json"),
        damage(p, "model.safetensors"),
    ],
    "has no 1_WeightedLayerPooling/model.safetensors": lambda p: damage(p, "1_WeightedLayerPooling/model.safetensors"),
    "has no 2_Pooling/config.json": lambda p: damage(p, "2_Pooling/config.json"),
    "model.safetensors is damaged": lambda p: damage(
        p, "model.safetensors", (p / "model.safetensors").read_bytes()[:-9]
    ),
    "config.json is damaged: it is no JSON": lambda p: damage(p, "config.json", b"{"),
    "modules.json is damaged: it lists no modules": lambda p: damage(p, "modules.json", b'{"a": 1}'),
    r"needs code of its own \(custom.Encoder\)": lambda p: damage(p, "modules.json", FOREIGN),
}


@pytest.mark.parametrize("sentence", DAMAGED)
def test_a_damaged_folder_is_refused_with_one_sentence(sentence, tmp_path):
    saved = save_folder(make("last4"), tmp_path / "m")
    assert saved.is_valid()
    DAMAGED[sentence](saved.path)
    assert not saved.is_valid()
    with pytest.raises(InputError, match=sentence) as error:
        load(saved.path)
    assert "\n" not in str(error.value)


def test_what_is_no_model_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name, sentence in {
        "none": "does not exist",
        "file": "is a file",
        ".": "is not a model folder: it has no",
    }.items():
        with pytest.raises(InputError, match=sentence):
            load(tmp_path / name)
        assert not Folder(tmp_path / name).is_valid()
