"""Scores through mteb: on local data, through one cache, and of a model that is none."""

import json
import math
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import mteb
import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from tiny import PAIRS, tiny_backbone, tiny_model, write_pairs

from distilface.environment import environment
from distilface.evaluation.file_model import FileModel
from distilface.evaluation.scores import PAPER_TASKS, STS_TASKS, evaluate, means, model_size
from distilface.evaluation.tasks import data_sources, find_tasks
from distilface.exporters import onnx as onnx_files
from distilface.model.folder import Folder, load, save_folder
from distilface.model.identity import fingerprint
from distilface.model.loading import load_model
from distilface.settings import InputError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_pairs(tmp_path / "data" / "STS12.jsonl")
    write_pairs(tmp_path / "data" / "STS16.jsonl.gz", PAIRS[:6])
    return tmp_path / "data"


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the sentences of every encoding."""
    counts: list[int] = []
    encode = SentenceTransformer.encode

    def counting(self, sentences, *args, **kwargs):
        counts.append(len(sentences))
        return encode(self, sentences, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", counting)
    return counts


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's clients fail at once instead of after their retries."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def by_hand(model: SentenceTransformer, pairs) -> float:
    left, right = (model.encode([pair[side] for pair in pairs]) for side in (0, 1))
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return 100 * spearmanr((left * right).sum(axis=1) / norms, [pair[2] for pair in pairs])[0]


def test_scores_are_spearman_of_cosines(tmp_path, data):
    model = tiny_model(tmp_path / "model")
    scores = evaluate(tmp_path / "model", ["STS16", "STS12"], data)
    assert list(scores) == ["STS16", "STS12"]
    assert scores["STS12"] == pytest.approx(by_hand(model, PAIRS), abs=1e-3)
    assert scores["STS16"] == pytest.approx(by_hand(model, PAIRS[:6]), abs=1e-3)


def test_a_sentence_is_embedded_once(tmp_path, data, encoded):
    """STS16 is six pairs of STS12's ten, the sides of one turned round: it asks for nothing new."""
    write_pairs(data / "STS16.jsonl.gz", [(PAIRS[0][1], PAIRS[0][0], PAIRS[0][2]), *PAIRS[1:6]])
    model = tiny_model(tmp_path / "model")
    scores = evaluate(model, ["STS12", "STS16"], data)
    assert sum(encoded) == len({sentence for pair in PAIRS for sentence in pair[:2]})
    assert scores["STS12"] == pytest.approx(by_hand(model, PAIRS), abs=1e-3)
    assert scores["STS16"] == pytest.approx(by_hand(model, PAIRS[:6]), abs=1e-3)


def test_prompts_are_left_to_mteb(tmp_path, data, encoded):
    """Silent otherwise: what is embedded once would be served to a task whose prompt is another."""
    model = tiny_model(tmp_path / "model")
    model.prompts = {"STS12": "one two three: ", "STS16": "four: "}
    plain = tiny_model(tmp_path / "model")
    scores = evaluate(model, ["STS12", "STS16"], data)
    assert encoded == [10, 10, 6, 6]
    for task, pairs in (("STS12", PAIRS), ("STS16", PAIRS[:6])):
        prompted = [(model.prompts[task] + a, model.prompts[task] + b, score) for a, b, score in pairs]
        assert scores[task] == pytest.approx(by_hand(plain, prompted), abs=1e-3)


def test_two_models_in_one_cache(tmp_path, data):
    """Silent otherwise: mteb calls every local model ``no_model_name/available`` and takes what is there."""
    cache = tmp_path / "cache"
    models = [tiny_model(tmp_path / place / "model", seed) for place, seed in (("a", 0), ("b", 1))]
    first, second = (evaluate(tmp_path / place / "model", ["STS12"], data, cache) for place in "ab")
    assert first["STS12"] == pytest.approx(by_hand(models[0], PAIRS), abs=1e-3)
    assert second["STS12"] == pytest.approx(by_hand(models[1], PAIRS), abs=1e-3)
    assert first != second


def test_two_poolings_of_one_backbone_in_one_cache(tmp_path, data):
    """Silent otherwise: the weights are the same, so a hash of them alone would find the other's score."""
    models = [tiny_model(tmp_path / pooling, pooling=pooling) for pooling in ("mean", "cls")]
    for model in models:
        score = evaluate(model, ["STS12"], data, tmp_path / "cache")["STS12"]
        assert score == pytest.approx(by_hand(model, PAIRS), abs=1e-3)


def test_same_folder_is_served_from_the_cache(tmp_path, data, encoded):
    tiny_model(tmp_path / "model")
    first = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    assert encoded == [10, 10]
    again = evaluate(str(tmp_path / "model"), ["STS12"], data, tmp_path / "cache")
    assert encoded == [10, 10]
    assert again == first


