"""CoDIR against the paper's equations in float64 numpy, its banks against plain loops, and what it does to a model."""

from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from exported import PAIRS_SET
from oracles import unit
from refusals import refusal
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from students import assert_same, features, numbers, same, state
from tiny import sentences, tiny_model

from distilface.methods import embedding, simcse
from distilface.methods.codir import (
    CoDIRLoss,
    CoDIRTextLoss,
    ContrastSettings,
    MemoryBanks,
    Summary,
    announce,
    encoder_config,
    even_spread,
    make_contrast,
    prepare,
)
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.trainer import LOSS_STATE

pytestmark = pytest.mark.usefixtures("one_thread")
EXAMPLES, WIDTH, DIMENSION, NEGATIVES, TEMPERATURE = 9, 6, 4, 3, 0.07


def core(**options) -> CoDIRLoss:
    """Make a loss in float64 over two layers of a student (states 1 and 2) and of a teacher (states 0 and 3)."""
    torch.manual_seed(0)
    banks = options.pop("banks", None) or MemoryBanks(EXAMPLES, DIMENSION)
    student, teacher = Summary([1, 2], WIDTH, DIMENSION), Summary([0, 3], WIDTH + 1, DIMENSION)
    return CoDIRLoss(student, teacher, banks, **{"negatives": NEGATIVES, **options}).double()


def batch(count: int, seed: int = 0):
    """Draw hidden states of a student (3 of them) and a teacher (4, of other tokens), with padding."""
    student, teacher = numbers(3, count, 5, WIDTH, seed=seed), numbers(4, count, 4, WIDTH + 1, seed=seed + 1)
    masks = [np.ones((count, 5)), np.ones((count, 4))]
    masks[0][0, 2:] = 0
    masks[1][-1, 3:] = 0
    return student, masks[0], teacher, masks[1]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array) for array in arrays]


@pytest.mark.parametrize("positive", ["current", "bank"])
@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_the_loss_is_the_papers_equation_in_value_and_gradient(objective, positive, monkeypatch):
    """One example has a row that is not a negative of it: it is left out. Keys are constants: only anchors move.

    Silent if broken, as in the published code: padding enters the means, or a term is a sum over the batch.
    """
    loss = core(objective=objective, positive=positive)
    rows = unit(numbers(2, EXAMPLES, DIMENSION, seed=7))
    loss.banks.rows.copy_(torch.tensor(rows))
    loss.banks.owners.copy_(torch.arange(EXAMPLES))
    index, places = np.array([4, 0, 8]), np.array([[1, 2, 3], [5, 6, 0], [7, 1, 2]])
    monkeypatch.setattr(loss.banks, "draw", lambda *_: (torch.tensor(places), torch.tensor(places != index[:, None])))
    states, mask, teacher_states, teacher_mask = batch(3)
    maps = [[p.detach().numpy().copy() for p in side.linear.parameters()] for side in (loss.student, loss.teacher)]
    scale: list[float] = []

    def both(student_states, student_map, teacher_map, fixed=None):
        s = oracles.summary(student_states, mask, [1, 2], *student_map)
        t = oracles.summary(teacher_states, teacher_mask, [0, 3], *teacher_map)
        keys = (fixed or (s, t)) if positive == "current" else (rows[0][index], rows[1][index])
        drawn = places, places != index[:, None], TEMPERATURE
        sides = oracles.scores(s, keys[1], rows[1], *drawn), oracles.scores(t, keys[0], rows[0], *drawn)
        if objective == "infonce":
            return sum(map(oracles.infonce_side, sides)) / 2
        scale[:] = scale or [oracles.side_z(side, EXAMPLES) for side in sides]
        return sum(oracles.nce_side(side, z, NEGATIVES / EXAMPLES) for side, z in zip(sides, scale, strict=True)) / 2

    fixed = (
        oracles.summary(states, mask, [1, 2], *maps[0]),
        oracles.summary(teacher_states, teacher_mask, [0, 3], *maps[1]),
    )
    rest = (*tensors(mask, teacher_states, teacher_mask), torch.tensor(index))
    assert_same(lambda x: loss(x, *rest), lambda x: both(x, *maps, fixed), states)
    expected = oracles.gradient(lambda w: both(states, maps[0], (w, maps[1][1]), fixed), maps[1][0])
    np.testing.assert_allclose(loss.teacher.linear.weight.grad, expected, atol=1e-6)


