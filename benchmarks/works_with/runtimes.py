"""The runtimes that a card has a snippet for: the environment of each, and the snippet run on a folder.

A runtime that cannot be installed beside the others has an environment of its own, built once from PyPI or npm.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilface.cards.card import make_card
from distilface.cards.facts import pinned, read_facts
from distilface.cards.snippets import snippets
from distilface.settings import InputError

logger = logging.getLogger("distilface.benchmarks.works_with")

#: Packages whose versions a result holds, of every Python that a snippet ran in.
PACKAGES = (
    *("sentence-transformers", "transformers", "torch", "onnxruntime", "tokenizers", "huggingface-hub"),
    *("openvino", "optimum-onnx", "fastembed", "langchain-huggingface", "llama-index-embeddings-huggingface"),
    *("haystack-ai", "sentence-transformers-haystack"),
)
_VERSIONS = """
import importlib.metadata, json, sys
versions = {package.metadata["Name"].lower().replace("_", "-"): package.version
            for package in importlib.metadata.distributions()}
print(json.dumps({name: versions[name] for name in sys.argv[1:] if name in versions}))
"""
_SHOW = "\nimport json\nprint(json.dumps([[float(number) for number in vector] for vector in embeddings]))\n"
# OpenVINO reports its use over the network from the first import on; a benchmark must not.
_SILENT = 'import sys\n\nsys.modules["openvino_telemetry"] = None\n'
_OFFLINE = """
import { env } from "@huggingface/transformers";
env.localModelPath = "models";
env.allowRemoteModels = false;
"""


@dataclass(frozen=True)
class Runtime:
    """A runtime, by the heading of its snippet in a card.

    Attributes:
        name: the heading.
        packages: of its own environment, by their names in the facts; empty: this interpreter.
        reads: the file that the snippet names; empty: it reads the weights in fp32.
        int8: the file in int8 that it can read instead.
    """

    name: str
    packages: tuple[str, ...] = ()
    reads: str = ""
    int8: str = ""

    @property
    def in_node(self) -> bool:
        """Whether it is an npm package."""
        return self.name == "transformers.js"


_FP32, _Q8, _VNNI = "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_qint8_avx512_vnni.onnx"
_INT8 = "onnx/model_int8.onnx"
_OPENVINO, _OPENVINO8 = "openvino/openvino_model.xml", "openvino/openvino_model_qint8_quantized.xml"
_TORCH = ("torch", "sentence-transformers", "transformers")
RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime("sentence-transformers"),
        Runtime("transformers"),
        Runtime("onnxruntime", reads=_FP32, int8=_Q8),
        Runtime("OpenVINO", reads=_OPENVINO, int8=_OPENVINO8),
        Runtime("transformers.js", ("transformers.js",), _FP32, _INT8),
        Runtime("fastembed", ("fastembed",), _FP32, _Q8),
        Runtime("LangChain", (*_TORCH, "langchain-huggingface")),
        Runtime("LlamaIndex", (*_TORCH, "llama-index-embeddings-huggingface")),
        Runtime("Haystack", (*_TORCH, "haystack-ai", "sentence-transformers-haystack")),
        Runtime("optimum", ("torch", "sentence-transformers[onnx]"), _FP32, _VNNI),
    )
}


def environment_of(runtime: Runtime, home: Path) -> Path:
    """Build a runtime's environment in ``home`` unless it is there, and return its folder.

    Raises:
        InputError: if it needs npm and there is none.
    """
    pins = pinned(read_facts(), *runtime.packages).split()
    place = home / runtime.name
    done = place / "done"
    if done.is_file() and done.read_text().split() == pins:
        return place
    logger.info("%s: %s", runtime.name, " ".join(pins))
    (_install_node if runtime.in_node else _install_python)(place, pins)
    done.write_text("\n".join(pins))
    return place


def _install_python(place: Path, pins: Sequence[str]) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
    quietly = ("--quiet", "--disable-pip-version-check")
    install: list[str | Path] = [place / "bin" / "python", "-m", "pip", "install", *quietly]
    if pins[0].startswith("torch=="):  # first and alone: with all others the index may give another build
        subprocess.run([*install, pins[0]], check=True)
    subprocess.run([*install, *pins], check=True)


def _install_node(place: Path, pins: Sequence[str]) -> None:
    if shutil.which("npm") is None:
        raise InputError("transformers.js needs node and npm; install them")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    packages = [pin.replace("transformers.js==", "@huggingface/transformers@") for pin in pins]
    # Without --ignore-scripts its packages download CUDA's libraries.
    subprocess.run(["npm", "install", "--silent", "--ignore-scripts", *packages], cwd=place, check=True)


def python_of(runtime: Runtime, home: Path) -> Path:
    """Return the Python that a runtime runs in, building its environment unless it is there."""
    return environment_of(runtime, home) / "bin" / "python" if runtime.packages else Path(sys.executable)


def versions_of(runtime: Runtime, home: Path) -> dict[str, str]:
    """Return the versions of what a runtime runs on."""
    if runtime.in_node:
        modules = environment_of(runtime, home) / "node_modules"
        names = {"transformers.js": "@huggingface/transformers", "onnxruntime-node": "onnxruntime-node"}
        packages = {name: json.loads((modules / path / "package.json").read_text()) for name, path in names.items()}
        return {name: package["version"] for name, package in packages.items()}
    return dict(json.loads(_run([python_of(runtime, home), "-c", _VERSIONS, *PACKAGES], Path.cwd(), runtime.name)))


def run_snippet(
    runtime: Runtime, folder: Path, home: Path, texts: Sequence[str] | None = None, int8: bool = False
) -> tuple[list[str], np.ndarray]:
    """Run the snippet of a folder's card for a runtime, without network access to a Hub.

    Args:
        runtime: one of :data:`RUNTIMES`.
        folder: a model folder, with the exports that the snippet reads.
        home: the folder of the environments.
        texts: encoded in place of the card's own sentences.
        int8: read the file in int8.

    Returns:
        The sentences, and their vectors.

    Raises:
        InputError: if the card has no such snippet, or it failed.
    """
    text, _ = make_card(folder)
    code = snippets(text).get(runtime.name)
    if code is None:
        raise InputError(f"the card of {folder.name} has no snippet for {runtime.name}")
    own = re.search(r"sentences = (\[.*?\])(?=[;\n.])", code)
    assert own is not None, code
    sentences = list(json.loads(own[1]) if texts is None else texts)
    code = code.replace(own[1], json.dumps(sentences))
    if int8:
        code = code.replace(runtime.reads, runtime.int8)
    with tempfile.TemporaryDirectory() as temporary:
        run = _run_node if runtime.in_node else _run_python
        printed = run(runtime, code, folder, home, Path(temporary), int8)
    return sentences, np.asarray(json.loads(printed.splitlines()[-1]), np.float32)


def _run_python(runtime: Runtime, code: str, folder: Path, home: Path, place: Path, int8: bool) -> str:
    code = code.replace(json.dumps(folder.resolve().name), json.dumps(str(folder.resolve())))
    code = _SILENT + code if runtime.name == "OpenVINO" else code
    (place / "snippet.py").write_text(code + _SHOW, encoding="utf-8")
    return _run([python_of(runtime, home), "snippet.py"], place, runtime.name)


def _run_node(runtime: Runtime, code: str, folder: Path, home: Path, place: Path, int8: bool) -> str:
    code = re.sub('dtype: "[a-z0-9]+"', f'dtype: "{"int8" if int8 else "fp32"}"', code)
    code = code.replace("embeddings.tolist()", "JSON.stringify(embeddings.tolist())")
    (place / "models").mkdir()
    (place / "models" / folder.resolve().name).symlink_to(folder.resolve())
    (place / "node_modules").symlink_to((environment_of(runtime, home) / "node_modules").resolve())
    (place / "snippet.mjs").write_text(_OFFLINE + code, encoding="utf-8")
    return _run(["node", "snippet.mjs"], place, runtime.name)


def _run(command: Sequence[str | Path], place: Path, name: str) -> str:
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=place, env=offline, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{name} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
