"""A Hugging Face Hub on loopback: serves local folders to the unmodified client libraries, for reading.

:mod:`hub_writing` has one that is written to.

The libraries fix their endpoint on import, so a test runs them in a subprocess with :meth:`Hub.env`.
"""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from forks import run_forked
from huggingface_hub.utils.sha import git_hash

LFS_SUFFIXES = {".safetensors", ".bin", ".onnx", ".parquet", ".gz", ".npy"}
INHERITED = ("HF_", "HUGGINGFACE_", "TRANSFORMERS_", "SENTENCE_TRANSFORMERS_", "MTEB_")


@lru_cache(maxsize=4096)
def _digest(path: Path, mtime_ns: int, large: bool) -> str:
    content = path.read_bytes()
    return hashlib.sha256(content).hexdigest() if large else git_hash(content)


@dataclass(frozen=True)
class Repo:
    """One repository: a local folder under an id, with one commit that is also the branch ``main``."""

    kind: str  # "models" or "datasets", as the API spells it
    id: str
    folder: Path
    sha: str
    private: bool = False

    def files(self) -> list[str]:
        return sorted(p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file())

    def path(self, name: str) -> Path | None:
        return self.folder / name if name in self.files() else None

    def etag(self, name: str) -> str:
        """Give a file's identity: sha256 for what the Hub keeps as LFS, else the git blob's sha1."""
        path = self.folder / name
        return _digest(path, path.stat().st_mtime_ns, path.suffix in LFS_SUFFIXES)

    def entry(self, name: str) -> dict[str, Any]:
        """Describe a file or a folder as the tree call does."""
        path = self.folder / name
        if path.is_dir():
            return {"type": "directory", "path": name, "size": 0, "oid": hashlib.sha1(name.encode()).hexdigest()}
        size, oid = path.stat().st_size, self.etag(name)
        entry = {"type": "file", "path": name, "size": size, "oid": oid[:40]}
        return entry | ({"lfs": {"oid": oid, "size": size, "pointerSize": 134}} if len(oid) > 40 else {})

    def tree(self, under: str, recursive: bool) -> list[dict[str, Any]]:
        """List the entries below a folder (``""``: the root); empty if there is no such folder."""
        inside = [name for name in self.files() if name.startswith(under and f"{under}/")]
        folders = {parent.as_posix() for name in inside for parent in Path(name).parents} - {"."}
        names = [n for n in sorted({*inside, *folders}) if n != under and n.startswith(under and f"{under}/")]
        depth = under.count("/") + 1 if under else 0
        return [self.entry(n) for n in names if recursive or n.count("/") == depth]

    def info(self) -> dict[str, Any]:
        """Describe the repository as ``model_info`` and ``dataset_info`` expect it."""
        siblings = [{"rfilename": name} for name in self.files()]
        return {"id": self.id, "sha": self.sha, "private": self.private, "tags": [], "siblings": siblings}


class Missing(Exception):
    """A 404 with the Hub's error code; a missing entry names the commit, so that clients remember it."""

    def __init__(self, code: str, commit: str = "") -> None:
        self.headers = {"X-Error-Code": code, "X-Error-Message": code} | ({"X-Repo-Commit": commit} if commit else {})