def test_z_is_that_of_the_first_batch():
    """A second batch of other values must not move it: the loss would chase its own scale. Evaluation moves nothing."""
    loss = core()
    assert loss.log_z.isnan().all()
    loss(*tensors(*batch(3)), torch.arange(3))
    first = loss.log_z.clone()
    loss(*tensors(*batch(3, seed=10)), torch.arange(3) + 2)
    assert torch.equal(loss.log_z, first)
    assert first.isfinite().all()
    before = state(loss)
    loss.eval()(*tensors(*batch(3, seed=4)), torch.arange(3) + 3)
    assert same(state(loss), before), "nor the banks"


# ---- summaries


def test_the_first_token_alone_is_an_option():
    summary = Summary([1], WIDTH, DIMENSION, pooling="cls").double()
    states, mask, *_ = batch(3)
    expected = unit(states[1][:, 0] @ summary.linear.weight.detach().numpy().T + summary.linear.bias.detach().numpy())
    np.testing.assert_allclose(summary(*tensors(states, mask)).detach().numpy(), expected, atol=1e-12)


def test_a_summary_is_exact_under_autocast():
    """In bf16 a cosine has three digits; divided by 0.07 they are fewer than two."""
    summary = Summary([1, 2], WIDTH, DIMENSION)
    states, mask = (x.float() for x in tensors(*batch(3)[:2]))
    with torch.autocast("cpu", torch.bfloat16):
        inside = summary(states, mask)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, summary(states, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [(6, 12, [1, 3, 5, 7, 9, 11]), (3, 6, [1, 3, 5]), (6, 6, [1, 2, 3, 4, 5, 6]), (4, 2, [1, 1, 2, 2]), (1, 12, [1])],
)
def test_layers_are_spread_evenly(student, teacher, expected):
    assert even_spread(student, teacher) == (list(range(1, student + 1)), expected)


# ---- banks


def test_a_bank_follows_each_example_through_shuffling():
    """Against a plain loop: the first summary enters as it is, every later one moves the row by the momentum."""
    banks = MemoryBanks(5, DIMENSION, momentum=0.25).double()
    rows: dict[int, np.ndarray] = {}
    for step, order in enumerate(([3, 1], [0, 3], [1, 3, 4], [4, 0])):
        new = unit(numbers(2, len(order), DIMENSION, seed=step))
        index = torch.tensor(order)
        banks.enter(index, torch.tensor(new))
        banks.update(index, torch.tensor(new))
        for place, example in enumerate(order):
            old = rows.get(example)
            rows[example] = new[:, place] if old is None else unit(0.25 * old + 0.75 * new[:, place])
    for example, expected in rows.items():
        np.testing.assert_allclose(banks.rows[:, example].numpy(), expected, atol=1e-12)
    assert banks.owners.tolist() == [0, 1, -1, 3, 4]
    assert not banks.rows[:, 2].any()


