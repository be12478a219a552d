"""Scores through mteb: on local data, through one cache, of any encoder, and of what is not a model."""

import math
import shutil
import time
from pathlib import Path

import datasets
import huggingface_hub
import mteb
import numpy as np
import pytest
import torch
from hub import Hub
from mteb.types import PromptType
from refusals import refusal
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tiny import PAIRS, tiny_backbone, tiny_model, write_pairs
from torch.utils.data import DataLoader

from distilface.evaluation.mteb_model import MtebModel
from distilface.evaluation.scores import PAPER_TASKS, STS_TASKS, evaluate, means, model_size
from distilface.evaluation.tasks import data_sources, find_tasks
from distilface.exporters.smaller import to_int8
from distilface.model.folder import load
from distilface.model.identity import fingerprint
from distilface.model.loading import load_model
from distilface.runtimes import Encoder, TorchEncoder, open_file


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data" / "STS12.jsonl")
    write_pairs(tmp_path / "data" / "STS16.jsonl.gz", PAIRS[:6])
    return tmp_path / "data"


@pytest.fixture(params=["offline", "dead"])
def no_hub(request: pytest.FixtureRequest, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no Hub: the user says so, or its port refuses connections, of which the clients try more than one."""
    dead = hub.dead_env(tmp_path)["HF_ENDPOINT"]
    for config, endpoint in ((huggingface_hub.constants, "ENDPOINT"), (datasets.config, "HF_ENDPOINT")):
        monkeypatch.setattr(config, "HF_HUB_OFFLINE", request.param == "offline")
        monkeypatch.setattr(config, endpoint, dead)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def by_hand(model: SentenceTransformer | Encoder, pairs=PAIRS, prompt: str = "") -> float:
    left, right = (model.encode([prompt + pair[side] for pair in pairs]) for side in (0, 1))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    score = 100 * spearmanr((left * right).sum(axis=1) / norms, [pair[2] for pair in pairs])[0]
    return pytest.approx(score, abs=1e-3)


@pytest.fixture
def quantized(students, tmp_path) -> Path:
    """Copy a student with a file of dynamic int8; a vector depends on the batch that it is computed in."""
    folder = shutil.copytree(students["mean"], tmp_path / "student")
    to_int8(folder / "onnx" / "model.onnx", folder / "onnx" / "model_quantized.onnx", signed=False)
    return folder / "onnx" / "model_quantized.onnx"


def test_a_sentence_is_embedded_once(tmp_path, data, encoded):
    """STS16 is six pairs of STS12's ten, the sides of one turned round: it asks for nothing new."""
    write_pairs(data / "STS16.jsonl.gz", [(PAIRS[0][1], PAIRS[0][0], PAIRS[0][2]), *PAIRS[1:6]])
    model = tiny_model(tmp_path / "model")
    scores = evaluate(model, ["STS16", "STS12"], data)
    assert list(scores) == ["STS16", "STS12"]
    assert sum(map(len, encoded)) == len({sentence for pair in PAIRS for sentence in pair[:2]})
    assert scores["STS12"] == by_hand(model)
    assert scores["STS16"] == by_hand(model, PAIRS[:6])


def test_prompts_are_those_of_the_task(tmp_path, data, encoded):
    """Silent otherwise: what is embedded once would be served to a task whose prompt is another."""
    model = tiny_model(tmp_path / "model")
    model.prompts = {"STS12": "one two three: ", "STS16": "four: "}
    plain = tiny_model(tmp_path / "model")
    scores = evaluate(model, ["STS12", "STS16"], data)
    assert [*map(len, encoded)] == [10, 10, 6, 6]
    assert scores["STS12"] == by_hand(plain, prompt="one two three: ")
    assert scores["STS16"] == by_hand(plain, PAIRS[:6], "four: ")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_file_is_embedded_as_its_folder_would_be(students, quantized):
    """The prompts, the tokens and the batches are those that mteb's own wrapper has for the folder's model.

    Its model is here the folder's, with the file in the place of the weights.
    """
    task, texts = mteb.get_task("STS12").metadata, [sentence for pair in PAIRS for sentence in pair[:2]]
    rows = DataLoader(datasets.Dataset.from_dict({"text": texts}), batch_size=7)
    encoder, changed = open_file(quantized, students["mean"]), load(students["mean"])

    def forward(features, **_):
        inputs = {name: features[name].numpy() for name in ("input_ids", "attention_mask")}
        (output,) = encoder.session.run([inputs])
        return {**features, "sentence_embedding": torch.from_numpy(output)}

    changed.forward = forward
    for prompts, default in (
        ({}, None),
        ({"query": "the dog: ", "passage": "the cat: "}, None),
        ({"query": "the dog: ", "old": "the old "}, "old"),
        ({"STS12": "the red ", "STS-query": "the green ", "query": "the dog: "}, "query"),
    ):
        for model in (encoder.model, changed):
            model.prompts, model.default_prompt_name = prompts, default
        for role in (None, PromptType.query, PromptType.document):
            call = {"task_metadata": task, "hf_split": "test", "hf_subset": "default", "prompt_type": role}
            call |= {"batch_size": 6, "show_progress_bar": False}
            embeddings = MtebModel(encoder).encode(rows, **call)
            expected = mteb.models.SentenceTransformerEncoderWrapper(changed).encode(rows, **call)
            np.testing.assert_allclose(embeddings, expected, atol=1e-6)
    half = TorchEncoder(load(students["mean"]), "bf16")
    assert np.array_equal(MtebModel(half).encode(rows, **call), half.encode(texts, 6))


def test_each_model_in_one_cache_has_its_own_score(tmp_path, data, quantized):
    """Silent otherwise: mteb calls every local model ``no_model_name/available`` and takes what is there.

    Two poolings of one backbone, bf16 and a file beside its folder have the same weights: a hash of those alone would
    find the other's score.
    """
    cache, scores = tmp_path / "cache", {}
    models = [tiny_model(tmp_path / place / "model", seed) for place, seed in (("a", 0), ("b", 1))]
    for place, model in zip("ab", models, strict=True):
        scores[place] = evaluate(tmp_path / place / "model", ["STS12"], data, cache)["STS12"]
        assert scores[place] == by_hand(model)
    assert scores["a"] != scores["b"]
    cls = tiny_model(tmp_path / "cls", pooling="cls")
    assert evaluate(cls, ["STS12"], data, cache)["STS12"] == by_hand(cls)
    folder = quantized.parents[1]
    assert evaluate(folder, ["STS12"], data, cache)["STS12"] == by_hand(load(folder))
    for encoder in (open_file(quantized, folder), TorchEncoder(folder, "bf16")):
        assert np.abs(encoder.encode(["a dog"]) - load(folder).encode(["a dog"])).max() > 1e-5
        assert evaluate(encoder, ["STS12"], data, cache)["STS12"] == by_hand(encoder)


def test_only_the_same_on_the_same_data_is_in_the_cache(tmp_path, data, encoded):
    """Silent otherwise: mteb finds a result by model and task, and never looks at a finished one's data."""
    tiny_model(tmp_path / "model")
    first = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    assert [*map(len, encoded)] == [10, 10]
    assert evaluate(str(tmp_path / "model"), ["STS12"], data, tmp_path / "cache") == first
    assert [*map(len, encoded)] == [10, 10]
    write_pairs(data / "STS12.jsonl", [(a, b, 5 - score) for a, b, score in PAIRS])
    second = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    assert second["STS12"] == pytest.approx(-first["STS12"], abs=1e-3)
    (data / "STS12.jsonl").unlink()
    write_pairs(data / "STS12.jsonl.gz")
    assert evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache") == first
    assert [*map(len, encoded)] == [10, 10, 10, 10]


def test_results_are_mtebs_own(tmp_path, data):
    model = tiny_model(tmp_path / "model")
    scores = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    (file,) = (tmp_path / "cache" / "results" / "local__model").rglob("STS12.json")
    result = mteb.TaskResult.from_disk(file)
    assert 100 * result.get_score() == pytest.approx(scores["STS12"])
    assert file.relative_to(tmp_path / "cache").parts[2] == fingerprint(model)
    assert result.dataset_revision == data_sources(find_tasks(["STS12"], data))["STS12"]["revision"]


def test_scored_in_fp32(tmp_path, data):
    model = tiny_model(tmp_path / "model").bfloat16()
    model.save_pretrained(str(tmp_path / "half"))
    assert {weight.dtype for weight in load_model(tmp_path / "half").parameters()} == {torch.float32}
    scores = evaluate(tmp_path / "half", ["STS12"], data)
    assert evaluate(model, ["STS12"], data) == scores
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_means():
    scores = {task: float(i) for i, task in enumerate(STS_TASKS)}
    assert means(scores) == {"mean_of_5": 2.2, "mean_of_7": 3.0}
    assert means(dict.fromkeys(PAPER_TASKS, 1.0)) == {"mean_of_5": 1.0, "mean_of_7": None}


def test_model_size(quantized):
    folder = quantized.parents[1]
    model = load(folder)
    parameters = sum(weight.numel() for weight in model.parameters())
    for scored, size in (
        (folder, (folder / "model.safetensors").stat().st_size),
        (model, 4 * parameters),
        (open_file(quantized, model), quantized.stat().st_size),
    ):
        assert model_size(scored) == {"parameters": parameters, "megabytes": round(size / 1e6, 2)}


@pytest.mark.usefixtures("no_hub")
def test_what_is_not_a_model(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        assert "is neither a folder nor a Hub id" in refusal(load_model, path)
    assert "neither modules.json nor config.json" in refusal(load_model, tmp_path / "empty")
    assert "could not be downloaded from the Hub" in refusal(load_model, "nobody/nothing")
    model = tiny_model(tmp_path / "model")
    said = refusal(evaluate, tmp_path / "model", ["STS12"])
    assert "data of task STS12 could not be downloaded" in said
    assert "--data-dir" in said
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    assert "cannot be loaded as a model" in refusal(load_model, tmp_path / "model")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    model.save_pretrained(str(tmp_path / "nan"))
    assert "NaN or infinite" in refusal(load_model, tmp_path / "nan")


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_collapsed_model(tmp_path, data):
    model = tiny_model(tmp_path / "model")
    last = model[0].auto_model.transformer.layer[-1].output_layer_norm
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    for _ in range(2):
        assert "collapsed" in refusal(evaluate, model, ["STS12"], data, tmp_path / "cache")


def test_plain_transformers_folder(tmp_path, data):
    """A backbone without a pooling is scored under sentence-transformers' default, the mean."""
    backbone = tiny_backbone(tmp_path / "backbone")
    assert evaluate(backbone, ["STS12"], data) == evaluate(tiny_model(tmp_path / "model"), ["STS12"], data)
