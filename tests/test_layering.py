"""The modules stand in one line, each importing only from its left; importing them does nothing else."""

import ast
import importlib.metadata
import importlib.resources
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import distilface

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "distilface").rglob("*.py"))
ORDER = [
    *("settings", "record", "atomic", "hub", "files", "samples", "data", "parallel", "pooling", "teacher", "cache"),
    *("student", "assistant", "recurrent", "portable", "folder", "checkpoints", "plan", "trainer", "verdict"),
    *("train", "stages"),
    *("methods", "translation", "crosslingual_plan", "crosslingual", "tasks"),
    *("extras", "runtimes", "file_model", "evaluate"),
    *("onnx_files", "openvino_files", "parity", "export"),
    *("chunks", "parts", "engines", "ray_data", "encode_plan", "encode"),
    *("facts", "trained", "results", "described", "card"),
    *("publishable", "review", "answers", "upload", "publish", "cli"),
]
METHODS_IMPORT = {"settings", "data", "pooling", "teacher", "cache", "student"}
# A masked LM is no sentence encoder: encoder_trainer() cannot take it.
TRAINS_ITSELF = {"mlm.py": {"checkpoints", "trainer", "train"}}
# DistillCSE adds a term to SimCSE's loss, and its own modules are three.
BUILDS_ON = {"online.py": {"methods"}, "generations.py": {"methods"}}

IMPORT_ALL = """
import logging, os, pkgutil, random, signal, socket, sys, warnings
import datasets, mteb, numpy, sentence_transformers, torch, transformers

def connect(*args):
    raise AssertionError(f"importing opened a connection: {args}")

def state():
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "seeds": (torch.initial_seed(), torch.get_rng_state().tolist(), random.getstate()),
        "numpy": str(numpy.random.get_state()),
        "determinism": (torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled()),
        "logging": (logging.root.level, list(logging.root.handlers), transformers.logging.get_verbosity()),
        "signals": (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)),
        "environment": (dict(os.environ), os.getcwd(), list(sys.path)),
    }

socket.socket.connect = connect
before = state()
import distilface
for module in pkgutil.walk_packages(distilface.__path__, "distilface."):
    __import__(module.name)
after = state()
changed = [key for key in before if before[key] != after[key]]
assert not changed, f"importing distilface changed {changed}"
"""


def module_of(file: Path) -> str:
    """Name the module of a file: the first word after ``distilface.``, empty for the package's own file."""
    first = file.relative_to(ROOT / "distilface").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports_of(file: Path) -> set[str]:
    """Name the modules of the package that a file imports, at its top or inside a function."""
    package, names = file.relative_to(ROOT).parts[:-1], set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) + 1 - node.level], node.module] if node.level else [node.module]
            names |= {".".join([*filter(None, base), alias.name]) for alias in node.names}
    own = {name.split(".")[1] for name in names if name.startswith("distilface.")}
    return own & {module_of(f) for f in FILES}


def allowed_in(file: Path) -> set[str]:
    """Say which modules a file may import: those on its left; for a method, the few that a method needs."""
    module = module_of(file)
    assert module in ["", *ORDER], f"{module} has no place in ORDER: put it where its imports allow"
    if module == "methods":
        folder = set() if file.parent.name == "methods" else {"methods"}  # CoDIR's files import each other
        return METHODS_IMPORT | TRAINS_ITSELF.get(file.name, set()) | BUILDS_ON.get(file.name, set()) | folder
    return set(ORDER[: ORDER.index(module)] if module else ())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_its_left(file: Path):
    assert imports_of(file) <= allowed_in(file)


def test_the_trainer_knows_no_method():
    train = ROOT / "distilface" / "train.py"
    assert not train.exists() or "methods" not in imports_of(train)


def test_importing_has_no_side_effects():
    """A seed or a thread count set on import would change a user's own program without a word."""
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_the_version_has_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert importlib.metadata.version("distilface") == distilface.__version__


def test_the_package_is_typed():
    assert (importlib.resources.files("distilface") / "py.typed").is_file()