def test_a_queue_keeps_the_latest():
    banks = MemoryBanks(4, DIMENSION, queue=True).double()
    stream = unit(numbers(2, 9, DIMENSION))
    seen = []
    for start, stop in ((0, 3), (3, 5), (5, 9)):
        banks.enter(torch.arange(start, stop), torch.tensor(stream[:, start:stop]))
        banks.update(torch.arange(start, stop), torch.tensor(stream[:, start:stop]))
        seen = [*seen, *range(start, stop)][-4:]
        assert sorted(o for o in banks.owners.tolist() if o >= 0) == seen
        for place, owner in enumerate(banks.owners.tolist()):
            if owner >= 0:
                np.testing.assert_array_equal(banks.rows[:, place].numpy(), stream[:, owner])
    banks.enter(torch.arange(7), torch.tensor(stream[:, :7]))
    assert sorted(banks.owners.tolist()) == [3, 4, 5, 6], "a batch longer than the queue"


def filled(size: int, labels: list[float] | None = None, **options) -> MemoryBanks:
    banks = MemoryBanks(size, DIMENSION, **options)
    known = None if labels is None else torch.tensor(labels)
    banks.enter(torch.arange(size), torch.zeros(2, size, DIMENSION), known)
    return banks


def test_negatives_are_any_other_example_alike():
    banks, index = filled(5), torch.tensor([0, 3])
    places, negative = banks.draw(index, 20_000)
    for row, own in enumerate(index.tolist()):
        counts = np.bincount(places[row][negative[row]].numpy(), minlength=5)
        assert counts[own] == 0
        assert np.delete(counts, own) == pytest.approx([4000] * 4, rel=0.1)


def test_a_row_that_no_example_has_is_never_drawn():
    banks = MemoryBanks(100, DIMENSION)
    banks.enter(torch.tensor([7, 30]), torch.zeros(2, 2, DIMENSION))
    places, negative = banks.draw(torch.tensor([7]), 50)
    assert set(places[negative].tolist()) == {30}
    assert not MemoryBanks(9, DIMENSION).draw(torch.tensor([2]), 5)[1].any(), "an empty bank has none"
    assert not filled(3, [1, 1, 1]).draw(torch.tensor([0]), 5, torch.tensor([1]))[1].any(), "one class has none"


@pytest.mark.parametrize(
    ("known", "options", "far"),
    [
        ([0, 1, 0, 2, 1, 0], {}, {0: {1, 3, 4}, 1: {0, 2, 3, 5}, 3: {0, 1, 2, 4, 5}}),
        ([0.0, 0.8, 1.5, 4.0, 5.0], {"margin": 1.0}, {1: {3, 4}, 3: {0, 1, 2}}),
    ],
    ids=["of another class", "far in the score"],
)
def test_negatives_are_of_another_label(known, options, far):
    index = torch.tensor([*far])
    places, negative = filled(len(known), known, **options).draw(index, 500, torch.tensor(known)[index])
    assert negative.all()
    assert [set(row) for row in places.tolist()] == [*far.values()]


def test_draws_follow_the_seed_and_the_batch_and_nothing_else():
    """A resume finds neither the process's generator nor any of its own; the count of batches is a buffer."""
    banks, index = filled(50, seed=3), torch.tensor([4, 5])
    first = banks.draw(index, 30)[0]
    torch.rand(5)
    assert torch.equal(banks.draw(index, 30)[0], first)
    banks.update(index, torch.zeros(2, 2, DIMENSION))
    second = banks.draw(index, 30)[0]
    assert not torch.equal(second, first)
    resumed = filled(50, seed=3)
    resumed.load_state_dict(banks.state_dict())
    assert torch.equal(resumed.draw(index, 30)[0], second)
    assert not torch.equal(filled(50, seed=4).draw(index, 30)[0], first)


@pytest.mark.parametrize("objective", ["nce", "infonce"])
@pytest.mark.parametrize("queue", [False, True])
def test_a_batch_of_one_and_a_batch_of_equal_sentences(objective, queue):
    loss = core(objective=objective, banks=MemoryBanks(EXAMPLES, DIMENSION, queue=queue))
    one = tensors(*batch(1))
    alone = loss(*one, torch.tensor([0]))
    assert alone.isfinite()
    if objective == "infonce":
        assert alone.item() == pytest.approx(0, abs=1e-12), "nothing to differ from"
    loss = core(objective=objective, banks=MemoryBanks(EXAMPLES, DIMENSION, queue=queue))
    equal = [x[:, [0] * 4] if x.ndim == 4 else x[[0] * 4] for x in one]
    value = loss(*equal, torch.arange(4))
    value.backward()
    assert value.isfinite()
    assert all(p.grad.isfinite().all() for p in loss.parameters())


