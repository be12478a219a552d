"""DistillCSE and distillation on the fly: the equation by plain loops in float64, and what a teacher must never do."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from runs import EVAL_STEPS, STEPS, each_step, equal, stopped_at, train
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from students import Emitter, features, numbers
from tiny import PAIRS, sentences, tiny_model
from torch import nn
from transformers import DistilBertTokenizerFast

from distilface.methods.online import generations
from distilface.methods.online import loss as online
from distilface.methods.online import relations as relation
from distilface.model.folder import load
from distilface.settings import InputError
from distilface.training.checkpoints import last_whole
from distilface.training.evaluators import DevEvaluator
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.teacher import load_teacher
from distilface.training.trainer import LOSS_STATE

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

# ---- students and teachers


class Reader(Emitter):
    """A teacher that knows the embedding of each of its texts ("0", "1", ...)."""

    max_seq_length = default_prompt_name = truncate_dim = None
    prompts: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self.vectors = torch.from_numpy(vectors)

    def preprocess(self, texts: list[str], prompt: str | None = None) -> dict[str, torch.Tensor]:
        return {"given": self.vectors[[int(text) for text in texts]]}


def mean_cosines(*teachers: np.ndarray) -> np.ndarray:
    """Average the teachers' cosines of each sentence with the others."""
    return np.mean([oracles.off_diagonal_cosines(teacher) for teacher in teachers], axis=0)


def given_loss(teachers: Sequence[np.ndarray], **options: Any) -> online.DistillCSELoss:
    """Make a loss whose teachers know the embeddings of texts "0", "1", ..."""
    texts = Dataset.from_dict({"text": [str(i) for i in range(len(teachers[0]))]})
    return online.DistillCSELoss(Emitter(), [Reader(t) for t in teachers], texts, **options).double()


def value_and_gradients(loss: nn.Module, views: Sequence[np.ndarray], rows: Sequence[int]) -> tuple:
    given = [torch.tensor(view, dtype=torch.float64, requires_grad=True) for view in views]
    value = loss([{"given": view} for view in given], torch.tensor(rows))
    value.backward()
    return value.item(), *(view.grad.numpy() for view in given)


