"""A folder saved by the installed versions gives the same vectors in older ones, each in its own environment.

The environments are built once, a few minutes each, in ``DISTILFACE_VENVS`` if that is set.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from five import TEXTS, make
from sentence_transformers.base.modules import Dense, Normalize

from distilface.model.folder import load, save_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[1]
VERSIONS = {
    "st-5.1.2": ["sentence-transformers==5.1.2", "transformers==4.57.*"],
    "st-5.7": ["sentence-transformers==5.7.*"],
}
ENCODE = """
import json, sys
import torch
from sentence_transformers import SentenceTransformer, __version__
from transformers import AutoModel, AutoTokenizer, __version__ as transformers_version

texts, *folders = json.load(sys.stdin)
found = {"versions": [__version__, transformers_version]}
for folder in folders:
    model = SentenceTransformer(folder, device="cpu")
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        AutoModel.from_pretrained(folder)(**inputs)
    found[folder] = [model.encode(texts).tolist(), model.max_seq_length, sorted(inputs)]
json.dump(found, open(sys.argv[1], "w"))
"""
SHIPPED = """
import json, sys
from sentence_transformers import SentenceTransformer

texts, folder = json.load(sys.stdin)
model = SentenceTransformer(folder, device="cpu")
dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()})
json.dump([dtypes, model.encode(texts).tolist()], open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module", params=VERSIONS)
def python(request, tmp_path_factory):
    """Build the environment of one version unless it is there, and return its Python."""
    home = Path(os.environ.get("DISTILFACE_VENVS") or tmp_path_factory.mktemp("venvs")) / request.param
    executable = home / "bin" / "python"
    if not (home / "done").is_file():
        pin = f"torch=={torch.__version__.partition('+')[0]}"
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, pin], check=True)
        subprocess.run([*install, pin, *VERSIONS[request.param]], check=True)
        (home / "done").touch()
    return executable


def test_the_vectors_are_the_same_in_an_older_version(python, tmp_path):
    """BERT's tokenizer gives token types, on which a DistilBERT of transformers 4 fails."""
    torch.manual_seed(0)
    ends = {"bare": [], "normalised": [Normalize()], "dense": [Dense(32, 16), Normalize()]}
    models = {f"{mode}-{end}": make(mode, *ends[end]) for mode in ("mean", "cls", "last4") for end in ends}
    for name, model in models.items():
        model.max_seq_length = 16
        save_folder(model, tmp_path / name, max_seq_length=48)
        model.max_seq_length = 48
    asked = json.dumps([TEXTS, *models])
    subprocess.run([python, "-c", ENCODE, "found.json"], input=asked, text=True, cwd=tmp_path, check=True)
    older_vectors = json.loads((tmp_path / "found.json").read_text())
    print(f"\nsentence-transformers {older_vectors['versions'][0]}, transformers {older_vectors['versions'][1]}")
    differences = {}
    for name, model in models.items():
        vectors, length, inputs = older_vectors[name]
        assert (length, inputs) == (48, ["attention_mask", "input_ids"])
        differences[name] = float(np.abs(np.array(vectors) - model.encode(TEXTS)).max())
        print(f"{name:<18} max abs diff {differences[name]:.1e}")
    assert max(differences.values()) < 1e-5, differences


@pytest.mark.parametrize("name", ["minilm-2mb", "minilm-static"])
def test_what_ships_is_read_in_fp32(python, name, tmp_path):
    """One is stored in fp16 with ``float32`` in its config, the other, which would be read as it is stored, in fp32."""
    asked = json.dumps([TEXTS, str(ROOT / "models" / name)])
    subprocess.run([python, "-c", SHIPPED, "found.json"], input=asked, text=True, cwd=tmp_path, check=True)
    dtypes, vectors = json.loads((tmp_path / "found.json").read_text())
    assert dtypes == ["torch.float32"]
    np.testing.assert_allclose(vectors, load(ROOT / "models" / name).encode(TEXTS), atol=1e-5)