@pytest.mark.parametrize("objective", ["nce", "infonce"])
def test_it_teaches_a_student_to_find_the_teachers_summary(objective):
    """Twelve inputs; the student's states say nothing at first, and nothing but this loss trains them."""
    torch.manual_seed(0)
    count = 12
    teacher = [torch.randn(count, 1, 8)]
    student = torch.nn.Parameter(torch.randn(count, 1, 8))
    loss = CoDIRLoss(Summary([0], 8, 16), Summary([0], 8, 16), MemoryBanks(count, 16), negatives=8, objective=objective)
    mask = torch.ones(count, 1)

    def accuracy() -> float:
        with torch.no_grad():
            cosines = loss.student([student], mask) @ loss.teacher(teacher, mask).T
        return float((cosines.argmax(1) == torch.arange(count)).float().mean())

    before = accuracy()
    optimizer = torch.optim.Adam([student, *loss.parameters()], lr=0.02)
    for step in range(60):
        index = torch.randperm(count, generator=torch.Generator().manual_seed(step))[:6]
        optimizer.zero_grad()
        loss([student[index]], mask[index], [teacher[0][index]], mask[index], index).backward()
        optimizer.step()
    assert before < 0.4
    assert accuracy() > 0.9


def test_a_queue_has_no_row_of_the_example():
    said = refusal(core, banks=MemoryBanks(4, DIMENSION, queue=True), positive="bank")
    assert "a queue holds no row of the example itself; use --positive current" in said


# ---- on unlabelled text


@pytest.fixture
def student(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "student")


@pytest.fixture
def teacher(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "deep teacher", seed=7, layers=4)


def text_loss(student, teacher, texts: list[str], views: int = 1, **settings) -> CoDIRTextLoss:
    rows, chosen = Dataset.from_dict({"text": texts}), ContrastSettings(negatives=4, **settings)
    torch.manual_seed(0)
    contrast = make_contrast(chosen, student[0].config, teacher[0].config, len(texts), seed=1)
    if views == 2:
        return CoDIRTextLoss(student, contrast, simcse.SimCSELoss(student), teacher, rows, chosen.weight)
    label = torch.tensor(teacher.encode(texts)).tolist()
    targets = Dataset.from_dict({"text": texts, "label": label}).with_format("torch")
    base = embedding.make_loss(student, targets, "cosine")
    return CoDIRTextLoss(student, contrast, base, teacher, rows, chosen.weight, targets)


def test_the_total_is_the_base_and_the_weighted_contrast(student, teacher):
    texts, index = sentences(8), torch.tensor([5, 1, 6])
    terms = {}
    for weight in (1.0, 0.25):
        loss = text_loss(student, teacher, texts, weight=weight).eval()
        loss.codir.log_z.zero_()
        rows = torch.nn.functional.normalize(torch.tensor(numbers(2, 8, 128)).float(), dim=-1)
        loss.codir.banks.enter(torch.arange(8), rows)
        terms[weight] = loss([features(student, [texts[i] for i in index])], index)
    vectors, goals = (model.eval().encode([texts[i] for i in index]) for model in (student, teacher))
    expected = np.mean([1 - unit(a) @ unit(b) for a, b in zip(vectors, goals, strict=True)])
    assert terms[1.0]["base"].item() == pytest.approx(float(expected), abs=1e-5)
    assert terms[0.25]["codir"].item() == pytest.approx(terms[1.0]["codir"].item() / 4, rel=1e-6)


