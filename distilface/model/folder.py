"""The model folder: its layout on disk, how it is checked, written and read.

It loads with the same vectors in sentence-transformers 5 and 6 over transformers 4 and 5, and holds neither code
nor a pickle.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WeightedLayerPooling

from distilface.json_files import read_json
from distilface.model.identity import fingerprint
from distilface.model.loading import load_in_fp32
from distilface.model.older_versions import make_portable, older_fingerprint, portable_configs
from distilface.model.pooling import freeze
from distilface.model.router import check_no_router
from distilface.model.saved_card import card
from distilface.run import Run, read_run
from distilface.settings import InputError
from distilface.storage import check_output, put_in_place, whole_folder, write_json

__all__ = ["Folder", "check_output", "load", "open_folder", "put_in_place", "save_folder"]

_ROOT = (
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
#: Those that the folder of a static model has.
_STATIC_ROOT = ("config_sentence_transformers.json", "model.safetensors", "modules.json", "tokenizer.json")
_NEEDED = {
    "Pooling": ["config.json"],
    "Dense": ["config.json", "model.safetensors"],
    "WeightedLayerPooling": ["config.json", "model.safetensors"],
}


@dataclass(frozen=True)
class Folder:
    """A model folder: its files, whether it is whole, its size, its model.

    Attributes:
        path: the folder. At its top lie the encoder (``config.json``, ``model.safetensors``), the tokenizer
            and ``modules.json``, which names the modules; each module that follows the encoder has a folder
            of its own there (``1_Pooling``). A static model has no settings of an encoder.
    """

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))

    @property
    def weights(self) -> Path:
        """The encoder's weights."""
        return self.path / "model.safetensors"

    @property
    def card(self) -> Path:
        """The model card."""
        return self.path / "README.md"

    @property
    def run_file(self) -> Path:
        """How the model was made; a folder that was not trained here has no such file."""
        return self.path / "run.json"

    @property
    def run(self) -> Run | None:
        """How the model was made, or ``None``."""
        return read_run(self.run_file) if self.run_file.is_file() else None

    @property
    def modules(self) -> list[tuple[str, Path]]:
        """The class and the folder of each module, in order, the encoder first."""
        entries = read_json(self.path / "modules.json")
        try:
            return [(str(entry["type"]), self.path / entry["path"]) for entry in entries]
        except (TypeError, KeyError):
            raise InputError(f"{self.path / 'modules.json'} is damaged: it lists no modules") from None

    @property
    def _root(self) -> tuple[str, ...]:
        """The names of the files at the top of a whole folder."""
        if not (self.path / "modules.json").is_file():
            return _ROOT
        kinds = [kind for kind, _ in self.modules]
        return _STATIC_ROOT if kinds and kinds[0].endswith(".StaticEmbedding") else _ROOT

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide the vectors, in the order of the modules."""
        places = [place for _, place in self.modules if place != self.path]
        below = [place / name for place in places for name in ("config.json", "model.safetensors")]
        return (*(self.path / name for name in self._root), *(file for file in below if file.is_file()))

    @property
    def bytes(self) -> int:
        """Size of the model: of :attr:`files`, not of a card or an export beside them."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def megabytes(self) -> float:
        """Size of the model in millions of bytes."""
        return self.bytes / 1e6

    @property
    def parameters(self) -> int:
        """Number of weights, from the headers of their files; indices stored with them do not count."""
        total = 0
        for file in (f for f in self.files if f.suffix == ".safetensors"):
            with safe_open(file, "numpy") as weights:
                # It is not a mapping: it cannot be iterated without keys().
                slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118
                total += sum(prod(s.get_shape()) for s in slices if "F" in s.get_dtype())
        return total

    @cached_property
    def model(self) -> SentenceTransformer:
        """The model, loaded once on the CPU, in evaluation mode; callers share it, so do not change it."""
        return self.load()

    @cached_property
    def fingerprint(self) -> str:
        """The :func:`~distilface.model.identity.fingerprint` of the model, computed once."""
        return fingerprint(self.model)

    def has_fingerprint(self, recorded: str | None) -> bool:
        """Return whether a fingerprint read from a file, perhaps of an older version, is that of this folder."""
        if recorded is None or recorded == self.fingerprint:
            return recorded is not None
        return recorded == older_fingerprint(self.path, self.files)

    def is_valid(self) -> bool:
        """Return whether this is a whole model folder."""
        try:
            self.check()
        except InputError:
            return False
        return True

    def check(self) -> None:
        """Make sure that this is a whole model folder.

        Raises:
            InputError: saying what is missing or damaged, or that a module is not sentence-transformers' own.
        """
        if not self.path.is_dir():
            what = "is a file" if self.path.exists() else "does not exist"
            raise InputError(f"{self.path} {what}; give a model folder")
        check_no_router(self.path)
        if missing := [name for name in self._root if not (self.path / name).is_file()]:
            raise InputError(f"{self.path} is not a model folder: it has no {', no '.join(missing)}")
        for kind, place in self.modules:
            if not kind.startswith("sentence_transformers."):
                raise InputError(f"{self.path} needs code of its own ({kind}), which is not run; use another model")
            for name in _NEEDED.get(kind.rpartition(".")[2], ()):
                if not (place / name).is_file():
                    raise InputError(f"{self.path} is not a whole model folder: it has no {place.name}/{name}")
        for file in self.files:
            if file.suffix == ".json":
                read_json(file)
            else:
                _check_weights(file)

    def load(self, device: str = "cpu") -> SentenceTransformer:
        """Load the model for use, in fp32 and in evaluation mode; :meth:`check` the folder first."""
        model = load_in_fp32(self.path, device, local_files_only=True)
        for module in model:
            if isinstance(module, WeightedLayerPooling):
                freeze(module)
        return model


