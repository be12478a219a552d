"""Batches of as many texts as fit a number of padded tokens."""

import numpy as np
import pytest
from datasets import Dataset
from runs import TOKENS, Materials, each_step, equal, stopped_at, train
from tiny import sentences, tiny_model

from distilface.methods import find_method, leaf
from distilface.settings import InputError, parse
from distilface.training.batches import TokenBatchSampler, cut_batches, round_lengths, token_lengths

LENGTHS = np.random.default_rng(0).integers(3, 129, 2000)
ROWS = Dataset.from_dict({"text": ["x"] * len(LENGTHS)})

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def batches(epoch: int = 0, seed: int = 1, tokens: int = 1024) -> list[list[int]]:
    sampler = TokenBatchSampler(ROWS, 1, False, tokens=tokens, lengths=LENGTHS, seed=seed)
    sampler.set_epoch(epoch)
    row_batches = list(sampler)
    assert len(row_batches) == len(sampler)
    return row_batches


def padded(batch: list[int]) -> int:
    return int(LENGTHS[batch].max()) * len(batch)


@pytest.mark.parametrize(("tokens", "parts"), [(128, 1), (1024, 1), (1024, 3), (4096, 2)])
def test_a_batch_is_as_large_as_its_tokens_allow(tokens, parts):
    """Against a loop that tries one text more, and one share of every process more."""
    lengths, start, expected = np.sort(LENGTHS), 0, []
    while start + parts <= len(lengths):
        end = start + parts
        while end + parts <= len(lengths) and (end + parts - start) * lengths[end + parts - 1] <= tokens:
            end += parts
        expected.append([start, end])
        start = end
    np.testing.assert_array_equal(cut_batches(lengths, tokens, parts), expected)
    assert len(lengths) - expected[-1][1] < parts


def test_lengths_are_rounded_up_by_an_eighth_at_most():
    lengths = np.arange(1, 600)
    rounded = round_lengths(lengths)
    by_hand = [
        length if length < 16 else -(-length // 2 ** (len(f"{length:b}") - 4)) * 2 ** (len(f"{length:b}") - 4)
        for length in lengths
    ]
    np.testing.assert_array_equal(rounded, np.minimum(by_hand, 599))
    assert (rounded >= lengths).all()
    assert (rounded <= 1.125 * lengths).all()
    assert round_lengths(np.array([0])).tolist() == [0]


def test_every_text_comes_once_and_within_the_tokens():
    row_batches = batches()
    assert sorted(row for batch in row_batches for row in batch) == list(range(len(LENGTHS)))
    assert max(map(padded, row_batches)) <= 1024
    assert sum(map(padded, row_batches)) < 1.06 * LENGTHS.sum(), "little padding"
    longest = [LENGTHS[batch].max() for batch in row_batches]
    assert abs(np.corrcoef(longest, range(len(longest)))[0, 1]) < 0.3, "no curriculum from short to long"


def test_epochs_have_as_many_batches_and_other_ones():
    """Upstream asks for the number once: with another one in each epoch, a resume would go on at a wrong text."""
    first, again, second, other = batches(), batches(), batches(epoch=1), batches(seed=2)
    assert first == again
    assert sorted(map(len, first)) == sorted(map(len, second)) == sorted(map(len, other))
    sets = [{frozenset(batch) for batch in each if len(batch) > 1} for each in (first, second, other)]
    assert all(len(a & b) < len(a) / 10 for i, a in enumerate(sets) for b in sets[:i])


def test_the_batches_are_dealt_out_to_the_processes(monkeypatch):
    for name, value in {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    parts = batches()
    wholes = [[*parts[start], *parts[start + 1], *parts[start + 2]] for start in range(0, len(parts), 3)]
    assert all(len(parts[start]) == len(parts[start + 1]) == len(parts[start + 2]) for start in range(0, len(parts), 3))
    assert max(map(padded, wholes)) <= 1024, "the tokens are those of all processes together"
    rows = [row for whole in wholes for row in whole]
    assert len(set(rows)) == len(rows) == len(LENGTHS) // 3 * 3


def test_tokens_are_counted_as_the_training_reads_them(tmp_path):
    model, texts = tiny_model(tmp_path / "m"), sentences(50)
    counted = token_lengths(Dataset.from_dict({"text": texts, "label": [0.0] * 50}), model, 6)
    inputs = [model.preprocess([text], max_length=6)["input_ids"].shape[1] for text in texts]
    assert counted.tolist() == inputs
    assert {*inputs} > {4, 6}


def test_a_training_keeps_within_its_tokens(materials: Materials, tmp_path):
    """An epoch has as many steps as there are batches, and the last step is where the schedule ends."""
    words = materials.words("embedding by tokens", tmp_path / "m", "--epochs", "2")
    words = [word for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != "--steps" for word in pair]
    shapes = []
    with each_step(lambda step, inputs: shapes.append(next(v.shape for k, v in inputs.items() if k.endswith("ids")))):
        run = train("embedding", words)
    assert max(rows * length for rows, length in shapes) <= TOKENS
    assert len({rows for rows, _ in shapes}) > 1, "batches of several sizes"
    assert run["steps"] == len(shapes)
    assert sum(rows for rows, _ in shapes) == 2 * 24


def test_a_stopped_training_goes_on_with_the_same_batches(materials: Materials, tmp_path):
    train("embedding by tokens", materials.words("embedding by tokens", tmp_path / "whole"))
    words = materials.words("embedding by tokens", tmp_path / "stopped")
    with stopped_at(7):
        train("embedding by tokens", words)
    train("embedding by tokens", [*words, "--resume"])
    assert equal(tmp_path / "whole", tmp_path / "stopped")


def test_leafs_cycles_end_with_the_last_batch(materials: Materials, tmp_path, monkeypatch):
    words = [
        "--data",
        materials.text,
        "--teacher",
        materials.teacher,
        "--backbone",
        materials.backbone,
        "--epochs",
        "3",
    ]
    words += ["--batch_tokens", str(TOKENS), "--dev", materials.pairs, "--output_dir", tmp_path / "m", "--bf16", "no"]
    planned = set()
    monkeypatch.setattr(leaf, "rate_at", lambda step, steps, *rest: planned.add(steps) or 1.0)
    run = train("leaf", [str(word) for word in words])
    assert planned == {run["steps"]}
    assert run["steps"] % 3 == 0


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("embedding", ["--batch_tokens", "63"], "--batch_tokens 63 is too small: a text of --train_max_length 64"),
        ("leaf", ["--batch_tokens", "-1"], "for each of 1 processes takes 64"),
        ("embedding", ["--batch_tokens", "640", "--batch_size", "8"], "batch_size"),
        ("embedding", ["--batch_tokens", "640", "--static", "true"], "static"),
    ],
)
def test_what_cannot_be_is_refused(name, words, sentence, tmp_path):
    method = find_method(name)
    with pytest.raises(InputError, match=sentence):
        method.check(parse(method.Settings, ["--output_dir", str(tmp_path / "m"), *words], ""))