class Handler(BaseHTTPRequestHandler):
    """Answers one request; the routes at the end of the class say which method answers which path."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_GET(self) -> None:
        """Log the request, find its route and answer; what no route knows is a plain 404."""
        path = urlsplit(self.path).path
        self.server.hub.requests.append((self.command, self.path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            for method, pattern, answer in self.routes:
                if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                    return answer(self, **{k: unquote(v or "") for k, v in match.groupdict().items()})
            self.send_bytes(404, b"{}")
        except Missing as missing:
            self.send_bytes(404, b"{}", missing.headers)

    do_HEAD = do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet: the requests are in ``Hub.requests``."""

    def send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_json(self, value: Any) -> None:
        self.send_bytes(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def repo(self, kind: str, id: str, rev: str = "main") -> Repo:
        """Find a repository at a revision: ``main``, its commit, or another branch, tag or commit."""
        repository = self.server.hub.repos.get((kind.strip("/") or "models", id))
        if repository is None:
            raise Missing("RepoNotFound")
        if rev in ("main", repository.sha):
            return repository
        if (other := self.server.hub.refs.get((repository.kind, id, rev))) is None:
            raise Missing("RevisionNotFound")
        return other

    def info(self, kind: str, id: str, rev: str = "main") -> None:
        """Answer ``model_info``, ``dataset_info`` and the resolution of a revision."""
        self.send_json(self.repo(kind, id, rev).info())

    def tree(self, kind: str, id: str, rev: str, under: str = "") -> None:
        query = parse_qs(urlsplit(self.path).query)
        recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        repo = self.repo(kind, id, rev)
        entries = repo.tree(under, recursive)
        if under and not entries:
            raise Missing("EntryNotFound", repo.sha)
        self.send_json(entries)

    def file(self, kind: str, id: str, rev: str, name: str) -> None:
        """Answer with a file, or with the part of it that is asked for."""
        repo = self.repo(kind, id, rev)
        if (path := repo.path(name)) is None:
            raise Missing("EntryNotFound", repo.sha)
        content, headers = path.read_bytes(), {"ETag": f'"{repo.etag(name)}"', "X-Repo-Commit": repo.sha}
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self.send_bytes(206, content[first : last + 1], headers)
            return
        self.send_bytes(200, content, headers)

    _ID = r"(?P<id>[^/]+(?:/[^/]+)?)"
    _API = rf"/api/(?P<kind>models|datasets|spaces)/{_ID}"
    routes: tuple[tuple[str, str, Callable[..., None]], ...] = (
        ("GET", rf"{_API}/revision/(?P<rev>[^/]+)", info),
        ("GET", rf"{_API}/tree/(?P<rev>[^/]+)(?:/(?P<under>.+))?", tree),
        ("GET", _API, info),
        ("GET HEAD", rf"/(?P<kind>datasets/|spaces/|){_ID}/resolve/(?P<rev>[^/]+)/(?P<name>.+)", file),
    )


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: "Hub"


class Hub:
    """The server and what it serves; a context manager.

    Attributes:
        url: the endpoint.
        repos: what is served, by ``("models" | "datasets", id)``; its ``main``.
        refs: what is served at another revision, by ``("models" | "datasets", id, revision)``.
        requests: every ``(method, path)`` asked for, in order.
    """

    handler: type[Handler] = Handler

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.refs: dict[tuple[str, str, str], Repo] = {}
        self.requests: list[tuple[str, str]] = []
        self._server = _Server(("127.0.0.1", 0), self.handler)
        self._server.hub = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._closed_port = socket.socket()  # bound and never listening: a connection is refused
        self._closed_port.bind(("127.0.0.1", 0))

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._closed_port.close()

    def add_model(self, id: str, folder: str | Path) -> Repo:
        return self.add("models", id, Path(folder).resolve())

    def add_dataset(self, id: str, folder: str | Path, sha: str | None = None) -> Repo:
        return self.add("datasets", id, Path(folder).resolve(), sha)

    def add(self, kind: str, id: str, folder: Path, sha: str | None = None) -> Repo:
        """Serve a folder; ``sha`` is its commit (default: of the id and the files)."""
        files = [(file.name, file.stat().st_mtime_ns) for file in sorted(folder.rglob("*"))]
        sha = sha or hashlib.sha1(repr((kind, id, files)).encode()).hexdigest()
        self.repos[kind, id] = Repo(kind, id, folder, sha)
        return self.repos[kind, id]

    def env(self, cache_dir: str | Path) -> dict[str, str]:
        """Make a subprocess's environment: this Hub, caches under ``cache_dir``, none of the user's own."""
        return _environment(self.url, Path(cache_dir))

    def dead_env(self, cache_dir: str | Path) -> dict[str, str]:
        """Make the same environment for a Hub that is out of reach: its port refuses connections."""
        return _environment(f"http://127.0.0.1:{self._closed_port.getsockname()[1]}", Path(cache_dir))


def _environment(url: str, cache: Path) -> dict[str, str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith(INHERITED)}
    own |= {f"HF_HUB_DISABLE_{what}": "1" for what in ("XET", "TELEMETRY", "PROGRESS_BARS")}
    own |= dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1")
    return own | {"HF_ENDPOINT": url, "HF_HOME": str(cache), "MTEB_CACHE": str(cache / "mteb")}


def run_python(source: str, env: dict[str, str], *argv: str, forked: bool = True) -> str:
    """Run Python source in a fresh process and give its standard output; its errors fail the test.

    Where it looks at what is imported, it is not to be forked.
    """
    if forked:
        done = run_forked(source, *argv, env=env)
    else:
        command = [sys.executable, "-c", source, *argv]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
