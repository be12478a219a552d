"""The rooms stand in one line, each importing only from its left; importing them does nothing else."""

import functools
import importlib.metadata
import importlib.resources
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from import_graph import Graph, floors, graph

import distilface

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "distilface"
ROOMS = [
    *("settings", "extras", "json_files", "locks", "storage", "processes", "console", "environment", "hub_ids"),
    *("light", "run", "data", "model", "compression", "runtimes", "embedding", "exporters"),
    *("training", "methods", "routing", "evaluation", "cards", "hub", "api", "verbs", "cli", "__main__"),
]

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


@functools.cache
def rooms() -> Graph:
    """Return what each room imports; all of the package is read for it."""
    return graph(PACKAGE, 1)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_its_left(room: str):
    assert rooms()[room] <= set(ROOMS[: ROOMS.index(room)])


def test_every_room_has_its_place():
    assert set(rooms()) == {*ROOMS}


def test_no_room_has_a_cycle_inside():
    assert floors(graph(PACKAGE, 9))


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
