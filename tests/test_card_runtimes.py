"""The card's snippets for runtimes that do not fit into this environment, run in environments of their own.

The environments are built once, in ``DISTILFACE_VENVS`` if that is set, from PyPI and npm.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny import PAIRS, needs_package, tiny_backbone, tiny_model

from benchmarks.works_with import run, runtimes
from distilface.cards.facts import read_facts
from distilface.compression.student import load_student
from distilface.exporters.exporting import export
from distilface.model.folder import load, save_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.usefixtures("one_thread", "own_cache")]
#: Those that cannot give the vectors of a kind have no snippet in its card.
UNABLE = {("fastembed", "dense"), ("optimum", "last4")}
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return the folder of the environments."""
    return Path(os.environ.get("DISTILFACE_VENVS") or tmp_path_factory.mktemp("venvs"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save a model of each kind that a snippet treats in its own way, exported in fp32; ``cls`` has a prompt."""
    place = tmp_path_factory.mktemp("cards")
    mean, cls = tiny_model(place / "made"), tiny_model(place / "made-cls", pooling="cls")
    models = {
        "mean": SentenceTransformer(modules=[*mean, Normalize()], device="cpu"),
        "cls": SentenceTransformer(
            modules=[*cls], device="cpu", prompts={"query": "the dog: "}, default_prompt_name="query"
        ),
        "dense": SentenceTransformer(modules=[*mean, Dense(32, 12)], device="cpu"),
        "last4": load_student(str(tiny_backbone(place / "backbone", layers=4)), pooling="last4"),
    }
    pairs = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
    for name, model in models.items():
        save_folder(model, place / name)
        export(place / name, pairs, ["onnx"])
    return {name: place / name for name in models}


@pytest.mark.parametrize("kind", ["mean", "cls", "dense", "last4"])
@pytest.mark.parametrize(
    "name",
    [pytest.param("transformers.js", marks=needs_npm), "fastembed", "LangChain", "LlamaIndex", "Haystack", "optimum"],
)
def test_a_snippet_gives_the_folders_vectors(folders, home, name, kind):
    """Direction and length, of the sentences that stand in the card."""
    if (name, kind) in UNABLE:
        with pytest.raises(ValueError, match=f"has no snippet for {name}"):
            runtimes.run_snippet(runtimes.RUNTIMES[name], folders[kind], home)
        return
    sentences, vectors = runtimes.run_snippet(runtimes.RUNTIMES[name], folders[kind], home)
    expected = load(folders[kind]).encode(sentences)
    assert vectors.shape == expected.shape
    assert np.abs(vectors - expected).max() < 1e-4 * np.abs(expected).max()


@needs_package
@needs_npm
def test_every_runtime_reaches_its_goal_with_a_real_student(home, tmp_path):
    """Random weights do not quantise as trained ones do; these are three layers of all-MiniLM-L6-v2."""
    result = run.main(["--venvs", str(home), "--output", str(tmp_path / "result.json")])
    assert list(result["runtimes"]) == list(runtimes.RUNTIMES)
    assert result["short"] == []
    for name in ("onnxruntime", "transformers.js", "fastembed", "optimum"):
        assert 0.98 < result["runtimes"][name]["int8"]["min_cosine"] < 0.9999, f"{name} did not read the int8 file"


def test_onnx_in_sentence_transformers_needs_older_versions():
    """Where this fails, Optimum has followed: the older version can go from facts.yaml, the note from the card."""
    versions = read_facts()["versions"]
    asked = [
        f"{package}=={versions[name]}"
        for package, name in (("sentence-transformers[onnx]", "sentence-transformers"), ("torch", "torch"))
    ]
    words = ["install", "--dry-run", "--ignore-installed", "--quiet", *asked]
    done = subprocess.run([sys.executable, "-m", "pip", *words], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Cannot install" in done.stderr
    assert "optimum-onnx" in done.stderr