@pytest.mark.parametrize("why", ["another vocabulary", "a prompt", "a shorter limit"])
def test_the_teacher_reads_the_sentence_of_the_number(student, teacher, monkeypatch, why):
    """Silent if broken: after a shuffle, the teacher would read other sentences than the student."""
    texts, index = sentences(8), torch.tensor([5, 1, 6])
    tokens = features(student, [texts[i] for i in index])
    assert text_loss(student, teacher, texts).shares_tokens
    if why == "another vocabulary":
        teacher.tokenizer.add_tokens(["zebra"])
    elif why == "a prompt":
        teacher.prompts, teacher.default_prompt_name = {"query": "the cat "}, "query"
    else:
        teacher.max_seq_length = 4
    loss, read = text_loss(student, teacher, texts), []
    assert loss.shares_tokens == (why == "a shorter limit")
    own = teacher.preprocess
    monkeypatch.setattr(
        teacher, "preprocess", lambda rows, **more: read.append((list(rows), more)) or own(rows, **more)
    )
    states, mask = loss._read(tokens, index)
    assert read == [([texts[5], texts[1], texts[6]], {"prompt": "the cat " if why == "a prompt" else None})]
    assert len(states) == 5
    expected = own([texts[5], texts[1], texts[6]], prompt=read[0][1]["prompt"])
    assert torch.equal(mask, expected["attention_mask"])


def test_shared_tokens_give_the_teachers_own_states(student, teacher):
    texts, index = sentences(6), torch.arange(6)
    loss = text_loss(student, teacher, texts)
    shared, mask = loss._read(features(student, texts), index)
    loss.shares_tokens = False
    own, own_mask = loss._read(features(student, texts), index)
    assert torch.equal(mask, own_mask)
    for a, b in zip(shared, own, strict=True):
        torch.testing.assert_close(a, b)


def test_the_checkpoint_holds_the_rows_of_the_banks(student, teacher, tmp_path):
    texts = sentences(8)
    loss, dataset = text_loss(student, teacher, texts), prepare(Dataset.from_dict({"text": texts}))
    assert dataset.column_names == ["sentence1", "label"]
    assert dataset["label"][:] == list(range(8))
    settings = TrainSettings(output_dir=str(tmp_path / "out"), steps=2, batch_size=4, bf16="no", seed=1)
    trainer, _ = encoder_trainer(student, loss, dataset, PAIRS_SET, settings)
    trainer.train()
    kept = load_file(tmp_path / "out.unfinished" / "checkpoint-2" / LOSS_STATE)
    assert kept["codir.banks.batches"] == 2
    assert (kept["codir.banks.owners"] >= 0).all(), "an epoch of 8 in two batches of 4"


def test_the_memory_it_takes_is_reported(student, teacher, caplog):
    announce(make_contrast(ContrastSettings(), student[0].config, teacher[0].config, 1_000_000, seed=0))
    said = caplog.text
    assert "two memory banks of 1,000,000 rows of 128, 1,024.0 MB in memory and in each checkpoint" in said
    assert "student layers [1, 2], teacher layers [1, 3]" in said
    queue = make_contrast(ContrastSettings(queue=50), student[0].config, teacher[0].config, 1000, seed=0)
    announce(queue)
    assert "two queues of 50 rows" in caplog.text
    assert queue.get_config_dict()["queue"] == 50


def test_the_card_can_tell_what_it_was(student, teacher):
    loss = text_loss(student, teacher, sentences(4), objective="infonce", student_layers=[2], teacher_layers=[4])
    config = loss.get_config_dict()["codir"]
    assert (config["objective"], config["student_layers"], config["teacher_layers"]) == ("infonce", [2], [4])


def test_a_teacher_without_layers_is_refused():
    said = refusal(encoder_config, [torch.nn.Flatten()], "teacher")
    assert "the teacher is a Flatten without hidden layers; CoDIR needs a transformer" in said
