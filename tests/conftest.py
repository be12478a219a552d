"""Fixtures for every test; what imports slowly is imported where it is asked for."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hub import Hub
from warm import Warm

if TYPE_CHECKING:
    from runs import Materials
    from sentence_transformers import SentenceTransformer


@pytest.fixture
def hub() -> Iterator[Hub]:
    """Yield an empty Hub on loopback; its libraries run in subprocesses, see :mod:`hub`."""
    with Hub() as running:
        yield running


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Yield the warm interpreter that runs scripts, out of reach of any Hub."""
    folder = tmp_path_factory.mktemp("warm")
    with Hub() as hub, Warm(hub.dead_env(folder / "cache"), folder) as interpreter:
        yield interpreter


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory) -> "Materials":
    """Make what small trainings need, once for all of them; nothing else is written there."""
    from runs import make_materials

    return make_materials(tmp_path_factory.mktemp("materials"))


@pytest.fixture(scope="session")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save a student of each kind, exported in fp32, once for all tests and workers; none of them changes it."""
    from exported import KINDS, save_students
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    place = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "students"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)  # of a worker that failed
            save_students(part)
            part.rename(place)
    return {kind: place / kind for kind in KINDS}


@pytest.fixture
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the test's own, in which what is rewritten, measured and remembered is kept."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "distilface"


@pytest.fixture
def teacher(tmp_path: Path) -> "SentenceTransformer":
    """Load a tiny encoder as a teacher."""
    from tiny import tiny_model

    from distilface.training.teacher import load_teacher

    tiny_model(tmp_path / "teacher")
    return load_teacher(str(tmp_path / "teacher"), device="cpu")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Run on one thread: on a busy machine several wait for each other at every tiny matrix."""
    from tiny import on_one_thread

    with on_one_thread():
        yield


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note the texts of every encoding."""
    from sentence_transformers import SentenceTransformer

    calls: list[list[str]] = []
    encode = SentenceTransformer.encode

    def noting(self: SentenceTransformer, *args: Any, **kwargs: Any) -> Any:
        calls.append(list(args[0] if args else kwargs["inputs"]))
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", noting)
    return calls


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the data sets that a test makes out of the user's cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