@contextmanager
def shuffles(seen: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Note what goes into each shuffle and what comes out."""

    def noted(cosines: torch.Tensor, p: float, draw: np.random.Generator) -> torch.Tensor:
        seen.append((cosines, relation.shuffle_in_groups(cosines, p, draw)))
        return seen[-1][1]

    with patch.object(online, "shuffle_in_groups", noted):
        yield


def other_vocabulary(folder: Path) -> SentenceTransformer:
    """Save a teacher to which the same words are other numbers, and load it."""
    tiny_model(folder, seed=7)
    vocabulary = list(DistilBertTokenizerFast.from_pretrained(folder).get_vocab())
    special = [word for word in vocabulary if word.startswith("[")]
    order = [*sorted(special), *sorted(set(vocabulary) - set(special), reverse=True)]
    DistilBertTokenizerFast(vocab={word: i for i, word in enumerate(order)}, model_max_length=64).save_pretrained(
        folder
    )
    return load_teacher(str(folder), device="cpu")


def call(loss: nn.Module, texts: list[str], padding: int = 0) -> torch.Tensor:
    """Run a loss on the first sentences of its text."""
    columns = [features(loss.model, texts, padding) for _ in range(2)]
    return loss(columns, torch.arange(len(texts)))


def steps(loss: nn.Module, texts: list[str], count: int, rate: float) -> None:
    torch.manual_seed(0)
    loss.train()
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=rate)
    for _ in range(count):
        optimizer.zero_grad()
        call(loss, texts).backward()
        optimizer.step()


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def student(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "student")


TEXTS = sentences(24)


def taught(student: SentenceTransformer, teachers: Sequence[SentenceTransformer], **options: Any) -> nn.Module:
    return online.DistillCSELoss(student, teachers, Dataset.from_dict({"text": TEXTS}), **options)


# ---- the equation


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_the_loss_is_the_papers_equation(count, weight):
    teachers = [numbers(9, 4 + seed, seed=seed) for seed in range(count)]
    rows, views = [7, 0, 3, 2, 8], [numbers(5, 5, seed=8), numbers(5, 5, seed=9)]
    target = mean_cosines(*(teacher[rows] for teacher in teachers))

    def expected(first, second):
        return oracles.simcse(first, second, 0.05) + weight * oracles.relation_loss_of_cosines(first, target, 0.3, 0.2)

    options = {"student_temperature": 0.3, "teacher_temperature": 0.2, "weight": weight, "group_p": 0.0}
    value, first, second = value_and_gradients(given_loss(teachers, **options), views, rows)
    assert value == pytest.approx(expected(*views), rel=1e-9)
    np.testing.assert_allclose(first, oracles.gradient(lambda x: expected(x, views[1]), views[0]), atol=1e-6)
    np.testing.assert_allclose(second, oracles.gradient(lambda x: expected(views[0], x), views[1]), atol=1e-6)


def test_the_temperatures_are_the_papers():
    teacher, views = numbers(4, 3), [numbers(4, 5, seed=8), numbers(4, 5, seed=9)]
    loss = given_loss([teacher], group_p=0.0)
    expected = oracles.simcse(*views, 0.05) + oracles.relation_loss_of_cosines(
        views[0], mean_cosines(teacher), 0.02, 0.01
    )
    assert value_and_gradients(loss, views, range(4))[0] == pytest.approx(expected, rel=1e-9)
    assert online.DistillCSELoss(Emitter()).group_p == 0.1


@pytest.mark.parametrize("p", [0.1, 0.15, 0.3, 0.7])
def test_group_p_shuffles_the_teachers_mean_inside_its_groups(p):
    """The groups are found by a loop, the loss from the shuffled cosines as constants."""
    teachers = [numbers(12, 4, seed=seed) for seed in range(2)]
    views, seen = [numbers(12, 5, seed=8), numbers(12, 5, seed=9)], []
    loss = given_loss(teachers, student_temperature=0.3, teacher_temperature=0.2, group_p=p)
    with shuffles(seen):
        value, first, _ = value_and_gradients(loss, views, range(12))
    [(before, after)] = seen
    np.testing.assert_allclose(before.numpy(), mean_cosines(*teachers), atol=1e-12)
    moved = 0
    for old, new in zip(before.tolist(), after.tolist(), strict=True):
        for group in oracles.groups(np.array(old), p):
            assert sorted(old[j] for j in group) == sorted(new[j] for j in group)
            moved += sum(old[j] != new[j] for j in group)
    assert moved > 0

    def expected(x):
        return oracles.simcse(x, views[1], 0.05) + oracles.relation_loss_of_cosines(x, after.numpy(), 0.3, 0.2)

    assert value == pytest.approx(expected(views[0]), rel=1e-9)
    np.testing.assert_allclose(first, oracles.gradient(expected, views[0]), atol=1e-6)


def test_the_softmax_of_the_groups_has_no_temperature():
    """With the teacher's own, the nearest sentence would be a group of its own, and never be shuffled."""
    ranked = torch.tensor([[0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1, -0.2, -0.3]])
    # shares .193 .129 .117 .106 .096 .087 .079 .071 .064 .058
    assert relation.group_numbers(ranked, 0.3)[0].tolist() == [0, 1, 1, 1, 2, 2, 2, 2, 3, 3]


def test_every_order_inside_a_group_is_as_likely():
    cosines = torch.tensor([[0.1, 0.3, 0.2]])
    seen: dict[tuple, int] = {}
    for seed in range(1200):
        order = tuple(relation.shuffle_in_groups(cosines, 1.0, np.random.default_rng(seed))[0].tolist())
        seen[order] = seen.get(order, 0) + 1
    assert len(seen) == 6
    assert min(seen.values()) > 140


def test_the_shuffle_is_anew_for_each_anchor_and_step_and_the_same_for_a_seed():
    teacher = np.ones((30, 3)) + 1e-3 * numbers(30, 3)
    views = [{"given": torch.from_numpy(numbers(30, 5, seed=s))} for s in (1, 2)]

    def drawn(count: int, **options: Any) -> list[torch.Tensor]:
        seen: list = []
        loss = given_loss([teacher], **options)
        with shuffles(seen):
            for _ in range(count):
                loss(views, torch.arange(30))
        return [after for _, after in seen]

    first, second = drawn(2)
    assert not torch.equal(first, second), "each step is anew"
    assert torch.equal(first, drawn(1)[0])
    assert not torch.equal(first, drawn(1, seed=7)[0])
    rows = first.argsort(dim=-1)
    assert len({tuple(row) for row in rows.tolist()}) == 30, "each anchor is anew"
    given = given_loss([teacher])
    assert torch.equal(given.teacher_relations({}, torch.arange(30)), drawn(1, group_p=0.0)[0]), "0 is off"


def test_the_step_that_draws_the_shuffle_counts_training_only():
    loss = given_loss([numbers(4, 3)])
    views = [{"given": torch.from_numpy(numbers(4, 5, seed=s))} for s in (1, 2)]
    for training, expected in ((True, 1), (False, 1), (True, 2)):
        loss.train(training)(views, torch.arange(4))
        assert loss.state_dict()["step"].item() == expected


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_sentences_have_no_relations(count):
    views = [numbers(count, 5, seed=8), numbers(count, 5, seed=9)]
    for p in (0.0, 0.1):
        value, first, _ = value_and_gradients(given_loss([numbers(2, 3)], group_p=p), views, range(count))
        assert value == pytest.approx(oracles.simcse(*views, 0.05), abs=1e-9)
        expected = oracles.gradient(lambda x: oracles.simcse(x, views[1], 0.05), views[0])
        np.testing.assert_allclose(first, expected, atol=1e-6)


def test_equal_sentences():
    """All cosines are 1: every choice is as good, and nothing is divided by zero."""
    same_rows = [np.ones((6, 5)), np.ones((6, 5))]
    value, first, _ = value_and_gradients(given_loss([np.ones((6, 3))]), same_rows, range(6))
    assert value == pytest.approx(math.log(6) + math.log(5), rel=1e-9)
    np.testing.assert_allclose(first, 0, atol=1e-9)


def test_padding_changes_nothing(student, tmp_path):
    loss = taught(student, [other_vocabulary(tmp_path / "teacher")], keep="last").eval()
    with torch.no_grad():
        for _ in range(2):
            tight, wide = call(loss, TEXTS[:6]), call(loss, TEXTS[:6], padding=7)
            torch.testing.assert_close(tight, wide, rtol=1e-4, atol=1e-5)
            loss.switch()


# ---- teachers


def test_a_teacher_reads_the_text_in_its_own_words(student, tmp_path):
    """Silent if broken: the student's token numbers mean something to any teacher, but something else."""
    teachers = [load_teacher(str(tmp_path / "student"), device="cpu"), other_vocabulary(tmp_path / "other")]
    ids = [teacher.preprocess(["the old dog"])["input_ids"][0, 1].item() for teacher in teachers]
    assert ids[0] != ids[1]
    rows = [5, 2, 17, 11, 0]
    found = taught(student, teachers).teacher_relations(features(student, TEXTS[:5]), torch.tensor(rows))
    expected = mean_cosines(*(teacher.encode([TEXTS[i] for i in rows]).astype(float) for teacher in teachers))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_a_teacher_reads_its_prompt_and_no_more_tokens_than_it_is_told(student, tmp_path):
    teacher = other_vocabulary(tmp_path / "other")

    def found(length: int | None) -> torch.Tensor:
        loss = taught(student, [teacher], teacher_max_length=length)
        return loss.teacher_relations({}, torch.arange(8))

    def expected() -> np.ndarray:
        return np.asarray(mean_cosines(teacher.encode(TEXTS[:8]).astype(float)))

    teacher.prompts, teacher.default_prompt_name = {"old": "the old "}, "old"
    with_prompt = expected()
    np.testing.assert_allclose(found(None).numpy(), with_prompt, atol=1e-5)
    np.testing.assert_allclose(found(9999).numpy(), with_prompt, atol=1e-5)
    teacher.default_prompt_name, teacher.max_seq_length = None, 4
    assert abs(expected() - with_prompt).max() > 1e-3
    short = expected()
    teacher.max_seq_length = 64
    np.testing.assert_allclose(found(4).numpy(), short, atol=1e-5)


def test_a_teacher_runs_once_a_step(student, tmp_path):
    teacher, calls = other_vocabulary(tmp_path / "other"), []
    teacher.register_forward_hook(lambda module, inputs, output: calls.append(len(output["sentence_embedding"])))
    call(taught(student, [teacher]), TEXTS[:6])
    assert calls == [6]


@pytest.mark.parametrize("own_past", [False, True])
def test_gradients_reach_the_student_and_never_a_teacher(student, tmp_path, own_past):
    teacher = other_vocabulary(tmp_path / "other")
    loss = taught(student, [teacher], keep="best_dev")
    if own_past:
        loss.switch()
    loss.train()
    teachers = [teacher, loss.past, loss.best]
    before = [state(each) for each in teachers]
    assert not any(module.training for each in teachers for module in each.modules())
    assert loss.training
    assert student.training
    call(loss, TEXTS[:6]).backward()
    without = {name for name, p in student.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert not {name for name in without if "k_lin.bias" not in name}
    assert all(p.grad is None and not p.requires_grad for each in teachers for p in each.parameters())
    steps(loss, TEXTS[:6], 2, 1e-3)
    assert all(same(state(each), old) for each, old in zip(teachers, before, strict=True))
    relations = [loss.teacher_relations(features(student, TEXTS[:6]), torch.arange(6)) for _ in range(2)]
    assert torch.equal(*relations), "no dropout"


def test_other_encoders_are_not_saved_and_the_copies_are(student, tmp_path):
    teacher = other_vocabulary(tmp_path / "other")
    own = ["best_score", "generation", "step"]

    def names(**options: Any) -> list[str]:
        return sorted({name.split(".")[0] for name in taught(student, [teacher], **options).state_dict()})

    assert names() == sorted([*own, "model"])
    assert names(keep="last") == sorted([*own, "model", "past"])
    assert names(keep="best_dev") == sorted([*own, "best", "model", "past"])


def test_teachers_run_in_bf16_as_the_student_does(student, tmp_path):
    teacher = other_vocabulary(tmp_path / "other")
    found = [taught(student, [teacher], bf16=bf16).teacher_relations({}, torch.arange(8)) for bf16 in (False, True)]
    assert found[1].dtype == torch.float32
    assert 0 < (found[0] - found[1]).abs().max() < 0.02
    assert (found[1].bfloat16().float() != found[1]).any(), "the cosines themselves are not rounded"


def test_a_student_learns_its_teachers_relations(student, tmp_path):
    teacher = other_vocabulary(tmp_path / "other")
    target = np.ravel(mean_cosines(teacher.encode(TEXTS).astype(float)))

    def agreement() -> float:
        return float(np.corrcoef(np.ravel(mean_cosines(student.encode(TEXTS).astype(float))), target)[0, 1])

    before = agreement()
    loss = taught(student, [teacher], weight=1000.0, group_p=0.0, teacher_temperature=0.05, student_temperature=0.05)
    steps(loss, TEXTS, 120, 2e-3)
    assert before < 0.6
    assert agreement() > before + 0.3


# ---- the student's own past


def test_without_a_teacher_it_is_simcse_until_the_first_switch(student):
    texts = Dataset.from_dict({"text": TEXTS})
    loss = online.DistillCSELoss(student, keep="last").eval()
    assert loss.teacher_relations(features(student, TEXTS[:6]), None) is None
    alone = online.simcse.SimCSELoss(student).eval()
    with torch.no_grad():
        assert call(loss, TEXTS[:6]) == call(alone, TEXTS[:6])
        loss.switch()
        expected = mean_cosines(student.encode(TEXTS[:6]).astype(float))
        found = loss.teacher_relations(features(student, TEXTS[:6]), None)
        assert call(loss, TEXTS[:6]) > call(alone, TEXTS[:6])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    rows = online.prepare(texts)
    assert rows.column_names == ["sentence1", "sentence2", "label"]
    assert rows["label"][:] == list(range(len(TEXTS)))
    assert rows["sentence1"][:] == rows["sentence2"][:] == TEXTS


def test_at_a_switch_the_student_becomes_the_teacher_and_stays_as_it_was(student, tmp_path):
    loss = taught(student, [other_vocabulary(tmp_path / "other")], keep="last")
    steps(loss, TEXTS[:8], 2, 1e-2)
    then = state(student)
    loss.switch()
    assert same(state(loss.past), then)
    steps(loss, TEXTS[:8], 2, 1e-2)
    assert same(state(loss.past), then)
    assert not same(state(student), then)
    expected = mean_cosines(loss.past.encode(TEXTS[:8]).astype(float))
    found = loss.teacher_relations(features(student, TEXTS[:8]), torch.arange(8))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5, err_msg="the other teacher is gone")


def test_best_dev_takes_the_student_that_scored_best(student):
    loss = online.DistillCSELoss(student, keep="best_dev")
    states = []
    for score in (70.0, 80.0, 75.0):
        with torch.no_grad():
            next(student.parameters()).add_(1.0)
        states.append(state(student))
        loss.observe(score)
    loss.switch()
    assert same(state(loss.past), states[1])
    assert loss.best_score == 80.0


def test_a_loss_without_copies_cannot_switch(student):
    with pytest.raises(ValueError, match="no copy of the student"):
        online.DistillCSELoss(student).switch()


def test_the_settings_and_papers_are_told(student, tmp_path):
    """The card and run.json are written from these."""
    loss = taught(student, [other_vocabulary(tmp_path / "other")], keep="best_dev", teacher_max_length=32)
    told = json.loads(json.dumps(loss.get_config_dict()))
    expected = {
        "scale": 20.0,
        "mlp_head": False,
        "weight": 1.0,
        "student_temperature": 0.02,
        "teacher_temperature": 0.01,
        "group_p": 0.1,
        "teacher_max_length": 32,
        "teachers": 1,
        "keep": "best_dev",
    }
    assert {key: told[key] for key in expected} == expected
    assert online.DistillCSELoss(student, keep="last").get_config_dict()["keep"] == "last"
    assert online.DistillCSELoss(student).get_config_dict()["keep"] is None
    assert "DistillCSE" in loss.citation
    assert "SimCSE" in loss.citation


# ---- in a training


@contextmanager
def scores(of_step: dict[int, float]) -> Iterator[None]:
    """Have the development set score what is written here, and 0 at any other time."""

    def score(self: DevEvaluator, model: Any, *arguments: Any, steps: int = -1, **options: Any) -> dict[str, float]:
        return {"spearman": of_step.get(steps, 0.0), "mean_cosine": 0.0}

    with patch.object(DevEvaluator, "__call__", score):
        yield


def test_the_trainer_optimises_the_student_alone(student, tmp_path):
    loss = taught(student, [other_vocabulary(tmp_path / "other")], keep="best_dev")
    dev = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
    settings = TrainSettings(output_dir=str(tmp_path / "out"), steps=1, batch_size=2, bf16="no")
    rows = online.prepare(loss.texts)
    trainer = encoder_trainer(student, loss, rows, dev, settings)[0]
    trained = {id(p) for group in trainer.create_optimizer().param_groups for p in group["params"]}
    assert trained == {id(p) for p in student.parameters()}
    past = loss.past
    trainer.train()
    assert (loss.past, loss.model) == (past, student), "the trainer replaces no teacher"


# Scored at 3, 6, 9 and 10 steps: the second generation is worse than the first, and the last is the best.
CURVE = {3: 50.0, 6: 20.0, 9: 30.0, 10: 90.0}
SAME = ("loss", "curve", "steps", "best_step", "scores", "data", "verdict", "generations", "loss_settings")


@pytest.mark.parametrize("keep", ["last", "best_dev"])
def test_each_switch_is_made_and_reported(keep, materials, tmp_path, caplog):
    words = materials.words("online", tmp_path / "model", "--teacher_from", keep)
    students: dict[int, dict[str, torch.Tensor]] = {}
    teachers: dict[int, dict[str, torch.Tensor]] = {}
    made: list[online.DistillCSELoss] = []
    real = online.DistillCSELoss.__init__

    def noted(self: online.DistillCSELoss, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        made.append(self)

    def look(step: int, _: Any) -> None:
        students[step - 1], teachers[step - 1] = state(made[0].model), state(made[0].past)

    with scores(CURVE), patch.object(online.DistillCSELoss, "__init__", noted), each_step(look):
        record = train("online", words)
    second = 3 if keep == "best_dev" else 6
    for step, source in ((2, 0), (3, 3), (5, 3), (6, second), (9, second)):
        assert same(teachers[step], students[source]), f"after step {step} the teacher is that of step {source}"
    assert record["generations"] == [
        {"generation": 0, "steps": [1, 3], "score": 50.0, "best": [3, 50.0], "teacher": None},
        {"generation": 1, "steps": [4, 6], "score": 20.0, "best": [6, 20.0], "teacher": [3, 50.0]},
        {"generation": 2, "steps": [7, 10], "score": 90.0, "best": [10, 90.0], "teacher": [second, CURVE[second]]},
    ]
    lines = [line for line in caplog.messages if line.startswith("generation ")]
    taught_by = ", taught by the best so far (50.00)" if keep == "best_dev" else ""
    assert lines == [
        f"generation 1 begins after step 3 (dev score 50.00){taught_by}",
        f"generation 2 begins after step 6 (dev score 20.00){taught_by}",
    ]


def test_the_best_of_all_generations_is_published(materials, tmp_path):
    """Though the loss goes back to that generation with it, run.json tells of all of them."""
    seen: dict[int, dict[str, torch.Tensor]] = {}
    real = generations.Generations.on_evaluate

    def look(self: generations.Generations, args: Any, now: Any, *rest: Any, **options: Any) -> None:
        seen[now.global_step] = state(self.loss.model)
        real(self, args, now, *rest, **options)

    with scores({3: 10.0, 6: 70.0, 9: 30.0, 10: 40.0}), patch.object(generations.Generations, "on_evaluate", look):
        record = train("online", materials.words("online", tmp_path / "model"))
    assert record["best_step"] == 6
    assert [each["generation"] for each in record["generations"]] == [0, 1, 2]
    assert same(state(load(tmp_path / "model")), seen[6])


reference_runs: dict[str, tuple[Path, dict[str, Any]]] = {}


@pytest.fixture
def reference(materials, tmp_path_factory):
    """Give the folder and the record of a run that was never stopped; each is made once."""

    def run(kind: str) -> tuple[Path, dict[str, Any]]:
        if kind not in reference_runs:
            output = tmp_path_factory.mktemp("reference") / "model"
            with scores(CURVE):
                reference_runs[kind] = (output, train(kind, materials.words(kind, output)))
        return reference_runs[kind]

    return run


@pytest.mark.parametrize(
    ("kind", "stop"),
    [("online", 2), ("online", 3), ("online", 4), ("online", 8), ("distillcse", 5), ("distillcse, then online", 5)],
)
def test_a_resumed_run_is_the_one_that_never_stopped(kind, stop, materials, reference, tmp_path):
    """Stops before a switch, in the step of one, right after it, and past the last; equal to the bit."""
    uninterrupted, expected = reference(kind)
    assert expected["best_step"] == STEPS, "an earlier checkpoint would hide what comes after it"
    words = materials.words(kind, tmp_path / "model")
    with scores(CURVE), stopped_at(stop):
        train(kind, words)
    kept = load_file(last_whole(tmp_path / "model.unfinished") / LOSS_STATE)
    assert kept["step"].item() == stop
    assert kept["generation"].item() == (0 if kind == "distillcse" else min(stop // EVAL_STEPS, 2))
    with scores(CURVE):
        record = train(kind, [*words, "--resume"])
    assert equal(tmp_path / "model", uninterrupted)
    assert {key: record[key] for key in SAME} == {key: expected[key] for key in SAME}


@pytest.mark.parametrize("forgotten", ["past", "step", "generation"])
def test_a_resume_that_forgot_a_part_of_the_loss_would_end_in_other_weights(
    forgotten, materials, reference, tmp_path, monkeypatch
):
    """So that the test above sees each of them."""
    words = materials.words("online", tmp_path / "model")
    with scores(CURVE), stopped_at(4):
        train("online", words)

    def forgetful(file: Path) -> dict[str, torch.Tensor]:
        kept = load_file(file)
        return {name: kept[name] * 0 if name.split(".")[0] == forgotten else kept[name] for name in kept}

    monkeypatch.setattr("distilface.training.trainer.load_file", forgetful)
    with scores(CURVE):
        train("online", [*words, "--resume"])
    assert not equal(tmp_path / "model", reference("online")[0])


def test_teachers_are_scored(materials, tmp_path):
    words = materials.words("distillcse", tmp_path / "model", "--steps", "1")
    words[words.index("--teachers") + 1 : words.index("--teachers") + 2] = [
        str(materials.teacher),
        str(materials.backbone),
    ]
    record = train("distillcse", words)
    assert record["teacher"] == [str(materials.teacher), str(materials.backbone)]
    assert record["scores"]["teacher_stsb_dev"] == max(record["teacher_scores"].values())
    assert record["loss_settings"]["teachers"] == 2
    assert record["generations"] == [
        {**record["generations"][0], "generation": 0, "steps": [1, 1], "teacher": None},
    ]


MISTAKES = [
    ("online", ["--switch_every", "0"], "without a teacher and without a switch this is plain SimCSE; name --teachers"),
    ("online", ["--max_switches", "0"], "without a teacher and without a switch this is plain SimCSE"),
    ("online", ["--switch_every", "4"], "4 is no multiple of --eval_steps 3.*set it to 6, or --eval_steps to 4"),
    ("online", ["--switch_every", "12"], "12 in a training of 10 steps never switches.* no teacher at all"),
    ("distillcse", ["--switch_every", "12"], "never switches, so it has no other teacher than those named; lower it"),
    ("online", ["--switch_every", "-3"], "--switch_every -3 is out of range"),
    ("distillcse", ["--max_switches", "-1"], "--max_switches -1 is out of range"),
    ("distillcse", ["--group_p", "-0.1"], "--group_p -0.1 is out of range; it is a probability"),
    ("distillcse", ["--group_p", "1.5"], "--group_p 1.5 is out of range"),
    ("distillcse", ["--weight", "-1"], "--weight -1.0 is out of range"),
    ("distillcse", ["--student_temperature", "0"], "--student_temperature 0.0 is out of range; it must be above 0"),
    ("distillcse", ["--teacher_temperature", "-1"], "--teacher_temperature -1.0 is out of range"),
    ("distillcse", ["--teacher_max_length", "0"], "--teacher_max_length 0 is out of range"),
    ("online", ["--teacher_from", "best"], "unknown value of --teacher_from 'best': did you mean 'best_dev'"),
    ("online", ["--dropout", "0"], "the student has no dropout, so the two views of a sentence are equal"),
    ("distillcse", ["--teachers", "nobody"], "nobody is no folder and no Hub id"),
]


@pytest.mark.parametrize(("kind", "words", "sentence"), MISTAKES, ids=lambda value: " ".join(value[:2]))
def test_a_mistake_is_one_sentence_and_nothing_is_written(kind, words, sentence, materials, tmp_path):
    with pytest.raises(InputError, match=sentence):
        train(kind, materials.words(kind, tmp_path / "model", *words))
    assert not any(tmp_path.iterdir())


def test_the_backbone_of_another_vocabulary_learns_from_the_text(materials, tmp_path):
    """The whole way: a teacher whose token numbers are others, through the script."""
    other_vocabulary(tmp_path / "other")
    words = materials.words("distillcse", tmp_path / "model", "--teachers", str(tmp_path / "other"), "--steps", "2")
    assert train("distillcse", words)["steps"] == 2
