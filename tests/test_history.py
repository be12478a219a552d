"""What a training hands on of those before it."""

import json

import pytest
from tiny import sentences, tiny_model, write_pairs

from distilface import cli
from distilface.cards.card import make_card
from distilface.model.folder import save_folder
from distilface.run import Earlier, Run, Source
from distilface.training.history import history_of

FIRST = {
    "version": 1,
    "method": "embedding",
    "baseline_model": "org/teacher",
    "layers": [0, 2],
    "compression": [{"step": "width", "width": 64, "of": 128}],
    "teacher": "org/teacher",
    "seed": 3,
    "steps": 20,
    "train_seconds": 4.5,
    "data": [{"source": "text.txt"}, {"rows": 50, "sha256": "00"}, {"dev": "sample", "rows": 180, "sha256": "01"}],
    "sources": [{"role": "data", "name": "text.txt"}, {"role": "dev", "name": "sample"}],
}
ENTRY = {
    "model": "first",
    "baseline_model": "org/teacher",
    "layers": [0, 2],
    "compression": [{"step": "width", "width": 64, "of": 128}],
    "method": "embedding",
    "teacher": "org/teacher",
    "seed": 3,
    "steps": 20,
    "train_seconds": 4.5,
    "rows": 50,
    "texts": [{"role": "data", "name": "text.txt", "hub": False, "revision": None}],
}


def written(folder, content):
    """Write a folder's run.json, and return the folder's path."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(content))
    return str(folder)


def test_trainings_are_handed_on_in_their_order(tmp_path):
    first = written(tmp_path / "first", FIRST)
    assert history_of(first) == [ENTRY]
    second = written(tmp_path / "second", FIRST | {"baseline_model": first, "history": [ENTRY], "steps": 30})
    after = ENTRY | {"model": "second", "baseline_model": first, "steps": 30}
    assert history_of(second) == [ENTRY, after]
    other = written(tmp_path / "other", FIRST | {"baseline_model": first, "history": [ENTRY], "seed": 4})
    both = [ENTRY, after, ENTRY | {"model": "other", "baseline_model": first, "seed": 4}]
    assert history_of(second, other) == both, "of students whose mean is a start, each training once"
    run = Run.from_dict(FIRST | {"history": both})
    assert run.history[0].texts == [Source("data", "text.txt")]
    assert run.as_dict()["history"] == both


def test_what_has_no_training_has_no_history(tmp_path):
    folder = written(tmp_path / "start", {"method": "assistant", "origin": {"weights": "00"}})
    assert history_of("org/teacher", None, str(tmp_path), folder) == []


def test_what_is_not_known_is_none():
    assert Run.from_dict({"history": [{"steps": 3, "more": 1}]}).history == [Earlier(steps=3)]


def test_a_run_that_is_damaged_is_logged(tmp_path, caplog):
    (tmp_path / "run.json").write_text("{")
    assert history_of(str(tmp_path)) == []
    assert "the trainings before this one are not known: " in caplog.text


@pytest.mark.usefixtures("one_thread", "own_cache")
def test_a_training_hands_on_those_of_its_start(tmp_path):
    save_folder(tiny_model(tmp_path / "made", seed=5), tmp_path / "teacher")
    dev = write_pairs(tmp_path / "dev.jsonl")
    (tmp_path / "text.txt").write_text("\n".join(sentences(60)) + "\n")
    words = ["train", "distill", "--teacher", str(tmp_path / "teacher"), "--dev", str(dev), "--batch_size", "8"]
    words += ["--data", str(tmp_path / "text.txt"), "--steps", "2"]
    first = cli.run([*words, "--output_dir", str(tmp_path / "first"), "--layers", "1"])
    again = [*words, "--backbone", str(tmp_path / "first"), "--output_dir"]
    assert first["history"] == []
    other = cli.run([*again, str(tmp_path / "other"), "--seed", "3"])
    assert [each["model"] for each in other["history"]] == ["first"]
    last = cli.run([*again, str(tmp_path / "last"), "--average_with", str(tmp_path / "other")])
    assert [(each["model"], each["layers"], each["steps"]) for each in last["history"]] == [
        ("first", [1], 2),
        ("other", None, 2),
    ]
    text, _ = make_card(tmp_path / "last")
    assert "Of the layers of `teacher`, counted from 0, it keeps 1." in text
    assert "| `first` | `teacher` | 2 | " in text
    assert "| `other` | `first` | 2 | " in text
