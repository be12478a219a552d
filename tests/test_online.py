"""DistillCSE and distillation on the fly: the equation by plain loops in float64, and what a teacher must never do."""

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
from runs import CURVE, each_step, scores, train
from sentence_transformers import SentenceTransformer
from students import Emitter, Reader, as_features, assert_same, features, mean_cosines, numbers, same, state
from tiny import sentences, tiny_model
from torch import nn
from transformers import DistilBertTokenizerFast

from distilface.methods import relations as relation
from distilface.methods.online import generations
from distilface.methods.online import loss as online
from distilface.model.folder import load
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

# ---- students and teachers


def loss_with_teachers(teachers: Sequence[np.ndarray], **options: Any) -> online.DistillCSELoss:
    """Make a loss whose teachers know the embeddings of texts "0", "1", ..."""
    texts = Dataset.from_dict({"text": [str(i) for i in range(len(teachers[0]))]})
    return online.DistillCSELoss(Emitter(), [Reader(t) for t in teachers], texts, **options).double()


@contextmanager
def shuffles(seen: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    """Note what goes into each shuffle and what comes out."""

    def noted(cosines: torch.Tensor, p: float, draw: np.random.Generator) -> torch.Tensor:
        seen.append((cosines, relation.shuffle_in_groups(cosines, p, draw)))
        return seen[-1][1]

    with patch.object(online, "shuffle_in_groups", noted):
        yield


@pytest.fixture
def teacher(tmp_path: Path) -> SentenceTransformer:
    """Save a teacher to which the same words are other numbers, and load it."""
    folder = tmp_path / "other"
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


@pytest.fixture
def student(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "student")


TEXTS = sentences(24)


def taught(student: SentenceTransformer, teachers: Sequence[SentenceTransformer], **options: Any) -> nn.Module:
    return online.DistillCSELoss(student, teachers, Dataset.from_dict({"text": TEXTS}), **options)


# ---- the equation


def test_the_temperatures_are_the_papers():
    teacher, views = numbers(4, 3), numbers(2, 4, 5, seed=8)
    expected = oracles.simcse(*views, 0.05) + oracles.relation_loss(views[0], mean_cosines(teacher), 0.02, 0.01)
    value = loss_with_teachers([teacher], group_p=0.0)(as_features(torch.tensor(views)), torch.arange(4))
    assert value.item() == pytest.approx(expected, rel=1e-9)
    assert online.DistillCSELoss(Emitter()).group_p == 0.1


@pytest.mark.parametrize("p", [0.1, 0.15, 0.3, 0.7])
def test_group_p_shuffles_the_teachers_mean_inside_its_groups(p):
    """The groups are the oracle's; the loss takes the shuffled cosines as constants."""
    teachers, seen = [numbers(12, 4, seed=seed) for seed in range(2)], []
    loss = loss_with_teachers(teachers, student_temperature=0.3, teacher_temperature=0.2, group_p=p)

    def ours(views):
        with shuffles(seen):
            return loss(as_features(views), torch.arange(12))

    def expected(views):
        return oracles.simcse(*views, 0.05) + oracles.relation_loss(views[0], seen[0][1].numpy(), 0.3, 0.2)

    assert_same(ours, expected, numbers(2, 12, 5, seed=8))
    before, after = (cosines.numpy() for cosines in seen[0])
    np.testing.assert_allclose(before, mean_cosines(*teachers), atol=1e-12)
    for old, new in zip(before, after, strict=True):
        assert all(sorted(old[group]) == sorted(new[group]) for group in oracles.groups(old, p))
    assert (before != after).any()


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


def test_each_anchor_and_step_is_shuffled_anew_by_the_seed():
    teacher = np.ones((30, 3)) + 1e-3 * numbers(30, 3)
    views = as_features(torch.from_numpy(numbers(2, 30, 5, seed=1)))

    def drawn(count: int, **options: Any) -> list[torch.Tensor]:
        seen: list = []
        loss = loss_with_teachers([teacher], **options)
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
    shuffling_loss = loss_with_teachers([teacher])
    assert torch.equal(shuffling_loss.teacher_relations({}, torch.arange(30)), drawn(1, group_p=0.0)[0]), "0 is off"


def test_the_step_that_draws_the_shuffle_counts_training_only():
    loss = loss_with_teachers([numbers(4, 3)])
    views = as_features(torch.from_numpy(numbers(2, 4, 5, seed=1)))
    for training, expected in ((True, 1), (False, 1), (True, 2)):
        loss.train(training)(views, torch.arange(4))
        assert loss.state_dict()["step"].item() == expected


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_sentences_have_no_relations(count, p):
    loss, views = loss_with_teachers([numbers(2, 3)], group_p=p), numbers(2, count, 5, seed=8)
    place = torch.tensor(views, requires_grad=True)
    value = loss(as_features(place), torch.arange(count))
    value.backward()
    assert value.item() == pytest.approx(oracles.simcse(*views, 0.05), abs=1e-9)
    np.testing.assert_allclose(place.grad, oracles.gradient(lambda x: oracles.simcse(*x, 0.05), views), atol=1e-6)


def test_equal_sentences():
    """All cosines are 1: every choice is as good, and nothing is divided by zero."""
    place = torch.ones(2, 6, 5, dtype=torch.float64, requires_grad=True)
    value = loss_with_teachers([np.ones((6, 3))])(as_features(place), torch.arange(6))
    value.backward()
    assert value.item() == pytest.approx(math.log(6) + math.log(5), rel=1e-9)
    np.testing.assert_allclose(place.grad[0], 0, atol=1e-9)


# ---- teachers


def test_a_teacher_reads_the_text_in_its_own_words(student, teacher, tmp_path):
    """Silent if broken: the student's token numbers mean something to any teacher, but something else."""
    teachers = [load_teacher(str(tmp_path / "student"), device="cpu"), teacher]
    ids = [each.preprocess(["the old dog"])["input_ids"][0, 1].item() for each in teachers]
    assert ids[0] != ids[1]
    rows = [5, 2, 17, 11, 0]
    relations = taught(student, teachers).teacher_relations(features(student, TEXTS[:5]), torch.tensor(rows))
    expected = mean_cosines(*(each.encode([TEXTS[i] for i in rows]) for each in teachers))
    np.testing.assert_allclose(relations.numpy(), expected, atol=1e-5)


def test_a_teacher_reads_its_prompt_and_as_many_tokens_as_asked(student, teacher):

    def relations(length: int | None) -> torch.Tensor:
        loss = taught(student, [teacher], teacher_max_length=length)
        return loss.teacher_relations({}, torch.arange(8))

    def expected() -> np.ndarray:
        return mean_cosines(teacher.encode(TEXTS[:8]))

    teacher.prompts, teacher.default_prompt_name = {"old": "the old "}, "old"
    with_prompt = expected()
    np.testing.assert_allclose(relations(None).numpy(), with_prompt, atol=1e-5)
    np.testing.assert_allclose(relations(9999).numpy(), with_prompt, atol=1e-5)
    teacher.default_prompt_name, teacher.max_seq_length = None, 4
    assert abs(expected() - with_prompt).max() > 1e-3
    short = expected()
    teacher.max_seq_length = 64
    np.testing.assert_allclose(relations(4).numpy(), short, atol=1e-5)


def test_a_teacher_runs_once_a_step(student, teacher):
    calls = []
    teacher.register_forward_hook(lambda module, inputs, output: calls.append(len(output["sentence_embedding"])))
    call(taught(student, [teacher]), TEXTS[:6])
    assert calls == [6]


def test_teachers_run_in_bf16_as_the_student_does(student, teacher):
    relations = [taught(student, [teacher], bf16=bf16).teacher_relations({}, torch.arange(8)) for bf16 in (False, True)]
    assert relations[1].dtype == torch.float32
    assert 0 < (relations[0] - relations[1]).abs().max() < 0.02
    assert (relations[1].bfloat16().float() != relations[1]).any(), "the cosines themselves are not rounded"


def test_a_student_learns_its_teachers_relations(student, teacher):
    target = np.ravel(mean_cosines(teacher.encode(TEXTS)))

    def agreement() -> float:
        return float(np.corrcoef(np.ravel(mean_cosines(student.encode(TEXTS))), target)[0, 1])

    before = agreement()
    loss = taught(student, [teacher], weight=1000.0, group_p=0.0, teacher_temperature=0.05, student_temperature=0.05)
    steps(loss, TEXTS, 60, 2e-3)
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
        expected = mean_cosines(student.encode(TEXTS[:6]))
        relations = loss.teacher_relations(features(student, TEXTS[:6]), None)
        assert call(loss, TEXTS[:6]) > call(alone, TEXTS[:6])
    np.testing.assert_allclose(relations.numpy(), expected, atol=1e-5)
    rows = online.prepare(texts)
    assert rows.column_names == ["sentence1", "sentence2", "label"]
    assert rows["label"][:] == list(range(len(TEXTS)))
    assert rows["sentence1"][:] == rows["sentence2"][:] == TEXTS


def test_at_a_switch_the_student_becomes_a_frozen_teacher(student, teacher):
    loss = taught(student, [teacher], keep="last")
    steps(loss, TEXTS[:8], 2, 1e-2)
    then = state(student)
    loss.switch()
    assert same(state(loss.past), then)
    steps(loss, TEXTS[:8], 2, 1e-2)
    assert same(state(loss.past), then)
    assert not same(state(student), then)
    expected = mean_cosines(loss.past.encode(TEXTS[:8]))
    relations = loss.teacher_relations(features(student, TEXTS[:8]), torch.arange(8))
    np.testing.assert_allclose(relations.numpy(), expected, atol=1e-5, err_msg="the other teacher is gone")


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


# ---- in a training


@pytest.mark.parametrize("keep", ["last", "best_dev"])
def test_each_switch_is_made_and_reported(keep, materials, tmp_path, caplog):
    words = materials.words("online", tmp_path / "model", "--teacher_from", keep)
    students: dict[int, dict[str, torch.Tensor]] = {}
    teachers: dict[int, dict[str, torch.Tensor]] = {}
    losses: list[online.DistillCSELoss] = []
    real = online.DistillCSELoss.__init__

    def noted(self: online.DistillCSELoss, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        losses.append(self)

    def look(step: int, _: Any) -> None:
        students[step - 1], teachers[step - 1] = state(losses[0].model), state(losses[0].past)

    with scores(), patch.object(online.DistillCSELoss, "__init__", noted), each_step(look):
        run = train("online", words)
    assert run["loss_settings"]["keep"] == keep
    assert (losses[0].best is None) == (keep == "last")
    second = 3 if keep == "best_dev" else 6
    for step, source in ((2, 0), (3, 3), (5, 3), (6, second), (9, second)):
        assert same(teachers[step], students[source]), f"after step {step} the teacher is that of step {source}"
    assert run["generations"] == [
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
    """Though the loss goes back to that generation with it, run.json lists all of them."""
    seen: dict[int, dict[str, torch.Tensor]] = {}
    real = generations.Generations.on_evaluate

    def look(self: generations.Generations, args: Any, now: Any, *rest: Any, **options: Any) -> None:
        seen[now.global_step] = state(self.loss.model)
        real(self, args, now, *rest, **options)

    with scores({3: 10.0, 6: 70.0, 9: 30.0, 10: 40.0}), patch.object(generations.Generations, "on_evaluate", look):
        run = train("online", materials.words("online", tmp_path / "model"))
    assert run["best_step"] == 6
    assert [each["generation"] for each in run["generations"]] == [0, 1, 2]
    assert same(state(load(tmp_path / "model")), seen[6])


def test_teachers_are_scored(materials, tmp_path):
    words = materials.words("distillcse", tmp_path / "model", "--steps", "1")
    teachers = [str(materials.teacher), str(materials.backbone)]
    run = train("distillcse", [*words, "--teachers", *teachers])
    assert run["teacher"] == teachers
    assert run["scores"]["teacher_stsb_dev"] == max(run["teacher_scores"].values())
    assert run["loss_settings"]["teachers"] == 2
    assert run["generations"] == [
        {**run["generations"][0], "generation": 0, "steps": [1, 1], "teacher": None},
    ]
