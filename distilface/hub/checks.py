"""What of a model folder may be published: its files, and one sentence for each that must not leave the machine."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from distilface.json_files import read_json
from distilface.model.folder import Folder
from distilface.runtimes.files import REPORT, pieces, read_exports
from distilface.settings import InputError

#: What this library writes of a training or an export; local paths in them are published as names.
RECORDS = ("run.json", REPORT)
_HIDDEN = (".gitattributes", ".eval_results")
_NAMES = {
    "a file of secrets": (".env", ".env.*", "*.env", ".netrc", "*.pem", "*.key", "id_rsa*", "id_ed25519*", "secrets.*"),
    "a checkpoint of a training": ("checkpoint-*",),
    "the state of a training": (
        *("optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "training_args.*", "trainer_state.json"),
        *("loss.safetensors", "whole.json", "progress.json"),
    ),
    "a log of a training": ("events.out.tfevents.*", "*.log", "wandb", "runs"),
    "a pickle, which can run code where it is loaded": ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt"),
    "code, and a model folder holds none": ("*.py", "*.pyc", "*.so", "*.dll", "*.sh", "*.ipynb"),
    "an archive, and nobody can see what is in it": ("*.zip", "*.tar", "*.gz", "*.tgz", "*.xz", "*.7z", "*.npz"),
    "left over from a write": ("*.part", "*.tmp", "*~", "*.swp"),
}
_ROOTS = r"(?:home|root|tmp|Users|mnt|scratch|workspace|var/folders|private/var)"
_STEP = r"[^\s/\\\"'`<>|,;:()\[\]{}]+"
#: A path below a root where people keep their own; one in a URL does not count.
_LOCAL = (
    rf"(?:(?<![\w:./-])(?:(?:\.\./)*\.\.)?|(?<=file://))/{_ROOTS}/{_STEP}(?:/{_STEP})*"
    rf"|(?<!\w)[A-Za-z]:(?:\\\\|\\|/)Users(?:(?:\\\\|\\|/){_STEP})+"
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")
_PRINTED = re.compile(rb"[\x20-\x7e]{8,}")


@dataclass(frozen=True)
class Upload:
    """A file to publish: its name in the repository, and a file that holds it or, where it is changed, its bytes."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def publishable(folder: Folder, token: str | None = None) -> list[Upload]:
    """List what is published of a model folder, by name; the folder itself is not changed.

    Everything in it is, or nothing. A tool as detect-secrets finds the keys and passwords that are not looked for here.
    Only ``run.json`` and ``export.json``, where a training or an export here has
    written a local path, are published with the path reduced to its last name.

    Args:
        folder: a model folder.
        token: the Hub's login, which must stand in no file.

    Raises:
        InputError: if it is not a whole model folder, has no card, or holds a secret, a path of this machine, a state
            of a training, a pickle, an archive, code, or exports of other weights.
    """
    folder.check()
    names = sorted(
        path.relative_to(folder.path).as_posix()
        for path in folder.path.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )
    for name in names:
        _check_name(folder.path, name)
    places = local_paths(folder)
    uploads = [Upload(name, _content(folder.path / name, name, places)) for name in names]
    for upload in uploads:
        _check_content(upload, places, token)
    _check_code(folder, names)
    _check_exports(folder, names)
    if not folder.card.is_file():
        raise InputError(f"{folder.path} has no README.md, the model card; write one (distilface card {folder.path})")
    return uploads


def local_paths(folder: Folder) -> re.Pattern[str]:
    """Return what finds a path of this machine in a text: below a usual root, the home, here, or the folder's own."""
    own = {Path.home(), Path.cwd(), folder.path.resolve().parent}
    deep = sorted((str(place) for place in own if len(place.parts) > 2), key=len, reverse=True)
    return re.compile("|".join([_LOCAL, *(rf"{re.escape(place)}(?:[/\\]{_STEP})*" for place in deep)]))


def _check_name(root: Path, name: str) -> None:
    components = PurePosixPath(name).parts
    openvino = (root / name).with_suffix(".xml").is_file()  # whose weights are a .bin, and no pickle
    for what, patterns in _NAMES.items():
        known = [pattern for pattern in patterns if not (openvino and pattern == "*.bin")]
        if any(fnmatch(part.lower(), pattern) for part in components for pattern in known):
            raise _refused(name, f"is {what}")
    if any(part.startswith(".") for part in (components[1:] if components[0] in _HIDDEN else components)):
        raise _refused(name, "is hidden, and what hides is not the model's")
    if (root / name).is_symlink():
        raise InputError(f"{name} is a link, which may lead anywhere; put the file itself in its place")


