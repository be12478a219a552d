"""The page of ``demo/`` as a person meets it: built by npm, served by ``python -m http.server``, seen by a browser.

The browser can reach localhost alone, whatever a page asks for, and every request is written down.
"""

import contextlib
import hashlib
import importlib
import io
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from tiny import tiny_model

from distilface.exporters.onnx import to_onnx
from distilface.exporters.smaller import to_int8_weights
from distilface.model.folder import load, save_folder

DEMO = Path(__file__).parents[1] / "demo"
sys.path.append(str(DEMO))
put_model = importlib.import_module("put_model")
INT8 = "onnx/model_int8.onnx"
SOURCES = ("src", "public", "index.html", "vite.config.js", "package.json", "package-lock.json", ".npmrc")
PROGRAMS = {"chromium": ("chromium", "chromium-browser", "google-chrome"), "firefox": ("firefox-esr", "firefox")}
PACKAGES = {"chromium": "chromium", "firefox": "firefox-esr"}
IDLE = "document.querySelector('#results').ariaBusy === 'false'"


def int8_model(place: Path, prompt: str = "") -> Path:
    """Save a tiny model whose vectors are neither means nor of length 1: the first token through a ``Dense``."""
    modules = [*tiny_model(place.with_name(f"{place.name}-made"), pooling="cls"), Dense(32, 12)]
    named = {"prompts": {"query": prompt}, "default_prompt_name": "query"} if prompt else {}
    folder = save_folder(SentenceTransformer(modules=modules, device="cpu", **named), place)
    (place / "onnx").mkdir()
    to_onnx(load(place), place / "onnx" / "model.onnx")
    to_int8_weights(place / "onnx" / "model.onnx", place / INT8)
    report = {"fingerprint": folder.fingerprint, "files": {INT8: {}}}
    (place / "export.json").write_text(json.dumps(report), encoding="utf-8")
    return place


def npm_packages(home: Path) -> Path:
    """Copy the page's sources as they are now into a folder of ``home``, and install its packages there.

    What npm installs stays there as long as the lock file's content is the same.
    """
    if shutil.which("npm") is None:
        pytest.skip("needs node and npm")
    lock = hashlib.sha256((DEMO / "package-lock.json").read_bytes()).hexdigest()
    place = home / f"page-{lock[:12]}"
    place.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.rmtree(place / name, ignore_errors=True)
        copy = shutil.copytree if (DEMO / name).is_dir() else shutil.copyfile
        copy(DEMO / name, place / name)
    if not (place / "done").is_file():
        subprocess.run(["npm", "ci", "--silent"], cwd=place, check=True)
        (place / "done").touch()
    return place


def build_page(place: Path, page: Path) -> Path:
    """Build the page of a folder with sources and packages into ``page``."""
    subprocess.run(["npm", "run", "--silent", "build", "--", "--logLevel", "warn"], cwd=place, check=True)
    return shutil.copytree(place / "dist", page, dirs_exist_ok=True)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as the README says, and yield its address."""
    words = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        port = server.stdout.readline().partition(" port ")[2].split()[0]
        try:
            yield f"http://localhost:{port}/"
        finally:
            server.terminate()


@dataclass
class Browser:
    """A browser that runs.

    Of Firefox there is more, for what Playwright cannot have it do: ``downloads``, the folder in which it saves files,
    and ``schemed``, which starts another one for a colour scheme.
    """

    name: str
    running: Any
    downloads: Path | None = None
    schemed: Callable[[str], Any] | None = None

    @contextlib.contextmanager
    def window(self, **options: Any) -> Iterator[Any]:
        """Open a window; ``options`` are Playwright's, as ``viewport`` and ``color_scheme``."""
        running = self.running
        if self.schemed and "color_scheme" in options:
            running = self.schemed(options.pop("color_scheme"))
        window = running.new_context(**{"viewport": {"width": 1200, "height": 900}, **options})
        yield window
        window.close()
        if running is not self.running:
            running.close()


def start_chromium(playwright: Any, program: str, folder: Path) -> Browser:
    """Start Chromium."""
    options = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"]
    return Browser("chromium", playwright.chromium.launch(executable_path=program, args=options))


