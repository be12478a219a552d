"""Fixtures of the tests that visit the page of ``demo/``: a plugin of those files, each browser in turn."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browser import INT8, Browser, Visit, build_page, npm_packages, put_model, running, served, visiting

from distilface.compression.student import load_student
from distilface.data.pairs import read_sts
from distilface.exporters.exporting import export
from distilface.model.folder import save_folder
from distilface.runtimes import open_file

VIOLIN = "She practises the violin for an hour every evening."
TEXTS = [
    VIOLIN,
    "Une phrase française, ÉCRITE en capitales; naïve café.",
    "Привет, мир! 你好,世界。 🙂🚲",
    "<img src=x onerror=\"document.title='run'\"> & <b>bold</b>",
    "a",
    "tabs\tand  spaces, e-mail@example.org, 3.14 €/kg, unbelievabilities",
    " ".join(f"Step {number}: turn the left wheel, then the right one." for number in range(90)),
]


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Iterator[Browser]:
    """Start a browser, once a file."""
    with running(request.param) as started:
        yield started


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what npm installs, and the page's sources beside it."""
    return npm_packages(Path(os.environ.get("DISTILFACE_VENVS") or tmp_path_factory.mktemp("venvs")))


@pytest.fixture(scope="session")
def built(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the page."""
    return build_page(packages, tmp_path_factory.mktemp("built") / "page")


@pytest.fixture
def page(built: Path, tmp_path: Path) -> Path:
    """Put the built page, with no model beside it, into a folder of a site."""
    return shutil.copytree(built, tmp_path / "some" / "folder")


@pytest.fixture
def address(page: Path, tmp_path: Path) -> Iterator[str]:
    """Serve the site, and yield the page's address."""
    with served(tmp_path) as site:
        yield f"{site}some/folder/"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the untrained cut of three layers of all-MiniLM-L6-v2, which reads 512 tokens."""
    folder = tmp_path_factory.mktemp("cut") / "all-MiniLM-L6-v2, layers 0, 2 and 5"
    save_folder(load_student("sentence-transformers/all-MiniLM-L6-v2", [0, 2, 5]), folder)
    export(folder, read_sts("sample"), ["onnx", "int8"])
    return folder


@pytest.fixture
def visit(browser: Browser, page: Path, address: str, model: Path) -> Iterator[Visit]:
    """Visit the page with the cut beside it; whatever is done there, nothing fails and nothing leaves localhost."""
    put_model.put_model(model, page)
    with visiting(browser) as visit:
        visit.open(address)
        yield visit
        assert visit.errors == []
        assert visit.hosts == {"localhost"}
        assert f"{address}models/local/{INT8}" in visit.requests


def unit(rows: np.ndarray) -> np.ndarray:
    """Scale each row to length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def alone(folder: Path, texts: list[str]) -> np.ndarray:
    """Embed each text alone with Python's runtime."""
    encoder = open_file(folder / INT8, folder)
    return np.concatenate([encoder.encode([text]) for text in texts])
