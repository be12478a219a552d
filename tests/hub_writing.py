"""A Hub on loopback that is written to, and that misbehaves on demand.

Every commit is a folder of its own, so that an older one is served as it was.
"""

import base64
import hashlib
import itertools
import json
import re
import shutil
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from hub import LFS_SUFFIXES, Handler, Hub, Repo

TOKEN = "hf_" + "Loopback" * 4


@dataclass
class Fault:
    """What goes wrong: calls whose ``METHOD path`` matches, after the first ``skip`` of them, ``times`` times.

    Without a ``status`` the connection is cut: before the call is carried out, or ``after`` it.
    """

    call: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    skip: int = 0
    times: int = 10**6
    after: bool = False


class WritingHandler(Handler):
    """Answers the calls that write, and does wrong what a :class:`Fault` asks for."""

    server: Any
    muted = False

    def do_GET(self) -> None:
        """Answer as a Hub that is only read does, unless this call is to fail."""
        hub: WritableHub = self.server.hub
        fault = hub.fault_of(f"{self.command} {self.path}")
        if fault is None:
            return super().do_GET()
        if fault.status is None and fault.after:
            self.muted = True
            super().do_GET()
        else:
            hub.requests.append((self.command, self.path))
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault.status is not None:
            return self.send_bytes(fault.status, b'{"error": "on demand"}', fault.headers)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_HEAD = do_POST = do_PUT = do_GET

    def send_bytes(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if not self.muted:
            super().send_bytes(status, body, headers)

    def refuse(self, status: int, words: str, **more: str) -> None:
        """Answer with an error and the Hub's own words."""
        self.send_bytes(status, json.dumps({"error": words, **more}).encode(), {"Content-Type": "application/json"})

    def allowed(self) -> bool:
        """Return whether the call carries the login; answer 401 where it does not."""
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.refuse(401, "Invalid username or password.")
        return False

    def create(self) -> None:
        """Create a repository as the Hub does, with a first commit."""
        asked, hub = json.loads(self.body), self.server.hub
        id = f"{asked['organization']}/{asked['name']}"
        if not self.allowed():
            return
        if ("models", id) in hub.repos:
            return self.refuse(409, "You already created this model repo", url=f"{hub.url}/{id}")
        folder = hub.new_folder()
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        hub.put(replace(hub.add_model(id, folder), private=asked.get("visibility") == "private"), "main")
        self.send_json({"url": f"{hub.url}/{id}"})

    def validate_yaml(self) -> None:
        """Check a card's metadata: YAML, and a licence that is known."""
        block = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        licence = (yaml.safe_load(block[1]) or {}).get("license") if block else None
        errors = [{"message": f'"license" must be one of mit, apache-2.0, not {licence}'}]
        if licence in (None, "mit", "apache-2.0"):
            return self.send_json({"errors": [], "warnings": []})
        self.send_bytes(400, json.dumps({"errors": errors, "warnings": []}).encode())

    def preupload(self, kind: str, id: str, rev: str) -> None:
        """Say how each file is to be sent, and which are ignored."""
        repo, asked, files = self.repo(kind, id, rev), json.loads(self.body), []
        ignored = asked.get("gitIgnore")
        if ignored is None:
            ignored = (repo.folder / ".gitignore").read_text() if repo.path(".gitignore") else ""
        patterns = [*ignored.split("\n"), *self.server.hub.dropped]
        if not self.allowed():
            return
        for name in (file["path"] for file in asked["files"]):
            mode = "lfs" if Path(name).suffix in LFS_SUFFIXES else "regular"
            files.append({"path": name, "uploadMode": mode, "oid": repo.etag(name) if repo.path(name) else None})
            files[-1]["shouldIgnore"] = any(fnmatch(name, pattern) for pattern in patterns)
        self.send_json({"files": files})

    def lfs_batch(self, kind: str, id: str) -> None:
        """Say where each large file goes, unless it is there."""
        hub, objects = self.server.hub, json.loads(self.body)["objects"]
        for asked in objects:
            if asked["oid"] not in hub.objects:
                asked["actions"] = {"upload": {"href": f"{hub.url}/lfs/{asked['oid']}"}}
        self.send_json({"objects": objects, "transfer": "basic"})

    def lfs_put(self, oid: str) -> None:
        """Keep a large file that is what it is said to be."""
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.refuse(400, "The content is not of this hash")
        self.server.hub.objects[oid] = self.body
        self.send_bytes(200, b"")

    def commit(self, kind: str, id: str, rev: str) -> None:
        """Make one commit of all the lines, or none; or a pull request with it."""
        hub, lines = self.server.hub, [json.loads(line) for line in self.body.splitlines()]
        repo, header = self.repo(kind, id, rev), lines[0]["value"]
        request = parse_qs(urlsplit(self.path).query).get("create_pr") == ["1"]
        if not self.allowed():
            return
        if header.get("parentCommit") not in (None, repo.sha) and not request:
            return self.refuse(412, "A commit has happened since. Please refresh and try again.")
        folder = hub.new_folder()
        shutil.copytree(repo.folder, folder, dirs_exist_ok=True)
        for line in lines[1:]:
            value, file = line["value"], folder / line["value"]["path"]
            if line["key"] == "deletedFile":
                file.unlink()
                continue
            file.parent.mkdir(parents=True, exist_ok=True)
            large = line["key"] == "lfsFile"
            file.write_bytes(hub.objects[value["oid"]] if large else base64.b64decode(value["content"]))
        sha = hashlib.sha1(f"{repo.sha} {len(hub.commits)}".encode()).hexdigest()
        hub.commits.append((header, [line["value"]["path"] for line in lines[1:]]))
        number = 1 + sum(ref.startswith("refs/pr/") for _, _, ref in hub.refs)
        hub.put(replace(repo, folder=folder, sha=sha), f"refs/pr/{number}" if request else rev)
        answer = {"commitUrl": f"{hub.url}/{id}/commit/{sha}", "commitOid": sha}
        if request:
            answer["pullRequestUrl"] = f"{hub.url}/{id}/discussions/{number}"
        self.send_json(answer)

    def refs(self, kind: str, id: str) -> None:
        hub = self.server.hub
        listed: dict[str, list] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        branches = {ref: repo.sha for (_, name, ref), repo in hub.refs.items() if name == id}
        for ref, sha in (branches | {"main": self.repo(kind, id).sha}).items():
            if not re.fullmatch(r"refs/.*|[0-9a-f]{40}", ref):
                kinds = listed["tags" if (id, ref) in hub.tagged else "branches"]
                kinds.append({"name": ref, "ref": ref, "targetCommit": sha})
        self.send_json(listed)

    def ref(self, kind: str, id: str, what: str, rev: str) -> None:
        """Make a tag of a revision, or a branch of ``main``."""
        hub = self.server.hub
        name = json.loads(self.body)["tag"] if what == "tag" else rev
        if not self.allowed():
            return
        if ("models", id, name) in hub.refs:
            return self.refuse(409, f"Reference {name} exists")
        hub.refs["models", id, name] = self.repo(kind, id, rev if what == "tag" else "main")
        if what == "tag":
            hub.tagged.add((id, name))
        self.send_json({})

    routes: tuple[tuple[str, str, Callable[..., None]], ...] = (
        ("POST", "/api/repos/create", create),
        ("POST", "/api/validate-yaml", validate_yaml),
        ("POST", rf"{Handler._API}/preupload/(?P<rev>[^/]+)", preupload),
        ("POST", rf"/(?P<kind>datasets/|spaces/|){Handler._ID}\.git/info/lfs/objects/batch", lfs_batch),
        ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", lfs_put),
        ("POST", rf"{Handler._API}/commit/(?P<rev>[^/]+)", commit),
        ("POST", rf"{Handler._API}/(?P<what>tag|branch)/(?P<rev>[^/]+)", ref),
        ("GET", rf"{Handler._API}/refs", refs),
        *Handler.routes,
    )


class WritableHub(Hub):
    """A Hub that is written to with :data:`TOKEN`.

    Attributes:
        objects: the large files, by sha256.
        commits: the header and the paths of every commit, in order.
        dropped: patterns of files that the Hub leaves out of a commit, without a word.
        faults: what goes wrong.
    """

    handler = WritingHandler

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.objects: dict[str, bytes] = {}
        self.commits: list[tuple[dict[str, Any], list[str]]] = []
        self.tagged: set[tuple[str, str]] = set()
        self.dropped: list[str] = []
        self.faults: list[Fault] = []
        self._lock, self._numbers = threading.Lock(), itertools.count(1)

    def new_folder(self) -> Path:
        folder = self.folder / str(next(self._numbers))
        folder.mkdir(parents=True)
        return folder

    def put(self, repo: Repo, ref: str) -> None:
        """Move a branch to a commit; the commit can still be read by its id."""
        self.refs[repo.kind, repo.id, repo.sha] = repo
        if ref == "main":
            self.repos[repo.kind, repo.id] = repo
        else:
            self.refs[repo.kind, repo.id, ref] = repo

    def fault_of(self, call: str) -> Fault | None:
        """Return what is to go wrong with a call, and count it."""
        with self._lock:
            for fault in self.faults:
                if re.search(fault.call, call):
                    if fault.skip:
                        fault.skip -= 1
                    elif fault.times:
                        fault.times -= 1
                        return fault
        return None

    def writes(self) -> list[str]:
        """List the calls that write, as ``METHOD path``."""
        return [f"{method} {path}" for method, path in self.requests if method not in ("GET", "HEAD")]