def start_firefox(playwright: Any, program: str, folder: Path) -> Browser:
    """Start Firefox as Debian has it: Playwright speaks WebDriver BiDi to it, through :mod:`firefox_relay`."""
    relay = folder / "firefox"
    words = [sys.executable, str(Path(__file__).with_name("firefox_relay.py")), program]
    relay.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    relay.chmod(0o755)
    downloads = folder / "downloads"
    downloads.mkdir()
    preferences = {"browser.download.folderList": 2, "browser.download.dir": str(downloads), "network.proxy.type": 1}
    for kind in ("http", "ssl", "socks"):  # a proxy that is not there, and that localhost does not go through
        preferences |= {f"network.proxy.{kind}": "127.0.0.1", f"network.proxy.{kind}_port": 9}

    def launch(**more: Any) -> Any:
        options = {"channel": "moz-firefox", "executable_path": relay, "firefox_user_prefs": preferences | more}
        return playwright.firefox.launch(**options)

    def schemed(scheme: str) -> Any:
        return launch(**{"layout.css.prefers-color-scheme.content-override": ["dark", "light"].index(scheme)})

    return Browser("firefox", launch(), downloads, schemed)


@contextlib.contextmanager
def running(name: str) -> Iterator[Browser]:
    """Start a browser, ``chromium`` or ``firefox``, with no way to any other host."""
    reason = "needs playwright: pip install -c constraints.txt -e '.[page]'"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    program = next(filter(None, map(shutil.which, PROGRAMS[name])), None)
    if program is None:
        pytest.skip(f"needs {name.title()}: apt-get install {PACKAGES[name]}")
    start = {"chromium": start_chromium, "firefox": start_firefox}[name]
    with playwright.sync_playwright() as api, tempfile.TemporaryDirectory() as folder:
        browser = start(api, program, Path(folder))
        yield browser
        browser.running.close()


@dataclass
class Visit:
    """A page in a window of its own, and what it has asked for and complained of."""

    browser: Browser
    window: Any
    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript expression holds."""
        self.page.wait_for_function(condition, timeout=120_000)

    def open(self, address: str) -> None:
        """Open the page and wait until all its sentences have vectors."""
        self.page.goto(address)
        self.wait(IDLE)

    def ask(self, query: str) -> list[str]:
        """Type a query as a person does, and return the sentences, nearest first."""
        self.page.fill("#query", "")
        self.page.locator("#query").press_sequentially(query, delay=20)
        self.wait(f"document.querySelector('#results').ariaLabel === 'Sentences, nearest to {query} first'")
        return self.page.locator("#results .line").all_inner_texts()

    def fill(self, lines: list[str]) -> None:
        """Put lines in the box, and wait until the list holds them, 50 at most, and all have vectors."""
        self.page.fill("#text", "\n".join(lines))
        self.wait(f"{IDLE} && document.querySelectorAll('#results li').length === {min(50, len(set(lines)))}")

    def vectors(self) -> dict[str, list[float]]:
        """Press the button that saves the vectors, and read the file."""
        saved = json.loads(self.saved())
        return {sentence["text"]: sentence["vector"] for sentence in saved["sentences"]}

    def saved(self) -> str:
        """Press the button that saves the vectors, and return the file's content."""
        if not (folder := self.browser.downloads):
            with self.page.expect_download() as download:
                self.page.click("#save")
            return Path(download.value.path()).read_text(encoding="utf-8")
        for older in folder.iterdir():
            older.unlink()
        self.page.evaluate("document.querySelector('#save').click()")  # Playwright would wait for the download's end
        for _ in range(100):
            self.page.wait_for_timeout(100)
            files = {file.name for file in folder.iterdir()}
            if files == {"vectors.json"} and (content := (folder / "vectors.json").read_text(encoding="utf-8")):
                return content
        raise AssertionError(f"no vectors.json within 10 s, but {files}")

    @property
    def hosts(self) -> set[str]:
        """The hosts that were asked for anything."""
        return {urlsplit(request).hostname for request in self.requests if not request.startswith("blob:")} - {None}


def take_picture(page: Any, file: str) -> None:
    """Write the whole page as a PNG of 128 colours, half as large as Chromium's and the same to the eye."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
    picture.convert("RGB").quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


@contextlib.contextmanager
def visiting(browser: Browser, **options: Any) -> Iterator[Visit]:
    """Open a window and an empty page in it; ``options`` are those of :meth:`Browser.window`."""
    with browser.window(**options) as window:
        visit = Visit(browser, window, window.new_page())
        window.on("request", lambda request: visit.requests.append(request.url))
        window.on("weberror", lambda error: visit.errors.append(str(error.error)))
        window.on("console", lambda said: visit.errors.append(said.text) if said.type in ("error", "warning") else None)
        yield visit
