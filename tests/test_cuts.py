"""The search over cuts of layers: against cuts that are made and embedded one by one."""

import itertools
import logging

import numpy as np
import pytest
import torch
from runs import stopped_at
from tiny import PAIRS, sentences, tiny_model, write_pairs
from transformers import BertConfig, BertModel

from distilface import cli
from distilface.compression import cuts
from distilface.compression.cuts import best_cuts
from distilface.compression.student import load_backbone, load_student
from distilface.model.folder import load, save_folder
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
LAYERS = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Save a BERT of 5 layers, of which the second and the fourth do next to nothing."""
    place = tmp_path_factory.mktemp("cuts")
    tiny_model(place / "tiny")
    tokenizer = load(place / "tiny").tokenizer
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        bert = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
        for number, layer in enumerate(bert.encoder.layer):
            for map_ in (layer.attention.output.dense, layer.output.dense):
                map_.weight.data *= 0.5 if number in (1, 3) else 20
    bert.save_pretrained(place / "bert")
    tokenizer.save_pretrained(place / "bert")
    return place / "bert"


def embedded(place, layers, texts):
    """Embed texts with a cut that is made of the backbone: the mean of the token vectors, of unit length."""
    return load_student(str(place), layers, normalize=True, max_seq_length=16).encode(texts)


def test_every_cut_is_compared_with_the_whole(place):
    texts = sentences(40)
    found = best_cuts(*load_backbone(str(place)), 3, texts, 16)
    assert sorted(layers for layers, _ in found) == list(itertools.combinations(range(LAYERS), 3))
    whole = embedded(place, None, texts)
    for layers, lost in found:
        cosines = (embedded(place, list(layers), texts) * whole).sum(1)
        assert lost == pytest.approx(1 - cosines.mean(), abs=1e-5)
    assert [lost for _, lost in found] == sorted(lost for _, lost in found)
    assert found[0][0] == (0, 2, 4)


def test_a_search_leaves_out_a_layer_at_a_time(place, monkeypatch, caplog):
    texts = sentences(40)
    every = best_cuts(*load_backbone(str(place)), 2, texts, 16)
    caplog.clear()
    monkeypatch.setattr(cuts, "ALL", 5)
    monkeypatch.setattr(cuts, "KEPT", 1)
    with caplog.at_level(logging.INFO):
        found = best_cuts(*load_backbone(str(place)), 2, texts, 16)
    assert found[0][0] == every[0][0]
    assert np.isclose(found[0][1], every[0][1])
    compared = [line for line in caplog.messages if "compared" in line]
    assert compared == [f"{count} cuts of {count - 1} of 5 layers are compared" for count in (5, 4, 3)]
    assert len(found) == 3
    assert best_cuts(*load_backbone(str(place)), LAYERS, texts, 16)[0][1] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("count", [0, LAYERS + 1])
def test_a_count_out_of_range_is_refused(place, count):
    with pytest.raises(InputError, match=f"--best_layers {count} is out of range; the encoder has 5 layers"):
        best_cuts(*load_backbone(str(place)), count, ["a dog"], 16)


def test_first_tokens_are_compared_for_cls_and_no_more_than_there_are_positions(place):
    texts = ["the dog runs in the park " * 30, *sentences(20)]
    found = best_cuts(*load_backbone(str(place)), 4, texts, 512, "cls")
    whole, first = (
        load_student(str(place), layers, "cls", normalize=True, max_seq_length=64).encode(texts)
        for layers in (None, list(found[0][0]))
    )
    assert found[0][1] == pytest.approx(1 - (whole * first).sum(1).mean(), abs=1e-5)
    with pytest.raises(InputError, match="not --pooling last4; set --layers"):
        best_cuts(*load_backbone(str(place)), 4, texts, 64, "last4")


def test_a_training_takes_the_cut(place, tmp_path):
    save_folder(load_student(str(place), normalize=True), tmp_path / "teacher")
    dev = write_pairs(tmp_path / "dev.jsonl", PAIRS)
    (tmp_path / "text.txt").write_text("\n".join(sentences(60)) + "\n")
    words = ["--teacher", str(tmp_path / "teacher"), "--data", str(tmp_path / "text.txt"), "--dev", str(dev)]
    words += ["--best_layers", "3", "--steps", "3", "--batch_size", "8", "--output_dir", str(tmp_path / "s")]
    words += ["--eval_steps", "1"]
    with stopped_at(2):
        cli.run(["train", "distill", *words])
    run = cli.run(["train", "distill", *words, "--resume"])
    assert run["layers"] == run["settings"]["layers"] == [0, 2, 4]
    assert run["settings"]["best_layers"] == 3
    assert load(tmp_path / "s")[0].model.config.n_layers == 3