def test_a_file_is_not_served_its_folders_score(tmp_path, data):
    """Silent otherwise: the weights beside an int8 file are the folder's, and so would its score be."""
    model = tiny_model(tmp_path / "made")
    save_folder(model, tmp_path / "model")
    (tmp_path / "model" / "onnx").mkdir()
    onnx_files.to_onnx(load(tmp_path / "model"), tmp_path / "source.onnx")
    file = tmp_path / "model" / "onnx" / "model_quantized.onnx"
    onnx_files.to_int8(tmp_path / "source.onnx", file, signed=False)
    whole = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")["STS12"]
    small = evaluate(FileModel(file, tmp_path / "model"), ["STS12"], data, tmp_path / "cache")["STS12"]
    assert small == pytest.approx(by_hand(FileModel(file, tmp_path / "model"), PAIRS), abs=1e-3)
    assert whole == pytest.approx(by_hand(model, PAIRS), abs=1e-3)
    size = model_size(FileModel(file, tmp_path / "model"))
    assert size == {**model_size(model), "megabytes": round(file.stat().st_size / 1e6, 2)}


def test_other_data_is_not_served_from_the_cache(tmp_path, data, encoded):
    """Silent otherwise: mteb finds a result by model and task, and never looks at a finished one's data."""
    tiny_model(tmp_path / "model")
    first = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    write_pairs(data / "STS12.jsonl", [(a, b, 5 - score) for a, b, score in PAIRS])
    second = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    assert second["STS12"] == pytest.approx(-first["STS12"], abs=1e-3)
    (data / "STS12.jsonl").unlink()
    write_pairs(data / "STS12.jsonl.gz")
    assert evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache") == first
    assert encoded == [10, 10, 10, 10]


def test_results_are_mtebs_own(tmp_path, data):
    tiny_model(tmp_path / "model")
    scores = evaluate(tmp_path / "model", ["STS12"], data, tmp_path / "cache")
    (file,) = (tmp_path / "cache" / "results" / "local__model").rglob("STS12.json")
    result = mteb.TaskResult.from_disk(file)
    assert 100 * result.get_score() == pytest.approx(scores["STS12"])
    assert file.relative_to(tmp_path / "cache").parts[2] == Folder(tmp_path / "model").fingerprint
    assert result.dataset_revision == data_sources(find_tasks(["STS12"], data))["STS12"]["revision"]


def test_fingerprint_is_of_the_embeddings_not_of_the_place(tmp_path):
    model = tiny_model(tmp_path / "model")
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    (tmp_path / "copy" / "run.json").write_text("{}")
    one = Folder(tmp_path / "model").fingerprint
    model.encode(["text"])
    assert one == Folder(tmp_path / "copy").fingerprint == fingerprint(model)
    model.max_seq_length = 8
    assert one != fingerprint(model)


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


def test_model_size(tmp_path):
    model = tiny_model(tmp_path / "model")
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / "onnx" / "model.bin").write_bytes(bytes(10**6))
    parameters = sum(weight.numel() for weight in model.parameters())
    on_disk = (tmp_path / "model" / "model.safetensors").stat().st_size
    assert model_size(tmp_path / "model") == {"parameters": parameters, "megabytes": round(on_disk / 1e6, 2)}
    assert model_size(model) == {"parameters": parameters, "megabytes": round(4 * parameters / 1e6, 2)}


def test_no_model(tmp_path, offline):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(InputError, match="is no folder and no Hub id"):
            load_model(path)
    with pytest.raises(InputError, match=r"neither modules\.json nor config\.json"):
        load_model(tmp_path / "empty")
    with pytest.raises(InputError, match="could not be had from the Hub"):
        load_model("nobody/nothing")


def test_damaged_model(tmp_path):
    model = tiny_model(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(InputError, match="is no model that can be loaded"):
        load_model(tmp_path / "model")
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    model.save_pretrained(str(tmp_path / "nan"))
    with pytest.raises(InputError, match="NaN or infinite"):
        load_model(tmp_path / "nan")


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_collapsed_model(tmp_path, data):
    model = tiny_model(tmp_path / "model")
    last = model[0].auto_model.transformer.layer[-1].output_layer_norm
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    for _ in range(2):
        with pytest.raises(InputError, match="collapsed"):
            evaluate(model, ["STS12"], data, tmp_path / "cache")


def test_no_hub(tmp_path, offline):
    tiny_model(tmp_path / "model")
    with pytest.raises(InputError, match=r"data of task STS12 could not be had.*--data-dir"):
        evaluate(tmp_path / "model", ["STS12"])


def test_plain_transformers_folder(tmp_path, data):
    """A backbone without a pooling is scored under sentence-transformers' default, the mean."""
    backbone = tiny_backbone(tmp_path / "backbone")
    assert evaluate(backbone, ["STS12"], data) == evaluate(tiny_model(tmp_path / "model"), ["STS12"], data)


def test_environment():
    record = environment()
    assert record["versions"]["mteb"] == mteb.__version__
    assert record["machine"]["cores"] >= 1
    json.dumps(record)
