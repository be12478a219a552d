"""Batches of similar length, and onnxruntime with a batch for each of its threads."""

import threading
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tiny import sentences

from distilface.light import LightEncoder, encoder, tokens, ways
from distilface.light.session import OnnxSession, open_session

MODEL = Path("models/minilm-2mb")


class Meeting:
    """Stands in for onnxruntime's session: each of some runs waits until the others have begun."""

    def __init__(self, runs: int) -> None:
        self._barrier = threading.Barrier(runs, timeout=30)

    def run(self, _, batch):
        if batch["number"] < 0:
            raise ValueError(f"batch {batch['number']}")
        self._barrier.wait()
        return [np.array([batch["number"]])]


def numbered(*numbers):
    return [{"number": number} for number in numbers]


def test_as_many_batches_run_at_a_time_as_there_are_threads():
    """With fewer the barrier breaks, which is an error."""
    outputs = list(OnnxSession(Meeting(3), workers=3).run(iter(numbered(*range(9)))))
    assert [int(output[0]) for output in outputs] == list(range(9))


def test_one_batch_runs_on_the_thread_that_asks():
    """A thread is not begun for it: that takes a fifth of what a short text does."""

    class Own:
        def run(self, _, batch):
            assert threading.current_thread() is threading.main_thread()
            return [np.zeros(1)]

    assert len(list(OnnxSession(Own(), workers=4).run(numbered(1)))) == 1
    assert list(OnnxSession(Own(), workers=4).run([])) == []


def test_an_error_in_a_batch_is_that_of_the_call():
    with pytest.raises(ValueError, match="batch -2"):
        list(OnnxSession(Meeting(1), workers=2).run(numbered(0, 1, -2, 3)))


def test_whoever_stops_reading_stops_the_others():
    read = []
    outputs = OnnxSession(Meeting(1), workers=2).run(read.append(batch) or batch for batch in numbered(*range(1000)))
    next(outputs)
    assert len(read) == 4, "one is read, two can run, and one waits"
    before = threading.active_count()
    outputs.close()
    assert threading.active_count() < before
    assert len(read) == 4


def test_batch_per_thread_gives_the_vectors_of_one_after_another():
    texts = sentences(150)
    way = ways.for_batches(ways.ways_of(MODEL))["q4"]
    assert way.words == "", "another order of the work is no other model"
    several, one = LightEncoder(MODEL).running(way, 3), LightEncoder(MODEL, threads=1)
    np.testing.assert_allclose(several.encode(texts), one.encode(texts), atol=1e-6)
    session, _ = open_session(MODEL / "onnx/model_q4.onnx", 3, batch_per_thread=True)
    assert session._session.get_session_options().intra_op_num_threads == 1
    assert (session.parts, session.tokens) == (12, 512)
    assert (one._session.parts, one._session.tokens) == (1, None)


def test_a_static_model_takes_long_texts_together(monkeypatch):
    """It has no layers, so nothing lies between them."""
    asked: list[int | None] = []
    monkeypatch.setattr(encoder, "batches_of", lambda *args: asked.append(args[-1]) or tokens.batches_of(*args))
    for name in ("minilm-static", "minilm-5mb"):
        folder = MODEL.parent / name
        LightEncoder(folder).running(ways.for_batches(ways.ways_of(folder))["q4"], 2).encode(["a dog", "a cat"])
    assert asked == [None, 512]


@pytest.mark.parametrize("limit", [None, 300, 50])
@pytest.mark.parametrize("parts", [1, 8])
@pytest.mark.parametrize("most", [1, 5, 32])
def test_a_batch_holds_texts_of_similar_length(most, parts, limit):
    draw = np.random.default_rng(most + parts)
    rows = [[1] * length for length in draw.integers(1, 120, 203)]
    batches = tokens.batches_of(rows, most, parts, limit)
    assert sorted(np.concatenate(batches)) == list(range(203))
    lengths = [[len(rows[row]) for row in batch] for batch in batches]
    every = [length for batch in lengths for length in batch]
    assert every == sorted(every, reverse=True)
    assert all(len(batch) <= most for batch in lengths)
    assert len(batches) >= parts
    assert all(len(batch) * batch[0] - sum(batch) <= tokens.PADDING for batch in lengths)
    assert all(len(batch) == 1 or len(batch) * batch[0] <= (limit or np.inf) for batch in lengths)
    for batch, after in pairwise(lengths):  # none could have held one more
        size, next_one = min(most, -(-203 // parts)), (len(batch) + 1) * batch[0]
        padded = next_one - sum(batch) - after[0] > tokens.PADDING
        assert len(batch) == size or padded or next_one > (limit or np.inf)


def test_no_texts_are_no_batches():
    assert tokens.batches_of([], 32, 8) == []
    assert LightEncoder(MODEL, threads=1).encode([]).shape == (0, 384)
