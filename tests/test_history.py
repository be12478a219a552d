"""What a training hands on of those before it."""

import json

import pytest

from distilface.run import Run
from distilface.settings import InputError
from distilface.training.history import KEPT, history_of

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


def written(folder, content):
    """Write a folder's run.json, and return the folder's path."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(content))
    return str(folder)


def test_trainings_are_handed_on_in_their_order(tmp_path):
    first = written(tmp_path / "first", FIRST)
    entry = {key: FIRST[key] for key in KEPT} | {"rows": 50}
    entry["texts"] = [{"role": "data", "name": "text.txt", "hub": False, "revision": None}]
    assert history_of(first) == [entry]
    second = written(tmp_path / "second", FIRST | {"baseline_model": first, "history": [entry], "steps": 30})
    assert history_of(second) == [entry, entry | {"baseline_model": first, "steps": 30}]
    assert Run.from_dict(json.loads((tmp_path / "second" / "run.json").read_text())).history == [entry]


def test_what_has_no_run_has_no_history(tmp_path):
    assert history_of("org/teacher") == history_of(str(tmp_path)) == []


def test_a_run_that_is_damaged_is_said(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match=r"run\.json"):
        history_of(str(tmp_path))