def _check_weights(file: Path) -> None:
    try:
        with safe_open(file, "numpy"):
            pass
    except SafetensorError as error:
        raise InputError(f"{file} is damaged ({error}); save or download it again") from None


def open_folder(path: str | Path | Folder) -> Folder:
    """Return a checked model folder; a :class:`Folder` counts as checked and is returned as it is.

    Raises:
        InputError: if ``path`` is not a whole model folder.
    """
    if isinstance(path, Folder):
        return path
    folder = Folder(Path(path))
    folder.check()
    return folder


def load(path: str | Path | Folder, device: str = "cpu") -> SentenceTransformer:
    """Load a model folder for use, in fp32 and in evaluation mode.

    Raises:
        InputError: if ``path`` is not a whole model folder.
    """
    return open_folder(path).load(device)


def save_folder(
    model: SentenceTransformer,
    path: str | Path,
    run: dict[str, Any] | None = None,
    max_seq_length: int | None = None,
    overwrite: bool = False,
    name: str | None = None,
) -> Folder:
    """Write a model as a portable folder, whole or not at all.

    At any moment, even after a kill or on a full disk, ``path`` is either what it was or the whole new folder. The
    model itself is not changed. Weights are written as fp32.

    Args:
        model: an encoder of transformers, a pooling, and ``Dense`` and ``Normalize`` if wanted; or a static model.
        path: the folder to write; it must be empty or not exist yet.
        run: how the model was made, written as ``run.json``.
        max_seq_length: tokens that the published model reads at most. ``None`` takes the model's own, which
            after a training on shorter text is the training's.
        overwrite: replace a model folder that is at ``path``.
        name: what the card calls the model; ``None`` takes the name of ``path``.

    Raises:
        InputError: if ``path`` is taken, or the model has a part that cannot be written portably.
        OSError: if it cannot be written; ``errno`` is ``ENOSPC`` on a full disk, whichever library met it.
    """
    configs = portable_configs(model, max_seq_length)
    with whole_folder(path, overwrite) as folder:
        model.save_pretrained(str(folder), create_model_card=False)
        make_portable(folder, model, configs)
        (folder / "README.md").write_text(card(model, name or Path(path).resolve().name, configs), encoding="utf-8")
        if run is not None:
            write_json(folder / "run.json", run)
    return Folder(Path(path))
