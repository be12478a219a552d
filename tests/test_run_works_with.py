"""The benchmark of the runtimes, in small: which snippet runs, where, and what the result says of its vectors."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.works_with import run, runtimes
from distilface.cards.snippets import snippets
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
GOLDEN_CARD = Path(__file__).parent / "golden_card.md"


def test_a_card_has_a_snippet_for_every_runtime():
    """A heading that was changed in the template would leave its runtime out, and the table would only be shorter."""
    text = GOLDEN_CARD.read_text(encoding="utf-8")
    code = snippets(text)
    assert set(code) - {"distilface"} == set(runtimes.RUNTIMES)
    for name, runtime in runtimes.RUNTIMES.items():
        assert "sentences = [" in code[name]
        assert runtime.in_node or runtime.reads in code[name], "the file in int8 takes the place of this one"
        words = text.partition(f"### {name}\n")[2].partition("```")[0]
        for pin in runtimes.pinned(runtimes.read_facts(), *runtime.packages).split():
            package = pin.replace("transformers.js==", "@huggingface/transformers@")
            assert package in words or pin.startswith("torch=="), (
                f"{name} runs with {pin}, and the card does not say so"
            )


def test_an_environment_is_built_once_a_version(tmp_path, monkeypatch):
    """An installation that fails is not taken for one, and a change of a version builds anew."""
    fastembed, builds = runtimes.RUNTIMES["fastembed"], []

    def fail(*_):
        (tmp_path / "fastembed").mkdir()
        raise OSError("no network")

    monkeypatch.setattr(runtimes, "_install_python", fail)
    with pytest.raises(OSError, match="no network"):
        runtimes.environment_of(fastembed, tmp_path)
    assert not (tmp_path / "fastembed" / "done").exists()
    monkeypatch.setattr(runtimes, "_install_python", lambda place, pins: builds.append(pins))
    for _ in range(2):
        assert runtimes.environment_of(fastembed, tmp_path) == tmp_path / "fastembed"
    assert len(builds) == 1
    facts = runtimes.read_facts()
    facts["versions"]["fastembed"] = "0.0.1"
    monkeypatch.setattr(runtimes, "read_facts", lambda: facts)
    runtimes.environment_of(fastembed, tmp_path)
    assert builds[1:] == [["fastembed==0.0.1"]]


def test_torch_is_installed_first_and_alone(tmp_path, monkeypatch):
    """An index that is asked for all at once may give a build of gigabytes."""
    commands: list[list[str]] = []
    monkeypatch.setattr(runtimes.subprocess, "run", lambda command, **_: commands.append(list(map(str, command))))
    runtimes._install_python(tmp_path, ["torch==1", "other==2"])
    assert commands[0] == [sys.executable, "-m", "venv", "--clear", str(tmp_path)]
    first, second = (command[-2:] for command in commands[1:])
    assert (first, second) == (["--disable-pip-version-check", "torch==1"], ["torch==1", "other==2"])


def test_a_runtime_is_measured_on_the_folder(students, tmp_path, capsys):
    output = tmp_path / "r.json"
    words = ["--model", str(students["mean"]), "--runtimes", "onnxruntime", "--sentences", "3", "--output", str(output)]
    result = run.main(words)
    assert result == json.loads(output.read_text())
    row = result["runtimes"]["onnxruntime"]
    assert row["fp32"]["file"] == "onnx/model.onnx"
    assert row["fp32"]["min_cosine"] > 0.9999
    assert row["fp32"]["max_length_difference"] < 1e-5
    assert "int8" not in row, "there is no such file"
    assert row["versions"]["onnxruntime"]
    assert (result["sentences"], result["short"], result["model"]["name"]) == (3 + len(run.EDGES), [], "mean")
    assert "| onnxruntime | " in capsys.readouterr().out


def test_a_snippet_that_fails_says_why(students, tmp_path):
    with pytest.raises(InputError, match=r"onnxruntime failed: (.|\n)*model_quantized\.onnx"):
        runtimes.run_snippet(runtimes.RUNTIMES["onnxruntime"], students["mean"], tmp_path, ["a dog"], int8=True)
    with pytest.raises(InputError, match="unknown runtime 'onnx'"):
        run.main(["--model", str(students["mean"]), "--runtimes", "onnx"])


def test_the_result_names_what_is_below_its_goal():
    expected = np.eye(3, dtype=np.float32)
    near, far = run.compare(2 * expected, expected), run.compare(expected + 0.2, expected)
    assert near == {"min_cosine": 1.0, "mean_cosine": 1.0, "max_length_difference": 1.0}
    assert far["min_cosine"] == pytest.approx(1.2 / np.sqrt(1.2**2 + 2 * 0.2**2), abs=1e-6)
    nan = run.compare(np.full((3, 3), np.nan), expected)
    rows = {"a": {"versions": {"b": "1"}, "fp32": near, "int8": far}, "c": {"versions": {}, "fp32": nan}}
    assert run.below_goal(rows) == ["a int8", "c fp32"]
    assert "| a | b 1 | 1.000000 | 0.973329 |" in run.table(rows)
    with pytest.raises(InputError, match="shape"):
        run.compare(expected[:2], expected)
