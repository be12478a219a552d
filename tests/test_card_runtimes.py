"""The card's snippets for runtimes that do not fit into this environment, run in environments of their own.

The environments are built once, in ``DISTILFACE_VENVS`` if that is set, from PyPI and npm.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny import PAIRS, tiny_model

from distilface.card import make_card
from distilface.export import export
from distilface.facts import read_facts
from distilface.folder import load, save_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.usefixtures("one_thread", "own_cache")]
OFFLINE = (
    'import { env } from "@huggingface/transformers"; env.localModelPath = "models"; env.allowRemoteModels = false;'
)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return the folder of the environments."""
    return Path(os.environ.get("DISTILFACE_VENVS") or tmp_path_factory.mktemp("venvs"))


@pytest.fixture(scope="module")
def fastembed(home) -> Path:
    """Build the environment of fastembed unless it is there, and return its Python."""
    place = home / f"fastembed-{read_facts()['versions']['fastembed']}"
    if not (place / "done").is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        package = place.name.replace("-", "==")
        subprocess.run([place / "bin" / "python", "-m", "pip", "install", "--quiet", package], check=True)
        (place / "done").touch()
    return place / "bin" / "python"


@pytest.fixture(scope="module")
def node(home) -> Path:
    """Install transformers.js unless it is there, and return the folder; its scripts would fetch CUDA's libraries."""
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    place = home / f"transformers.js-{read_facts()['versions']['transformers.js']}"
    if not (place / "done").is_file():
        place.mkdir(parents=True, exist_ok=True)
        package = f"@huggingface/transformers@{place.name.rpartition('-')[2]}"
        subprocess.run(["npm", "install", "--silent", "--ignore-scripts", package], cwd=place, check=True)
        (place / "done").touch()
    return place


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save a model of each pooling that the snippets treat in their own way, exported in fp32."""
    place = tmp_path_factory.mktemp("cards")
    mean, cls = tiny_model(place / "made"), tiny_model(place / "made-cls", pooling="cls")
    modules = {"mean": [*mean, Normalize()], "cls": [*cls], "dense": [*mean, Dense(32, 12), Normalize()]}
    pairs = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
    for name, made in modules.items():
        save_folder(SentenceTransformer(modules=made, device="cpu"), place / name)
        export(place / name, pairs, ["onnx"])
    return {name: place / name for name in modules}


def snippet(text: str, beginning: str) -> str:
    """Return the code block of a card that begins so."""
    return re.search(rf"```\w+\n({beginning}(?:.*\n)*?)```", text)[1]


def same_vectors(given: list[list[float]], folder: Path, code: str) -> bool:
    """Compare vectors with the folder's own, direction and length."""
    wanted = load(folder).encode(json.loads(re.search(r"sentences = (\[.*?\])", code)[1]))
    assert np.asarray(given).shape == wanted.shape
    return bool(np.abs(np.asarray(given) - wanted).max() < 1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["mean", "cls"])
def test_fastembed_gives_the_folders_vectors(folders, fastembed, kind, tmp_path):
    text, _ = make_card(folders[kind])
    code = snippet(text, "from fastembed").replace(f"path={json.dumps(kind)}", f"path={json.dumps(str(folders[kind]))}")
    show = "\nimport json\nprint(json.dumps([vector.tolist() for vector in embeddings]))\n"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [fastembed, "-c", code + show], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert same_vectors(json.loads(done.stdout.splitlines()[-1]), folders[kind], code)


@pytest.mark.parametrize("kind", ["mean", "cls", "dense"])
def test_transformers_js_gives_the_folders_vectors(folders, node, kind, tmp_path):
    text, _ = make_card(folders[kind], f"org/{kind}")
    code = snippet(text, "import {").replace("embeddings.tolist()", "JSON.stringify(embeddings.tolist())")
    shutil.copytree(folders[kind], tmp_path / "models" / "org" / kind)
    (tmp_path / "node_modules").symlink_to(node / "node_modules")
    (tmp_path / "snippet.mjs").write_text(f"{OFFLINE}\n{code}")
    done = subprocess.run(["node", "snippet.mjs"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert same_vectors(json.loads(done.stdout.splitlines()[-1]), folders[kind], code)
