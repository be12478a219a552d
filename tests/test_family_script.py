"""training/family.sh: the family in one command, in small."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from suites import write_suite
from tiny import tiny_model
from warm import TRAINING

SCRIPT = TRAINING / "family.sh"
MODELS = ("10mb", "5mb", "2mb", "static")


def family(*words: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=900, check=False)


def test_mistakes_are_said_before_any_training(tmp_path):
    for words in ((), (tmp_path / "none", tmp_path / "out")):
        done = family(*words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("error: say where the text is")
    done = family(tmp_path, tmp_path / "out", MODELS="5mb 7mb", PYTHON="true")
    assert done.returncode == 2
    assert done.stderr == "error: MODELS: '7mb' is none of 10mb, 5mb, 2mb, static\n"


@pytest.mark.slow
def test_the_family_is_trained_and_scored(materials, one_thread, own_cache, tmp_path):
    """Two steps of each with its recipe; a second run trains nothing, and what was there stays."""
    suite, out = write_suite(tmp_path / "suite"), tmp_path / "models"
    tiny_model(tmp_path / "teacher", layers=2)
    words = (materials.text, out, "--steps", "2", "--held_out", "10", "--dev", "sample")
    shapes = {"MODELS": " ".join(MODELS), "TEACHER": str(tmp_path / "teacher"), "OMP_NUM_THREADS": "1"}
    done = family(*words, **shapes)
    assert done.returncode == 0, done.stderr
    runs = {name: (out / f"minilm-{name}" / "run.json").read_bytes() for name in MODELS}
    rates = {name: json.loads(run)["settings"]["learning_rate"] for name, run in runs.items()}
    assert rates == {"10mb": 2e-4, "5mb": 4e-4, "2mb": 4e-4, "static": 2e-3}
    assert all(json.loads(run)["compression"][-1]["step"] == "bits" for run in runs.values())
    done = family(*words, **shapes, SUITE=str(suite))
    assert done.returncode == 0, done.stderr
    for name, run in runs.items():
        assert Path(out / f"minilm-{name}" / "run.json").read_bytes() == run
        report = json.loads((out / f"minilm-{name}-suite.json").read_text())
        assert {"teacher", "model", "q4"} <= set(report["means"]["mean over tasks"]), name
