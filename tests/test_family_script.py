"""training/family.sh: the family in one command, in small."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from suites import write_suite
from tiny import tiny_model
from transformers import BertConfig, BertModel
from warm import TRAINING

from distilface.compression.student import load_student
from distilface.model.folder import save_folder

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


def six_layers(folder: Path) -> None:
    """Save a BERT with the layers and the neurons that the recipes name."""
    tokenizer = tiny_model(folder).tokenizer
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 512,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "initializer_range": 0.3,  # else all texts are alike
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes)).save_pretrained(folder / "b")
    tokenizer.save_pretrained(folder / "b")
    save_folder(load_student(str(folder / "b"), normalize=True), folder, overwrite=True)


@pytest.mark.slow
def test_the_family_is_trained_and_scored(materials, one_thread, own_cache, tmp_path):
    """Two steps of each with its recipe; a second run trains nothing, and what was there stays."""
    suite, out = write_suite(tmp_path / "suite"), tmp_path / "models"
    six_layers(tmp_path / "teacher")
    words = (materials.text, out, "--steps", "2", "--held_out", "10", "--dev", "sample")
    shapes = {"MODELS": " ".join(MODELS), "TEACHER": str(tmp_path / "teacher"), "OMP_NUM_THREADS": "1"}
    done = family(*words, **shapes)
    assert done.returncode == 0, done.stderr
    runs = {name: (out / f"minilm-{name}" / "run.json").read_bytes() for name in MODELS}
    rates = {name: json.loads(run)["settings"]["learning_rate"] for name, run in runs.items()}
    assert rates == {"10mb": 2e-4, "5mb": 4e-4, "2mb": 1e-3, "static": 2e-3}
    steps = {name: [step["step"] for step in json.loads(run)["compression"]] for name, run in runs.items()}
    assert all(step[-1] == "bits" for step in steps.values())
    assert "table" in steps["2mb"]
    done = family(*words, **shapes, SUITE=str(suite))
    assert done.returncode == 0, done.stderr
    for name, run in runs.items():
        assert Path(out / f"minilm-{name}" / "run.json").read_bytes() == run
        report = json.loads((out / f"minilm-{name}-suite.json").read_text())
        assert {"teacher", "model", "q4"} <= set(report["means"]["mean over tasks"]), name
