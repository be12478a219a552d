"""What training costs: both measurements time the work that they name, and what they print and write."""

import copy
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from refusals import refusal
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import sentences, tiny_model

from benchmarks.training_cost import memory, plot_memory, step, teacher, throughput
from distilface.compression.student import load_student
from distilface.data.texts import read_texts
from distilface.methods import embedding
from distilface.methods.online.loss import prepare
from distilface.settings import InputError
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture
def text(tmp_path: Path) -> str:
    file = tmp_path / "text.txt"
    file.write_text("\n".join(sentences(60)) + "\n")
    return str(file)


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Save a model that ends in ``Normalize``."""
    modules = [*tiny_model(tmp_path / "plain", seed=3).children(), Normalize()]
    folder = str(tmp_path / "model")
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(folder, create_model_card=False)
    return folder


def settings(tmp_path: Path, **more: float) -> TrainSettings:
    return TrainSettings(output_dir=str(tmp_path / "out"), train_max_length=6, bf16="no", **more)


def test_both_loops_train_the_same_student(model, text, tmp_path):
    """Silent if broken: a ratio between two loops that do different work says nothing."""
    rows = embedding.prepare(read_texts([text], 40), load_teacher(model, device="cpu"), tmp_path / "cache")
    student = load_student(model, [0], normalize=True, dropout=0.0)
    packaged, bare = copy.deepcopy(student), copy.deepcopy(student)
    work = settings(tmp_path, steps=5, batch_size=8, learning_rate=3e-3)
    throughput.train_packaged(packaged, rows, work)()
    throughput.train_bare(bare, rows, rows["label"][:], work)
    moved = 0.0
    weights = zip(student.named_parameters(), packaged.parameters(), bare.parameters(), strict=True)
    for (name, start), one, other in weights:
        moved = max(moved, float((one - start).detach().abs().max()))
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5, msg=name)
    assert moved > 1e-3, "they were trained"
    assert not list(tmp_path.rglob("checkpoint-*")), "no checkpoint in the timed part"


def test_the_teacher_alone_reads_the_same_batches(model, text, tmp_path):
    """Silent if broken: a ratio between different sentences says nothing."""
    student, own_teacher = tiny_model(tmp_path / "student"), load_teacher(model, device="cpu")
    texts, work = read_texts([text], 12), settings(tmp_path, steps=3, batch_size=4)
    seen: list[list] = []
    own_teacher.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]["input_ids"].tolist()))
    teacher.training(student, prepare(texts), work, [own_teacher], texts)()
    in_training = list(seen)
    seen.clear()
    teacher.read(own_teacher, teacher.batches(prepare(texts), work), 6, False)
    assert len(in_training) == 3
    assert in_training == seen
    assert not list(tmp_path.rglob("checkpoint-*")), "no checkpoint in the timed part"


def test_throughput_end_to_end(model, text, tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="distilface")
    output = tmp_path / "results" / "throughput.json"
    small = ["--layers", "1", "--batch_size", "4", "--steps", "2", "--rounds", "3", "--teacher_rounds", "2"]
    words = ["--teacher", model, "--data", text, "--teacher_sentences", "5", *small]
    result = throughput.main([*words, "--output", str(output)])
    assert json.loads(output.read_text()) == result
    training = result["training"]
    ours, theirs = training["trainer"]["seconds"], training["bare"]["seconds"]
    assert len(training["ratios"]) == len(ours) == len(theirs) == 3
    assert training["ratios"][0] == pytest.approx(theirs[0] / ours[0], abs=0.05), "above 1 if the trainer is faster"
    assert training["ratio"] == sorted(training["ratios"])[1]
    assert training["trainer"]["sentences_per_second"] == pytest.approx(8 / sorted(ours)[1], rel=0.05)
    tokenizer = load_teacher(model, device="cpu").tokenizer
    tokens = sum(len(ids) for ids in tokenizer(read_texts([text], 8)["text"][:])["input_ids"])
    assert training["trainer"]["tokens_per_second"] == pytest.approx(tokens / sorted(ours)[1], rel=0.05)
    assert len(result["teacher"]["ratios"]) == 2
    assert result["data"]["rows"] == 8
    assert {"versions", "machine", "seed", "model"} <= set(result)
    assert f"ratio {training['ratio']} (goal 0.9)" in capsys.readouterr().out
    assert caplog.text.index("training: 3 more pairs, about") < caplog.text.index("teacher: 2 more pairs, about")


def test_teacher_cost_end_to_end(model, text, tmp_path, capsys):
    output = tmp_path / "results" / "cost.json"
    words = ["--teachers", model, "--backbone", model, "--data", text, "--batch_size", "4", "--steps", "2"]
    result = teacher.main([*words, "--rounds", "2", "--output", str(output)])
    assert json.loads(output.read_text()) == result
    for kind in ("teachers", "past"):
        assert len(result[kind]["ratios"]) == 2
        assert min(result[kind]["ms_per_step"].values()) > 0
    assert {"versions", "machine", "seed", "model", "goal"} <= set(result)
    assert f"ratio {result['past']['ratio']} (goal 1 or less)" in capsys.readouterr().out


@pytest.mark.skipif(not memory.STATUS.is_file(), reason="Linux alone tells what a process holds")
def test_memory_end_to_end(model, tmp_path):
    output = tmp_path / "memory.json"
    words = ["--rows", "300", "--tokenizer", model, "--steps", "2", "--batch_size", "8", "--alone"]
    result = memory.main([*words, "--output", str(output)])
    assert json.loads(output.read_text()) == result
    assert result["rows"] == 300
    for stage in ("read", "fingerprint", "teacher", "train"):
        assert result[stage]["seconds"] >= 0
        assert result[stage]["megabytes"] > 10


def test_the_memory_is_drawn_against_the_rows(tmp_path):
    def run(rows: int) -> dict:
        stage = {"seconds": rows / 100, "megabytes": 400 + rows // 1000}
        return {"rows": rows, "start_megabytes": 390, **dict.fromkeys(("read", "order", "teacher", "train"), stage)}

    (tmp_path / "m.json").write_text(json.dumps({"stages": [run(5000), run(1000)]}))
    left, right = plot_memory.draw({"stages": [run(5000), run(1000)]}, str(tmp_path / "f.png")).axes
    drawn = {line.get_label(): [*map(list, line.get_data())] for line in left.lines}
    assert drawn["training"] == [[1000, 5000], [401, 405]]
    assert {tuple(line.get_ydata()) for line in right.lines} == {(100.0, 100.0)}
    plot_memory.main(["--result", str(tmp_path / "m.json"), "--output", str(tmp_path / "g.png")])
    assert (tmp_path / "g.png").stat().st_size > 1000
    (tmp_path / "n.json").write_text("{}")
    assert "n.json says nothing of stages" in refusal(plot_memory.main, ["--result", str(tmp_path / "n.json")])


def test_the_most_memory_of_a_stage_is_noted():
    """Numbers that are written take their place; that they were given back makes no difference."""
    stages: dict = {}
    before = memory.held()
    with memory.measured(stages, "stage"):
        block = np.ones(25_000_000)  # 200 MB
        time.sleep(0.3)
        del block
    assert stages["stage"]["megabytes"] > before / 1e6 + 150


def test_the_ratio_is_of_each_round():
    times = {"without": [1.0, 2.0, 4.0], "with_past": [1.2, 3.0, 4.0], "past_alone": [0.5, 0.5, 1.0]}
    assert teacher.compare(times, "past", steps=10) == {
        "ratios": [0.8, 1.2, 0.8],
        "ratio": 0.8,
        "ms_per_step": {"with": 300.0, "without": 200.0, "alone": 50.0},
    }


def test_a_step_is_shared_out_to_its_parts(model, text, tmp_path):
    """The parts of a step that the profiler saw are all there, and no time counts twice."""
    output = tmp_path / "step.json"
    small = ["--length", "2", "--batch_size", "3", "--steps", "3", "--rounds", "2", "--train_max_length", "16"]
    result = step.run(["--student", model, "--data", text, *small, "--output", str(output)])
    assert list(json.loads(output.read_text()).values()) == [result]
    shares = result["shares"]
    assert {"rounding", "linear maps", "attention", "optimizer", "reading and tokenizing"} <= set(shares)
    assert min(shares.values()) >= 0
    assert sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert len(result["ratios"]) == 2
    assert 4 < result["tokens_a_text"] <= 16
    with pytest.raises(InputError, match="--steps 1 is too few"):
        step.run(["--student", model, "--data", text, "--steps", "1"])


def test_an_operator_belongs_to_the_range_around_it():
    def event(name: str, parent=None, spent: float = 0):
        return SimpleNamespace(name=name, cpu_parent=parent, self_cpu_time_total=spent)

    optimizer, rounding = event("Optimizer.step#AdamW.step", spent=1), event("_Straight")
    events = [optimizer, event("aten::mul", optimizer, 2), event("aten::abs", rounding, 3), event("aten::mm", spent=4)]
    expected = {"linear maps": 0.2, "rounding": 0.15, "optimizer": 0.15, step.OTHER: 0.25, step.PYTHON: 0.25}
    assert step.shares([*events, event("aten::gelu", spent=5)], 20) == expected


@pytest.mark.parametrize(("script", "steps", "batch"), [(throughput, 60, 128), (teacher, 20, 64)])
def test_bad_input(text, script, steps, batch):
    problem = f"{steps} steps of {batch} need {steps * batch} sentences and there are 60"
    with pytest.raises(InputError, match=problem):
        script.main(["--data", text])
    with pytest.raises(InputError, match="--rounds 0 is out of range"):
        script.main(["--data", text, "--rounds", "0"])
