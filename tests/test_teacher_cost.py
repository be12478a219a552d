"""The cost of a teacher: what is timed does what it says, and what is printed and written."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from runs import Materials
from tiny import tiny_model

from distilface.data.texts import read_texts
from distilface.methods.online.loss import prepare
from distilface.settings import InputError
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    return importlib.import_module("benchmarks.training_cost.teacher")


def words(materials: Materials, *more: str) -> list[str]:
    models = ["--teachers", str(materials.teacher), "--backbone", str(materials.backbone)]
    return [*models, "--data", str(materials.text), "--batch_size", "4", "--steps", "2", "--rounds", "2", *more]


def test_the_teacher_alone_reads_the_batches_of_the_training(cost, materials, tmp_path):
    """Silent if broken: a ratio between different sentences says nothing."""
    student, teacher = tiny_model(tmp_path / "student"), load_teacher(str(materials.teacher), device="cpu")
    texts = read_texts([str(materials.text)], 12)
    settings = TrainSettings(output_dir=str(tmp_path / "out"), steps=3, batch_size=4, train_max_length=6, bf16="no")
    seen: list[list] = []
    hook = lambda module, inputs: seen.append(inputs[0]["input_ids"].tolist())  # noqa: E731
    teacher.register_forward_pre_hook(hook)
    cost.training(student, prepare(texts), settings, [teacher], texts)()
    trained = list(seen)
    seen.clear()
    cost.read(teacher, cost.batches(prepare(texts), settings), 6, False)
    assert len(trained) == 3
    assert trained == seen
    assert not list(tmp_path.rglob("checkpoint-*")), "no checkpoint in the timed part"


def test_end_to_end(cost, materials, tmp_path, capsys):
    output = tmp_path / "results" / "cost.json"
    result = cost.main(words(materials, "--output", str(output)))
    assert json.loads(output.read_text()) == result
    for kind in ("teachers", "past"):
        assert len(result[kind]["ratios"]) == 2
        assert min(result[kind]["ms_per_step"].values()) > 0
    assert {"versions", "machine", "seed", "model", "goal"} <= set(result)
    assert f"ratio {result['past']['ratio']} (goal 1 or less)" in capsys.readouterr().out


def test_the_ratio_is_of_each_round(cost):
    times = {"without": [1.0, 2.0, 4.0], "with_past": [1.2, 3.0, 4.0], "past_alone": [0.5, 0.5, 1.0]}
    found = cost.compare(times, "past", steps=10)
    assert found["ratios"] == [0.8, 1.2, 0.8]
    assert found["ratio"] == 0.8
    assert found["ms_per_step"] == {"with": 300.0, "without": 200.0, "alone": 50.0}


def test_bad_input(cost, materials):
    with pytest.raises(InputError, match="20 steps of 64 need 1280 sentences and there are 28"):
        cost.main(["--data", str(materials.text)])
    with pytest.raises(InputError, match="--rounds 0 is out of range"):
        cost.main(words(materials, "--rounds", "0"))
