"""A folder on this machine, or in a store that fsspec knows by its URL, as ``s3://bucket/folder``."""

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from distilface.locks import scratch_folder
from distilface.settings import InputError
from distilface.storage import whole_file

#: Stores in which a file appears whole, at the end of its upload; elsewhere it is uploaded under another name first.
OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss", "memory"}
#: How the names of unfinished files begin.
UNFINISHED = ".part-"
#: By which of the fields of a store's file a change is noticed: the first that it has.
_STAMPS = ("ETag", "etag", "mtime", "LastModified", "created")


def is_url(place: str) -> bool:
    """Return whether a place is one of fsspec's URLs, and not a path.

    >>> is_url("s3://bucket/folder"), is_url("texts/2024")
    (True, False)
    """
    return "://" in place


@dataclass(frozen=True)
class Entry:
    """A file of a location.

    Attributes:
        name: by its path in the folder.
        size: in bytes.
        stamp: another after every change.
    """

    name: str
    size: int
    stamp: str


@dataclass(frozen=True)
class Location:
    """A folder, local or in a store; the credentials of a store come from its library's environment.

    Attributes:
        place: the whole path, or the URL.
    """

    place: str

    @classmethod
    def of(cls, place: str) -> "Location":
        """Return the location of a path, from the working directory, or of a URL."""
        return cls(place.rstrip("/") if is_url(place) else str(Path(place).absolute()))

    def __str__(self) -> str:
        """Return the place as messages name it: without a password."""
        if not is_url(self.place):
            return self.place
        parts = urlsplit(self.place)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

    @property
    def is_local(self) -> bool:
        """Whether the folder is on this machine."""
        return self._store[1] is not None

    @property
    def path(self) -> Path:
        """The path of a local folder."""
        return Path(self._store[1] or self.place)

    @property
    def _store(self) -> tuple[Any, Path | None, str]:
        """The filesystem of fsspec, the path if that is local, and the root in it."""
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        if not is_url(self.place):
            return LocalFileSystem(), Path(self.place), Path(self.place).as_posix()
        with self._as_sentence("opened"):
            filesystem, root = fsspec.core.url_to_fs(self.place)
        return filesystem, Path(root) if isinstance(filesystem, LocalFileSystem) else None, root

    @contextmanager
    def _as_sentence(self, what: str) -> Iterator[None]:
        """Turn the errors of a store into a sentence: each library of a store raises its own; a local one's stay."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if not is_url(self.place):
                raise
            problem = f"{type(error).__name__}: {' '.join(str(error).replace(self.place, str(self)).split()):.200}"
            remedy = "check the URL, its credentials and that its library is installed, then run again"
            raise InputError(f"{self} cannot be {what} ({problem}); {remedy}") from None

    def entries(self) -> list[Entry]:
        """List all files beneath the folder, in the order of their names; of a folder that does not exist, none."""
        filesystem, _, root = self._store
        with self._as_sentence("listed"):
            filesystem.invalidate_cache()
            files = filesystem.find(root, detail=True)
        start = len(root.rstrip("/")) + 1
        return [_entry(path[start:] or Path(path).name, files[path]) for path in sorted(files)]

    def entry(self, name: str) -> Entry | None:
        """Return one file as it is now, or ``None``."""
        filesystem, _, _ = self._store
        with self._as_sentence("read"):
            filesystem.invalidate_cache()
            try:
                return _entry(name, filesystem.info(self._inside(name)))
            except FileNotFoundError:
                return None

    def _inside(self, name: str) -> str:
        return f"{self._store[2].rstrip('/')}/{name}"

    @contextmanager
    def opened(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for its bytes."""
        with self._as_sentence("read"), self._store[0].open(self._inside(name), "rb") as file:
            yield file

    @contextmanager
    def new_file(self, name: str) -> Iterator[BinaryIO]:
        """Give a file to write; it gets its name, whole, when the block ends without an error."""
        workshop: AbstractContextManager[str] = scratch_folder()
        if self.is_local:  # a file gets its name in one step only from the same disk
            workshop = tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self.path, ignore_cleanup_errors=True)
        with workshop as folder:
            file = Path(folder) / name
            with whole_file(file) as opened:
                yield opened
            if self.is_local:
                file.replace(self.path / name)
            else:
                self._upload(file, name)

    def _upload(self, file: Path, name: str) -> None:
        filesystem, place = self._store[0], self._inside(name)
        with self._as_sentence("written to"):
            if self.place.partition("://")[0] in OBJECT_STORES:
                filesystem.put_file(str(file), place)
                return
            unfinished = self._inside(f"{UNFINISHED}{secrets.token_hex(4)}-{name}")
            filesystem.makedirs(self._store[2], exist_ok=True)
            filesystem.put_file(str(file), unfinished)
            filesystem.mv(unfinished, place)

    def clear(self) -> None:
        """Remove what killed processes have left in a local folder; no other process may write there."""
        if self.is_local:
            for left in self.path.glob(f"{UNFINISHED}*"):
                shutil.rmtree(left, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove a file."""
        with self._as_sentence("written to"):
            self._store[0].rm_file(self._inside(name))

    def read_json(self, name: str) -> Any:
        """Return the content of a JSON file, or ``None`` where there is no such file.

        Raises:
            InputError: if it is damaged.
        """
        if self.entry(name) is None:
            return None
        try:
            with self.opened(name) as file:
                return json.loads(file.read())
        except (UnicodeDecodeError, json.JSONDecodeError):
            raise InputError(f"{self}/{name} is damaged: it is not JSON; name another folder") from None

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole or not at all."""
        with self.new_file(name) as file:
            file.write((json.dumps(content, indent=2) + "\n").encode())


def _entry(name: str, info: dict[str, Any]) -> Entry:
    stamp = next((info[key] for key in _STAMPS if info.get(key) is not None), "")
    if isinstance(stamp, datetime):  # a listing may give a time in seconds, and one file's as a date
        stamp = stamp.timestamp()
    return Entry(name, int(info["size"] or 0), str(stamp))