def _refused(name: str, why: str) -> InputError:
    return InputError(f"{name} {why}; it is not published: remove it from the folder, or keep it elsewhere")


def _content(file: Path, name: str, places: re.Pattern[str]) -> Path | bytes:
    """Return a file, or its bytes without local paths where it is one of :data:`RECORDS` that holds some."""
    if name not in RECORDS:
        return file
    value = read_json(file)
    reduced = without_places(value, places)
    return file if reduced == value else (json.dumps(reduced, indent=2, ensure_ascii=False) + "\n").encode()


def without_places(value: Any, places: re.Pattern[str]) -> Any:
    """Reduce the local paths in a JSON value, at any depth and in its keys, to their last names; a relative one stays.

    >>> without_places({"data": ["/data/me/text.txt", "en.txt"], "/data/me/teacher": 86.7}, re.compile("(?!)"))
    {'data': ['text.txt', 'en.txt'], 'teacher': 86.7}
    """
    if isinstance(value, dict):
        named = [without_places(key, places) for key in value]
        again = [named[:place].count(name) for place, name in enumerate(named)]  # two paths may have one last name
        names = [f"{name} ({count + 1})" if count else name for name, count in zip(named, again, strict=True)]
        return dict(zip(names, (without_places(inner, places) for inner in value.values()), strict=True))
    if isinstance(value, list):
        return [without_places(inner, places) for inner in value]
    if not isinstance(value, str):
        return value
    if PurePosixPath(value).is_absolute():
        return PurePosixPath(value).name or value
    if PureWindowsPath(value).is_absolute():
        return PureWindowsPath(value).name or value
    return places.sub(lambda match: re.split(r"[/\\]", match[0])[-1], value)


def _check_content(upload: Upload, places: re.Pattern[str], token: str | None) -> None:
    data = upload.content if isinstance(upload.content, bytes) else upload.content.read_bytes()
    if data.startswith(b"PK\x03\x04") or (_PICKLE.match(data) and data.endswith(b".")):
        raise _refused(upload.name, "is an archive or a pickle, by its first bytes")
    binary = b"\0" in data[:8192]
    # Of numbers, only what could be read: an exporter writes paths and settings between them.
    text = (b"\n".join(_PRINTED.findall(data)) if binary else data).decode("utf-8", "replace")

    def place(match: re.Match[str]) -> str:
        """Say where a match is: the file and, of text, the line."""
        return upload.name if binary else f"{upload.name}, line {text.count(chr(10), 0, match.start()) + 1},"

    if token and (match := re.search(re.escape(token), text)):
        remedy = "take it out, and revoke it if others may have seen it"
        raise InputError(f"{place(match)} holds the token of your login; {remedy}")
    if match := places.search(text):
        remedy = "write that file again without it" if binary else "take it out, or leave the file's name alone"
        raise InputError(f"{place(match)} holds a path of this machine, {match[0]:.80}; {remedy}")


def _keys(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key of a JSON value, at any depth, with its value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield str(key), below
        yield from _keys(below)


def _check_code(folder: Folder, names: list[str]) -> None:
    for name in (name for name in names if name.endswith("config.json") or name == "config_sentence_transformers.json"):
        for key, value in _keys(read_json(folder.path / name)):
            if key in ("auto_map", "trust_remote_code", "custom_pipelines") and value:
                raise InputError(
                    f"{name} asks for code of its own ({key}), which users must not be made to trust; "
                    "save the model with the classes of transformers and sentence-transformers"
                )


def _check_exports(folder: Folder, names: list[str]) -> None:
    exports = [name for name in names if name.startswith(("onnx/", "openvino/"))]
    files = [piece for file in read_exports(folder).get("files", {}) for piece in pieces(Path(file))] if exports else []
    # One that is missing in the report may be of older weights, or be left by an export that was killed.
    if unknown := [name for name in exports if Path(name) not in files]:
        raise InputError(
            f"{unknown[0]} is not known to be an export of these weights ({REPORT} describes others or is "
            f"not there); distilface export {folder.path}, or remove it"
        )
