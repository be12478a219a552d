"""The throughput benchmark: both loops do the same work, and what it prints and writes."""

import copy
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import sentences, tiny_model

from distilface.compression.student import load_student
from distilface.data.texts import read_texts
from distilface.methods.embedding import prepare
from distilface.settings import InputError
from distilface.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run_throughput(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("benchmarks.training_cost.throughput")


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(sentences(60)) + "\n")
    return str(file)


@pytest.fixture
def teacher(tmp_path: Path) -> SentenceTransformer:
    """Make a teacher that ends in ``Normalize``, in a folder."""
    model = tiny_model(tmp_path / "plain", seed=3)
    model = SentenceTransformer(modules=[*model.children(), Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path / "teacher"), create_model_card=False)
    return model


def test_both_loops_train_the_same_student(run_throughput, teacher, text, tmp_path):
    """Silent if broken: a ratio between two loops that do different work says nothing."""
    rows = prepare(read_texts([text], 40), teacher, tmp_path / "cache")
    student = load_student(str(tmp_path / "teacher"), [0], normalize=True, dropout=0.0)
    packaged, bare = copy.deepcopy(student), copy.deepcopy(student)
    settings = TrainSettings(
        output_dir=str(tmp_path / "out"), steps=5, batch_size=8, train_max_length=6, learning_rate=3e-3, bf16="no"
    )
    run_throughput.train_packaged(packaged, rows, settings)()
    run_throughput.train_bare(bare, rows, rows["label"][:], settings)
    moved = 0.0
    for (name, start), one, other in zip(
        student.named_parameters(), packaged.parameters(), bare.parameters(), strict=True
    ):
        moved = max(moved, float((one - start).detach().abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5, msg=name)
    assert moved > 1e-3, "they were trained"
    assert not list(tmp_path.rglob("checkpoint-*")), "no checkpoint in the timed part"


def test_end_to_end(run_throughput, teacher, text, tmp_path, capsys):
    output = tmp_path / "results" / "throughput.json"
    small = ["--layers", "1", "--batch_size", "4", "--steps", "2", "--rounds", "3", "--teacher_rounds", "2"]
    words = ["--teacher", str(tmp_path / "teacher"), "--data", text, "--teacher_sentences", "5", *small]
    result = run_throughput.main([*words, "--output", str(output)])
    printed = capsys.readouterr()
    assert json.loads(output.read_text()) == result
    training = result["training"]
    assert len(training["ratios"]) == len(training["trainer"]["seconds"]) == len(training["bare"]["seconds"]) == 3
    ours, theirs = training["trainer"]["seconds"], training["bare"]["seconds"]
    assert training["ratios"][0] == pytest.approx(theirs[0] / ours[0], abs=0.05), "above 1 if the trainer is faster"
    assert training["ratio"] == sorted(training["ratios"])[1]
    assert training["trainer"]["sentences_per_second"] == pytest.approx(8 / sorted(ours)[1], rel=0.05)
    tokens = sum(len(ids) for ids in teacher.tokenizer(read_texts([text], 8)["text"][:])["input_ids"])
    assert training["trainer"]["tokens_per_second"] == pytest.approx(tokens / sorted(ours)[1], rel=0.05)
    assert len(result["teacher"]["ratios"]) == 2
    assert result["data"]["rows"] == 8
    assert {"versions", "machine", "seed", "model"} <= set(result)
    assert f"ratio {training['ratio']} (goal 0.9)" in printed.out
    assert printed.err.index("training: 3 more pairs, about") < printed.err.index("teacher: 2 more pairs, about")


def test_bad_input(run_throughput, teacher, text, tmp_path):
    words = ["--teacher", str(tmp_path / "teacher"), "--layers", "0", "--data", text]
    with pytest.raises(InputError, match="60 steps of 128 need 7680 sentences and there are 60"):
        run_throughput.main(words)
    with pytest.raises(InputError, match="--rounds 0 is out of range"):
        run_throughput.main([*words, "--rounds", "0"])
