"""Which runtime opens an exported file, and which file of a folder this processor runs best."""

import platform
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from distilface.light.fastest import Choice, fastest, remembered
from distilface.light.files import AUTO
from distilface.model.folder import Folder
from distilface.runtimes.base import FileEncoder, file_refusal
from distilface.runtimes.files import FILES, pieces, read_exports
from distilface.runtimes.onnx import OnnxEncoder
from distilface.runtimes.openvino import OpenVinoEncoder
from distilface.settings import InputError

#: The formats whose files give a text one vector in every batch, and fp32's own to within the parity gate.
STEADY = ("onnx", "int8", "q4", "openvino", "openvino-int8")
#: The runtime of a file, by its suffix.
RUNTIMES: dict[str, type[FileEncoder]] = {".onnx": OnnxEncoder, ".xml": OpenVinoEncoder}


def runtime_of(file: str | Path) -> type[FileEncoder]:
    """Return the runtime of an exported file.

    Raises:
        InputError: if its suffix is none of :data:`RUNTIMES`.
    """
    suffix = Path(file).suffix
    if suffix not in RUNTIMES:
        raise InputError(f"{file} is not an exported file; its name must end in {' or '.join(RUNTIMES)}")
    return RUNTIMES[suffix]


def open_file(file: str | Path, source: str | Path | SentenceTransformer, threads: int | None = None) -> FileEncoder:
    """Open an exported file on its runtime; the arguments are those of :class:`FileEncoder`.

    Raises:
        InputError: without the packages of the runtime, or if the file or the folder is not there.
    """
    return runtime_of(file)(file, source, threads)


def int8_formats() -> list[str]:
    """Return the formats of int8 that are made for this processor, the one that it runs best first.

    Weights from -128 are for VNNI and ARM: without VNNI, x86 adds their products in 16 bits, which can overflow.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ["arm64"]
    return ["vnni", "avx2"] if torch.cpu._is_vnni_supported() else ["avx2"]


def choose(folder: Folder, variant: str, threads: int | None = None) -> Path:
    """Return an exported file of a folder.

    Args:
        folder: the model folder.
        variant: a name of :data:`FILES`; ``int8`` for the file of int8 that this processor runs best; or ``auto`` for
            the fastest here of those that give a text one vector in every batch (:func:`fastest_format`).
        threads: that ``auto`` is measured with; ``None`` takes torch's number.

    Raises:
        InputError: without the packages of the runtime, if no file can give the folder's vectors, or if the folder has
            no such file of its weights.
    """
    if variant == AUTO:
        return folder.path / FILES[fastest_format(folder, threads).name].path
    return _exported(folder, [*int8_formats(), "quantized"] if variant == "int8" else [variant], variant)


def _exported(folder: Folder, formats: list[str], variant: str) -> Path:
    """Return the first file of some formats that a folder has of its weights.

    Raises:
        InputError: as :func:`choose`.
    """
    files = [FILES[name].path for name in formats]
    runtime_of(files[0]).extra.check()
    if reason := file_refusal(folder.model):
        raise InputError(f"no exported file gives the vectors of {folder.path}: {reason}")
    rows = read_exports(folder).get("files", {})
    for file in files:
        whole = all(piece.is_file() for piece in pieces(folder.path / file))
        if whole and file in rows and not rows[file]["refused"]:
            return folder.path / file
    processor = " for this processor" if variant == "int8" else ""
    raise InputError(
        f"{folder.path} has no {variant} export of its weights{processor}; "
        f"make it first: distilface export {folder.path} --formats {formats[0]}"
    )


def _steady(folder: Folder) -> dict[str, Path]:
    """Return the files of :data:`STEADY` that a folder has of its weights, and whose runtime is installed."""
    found = {}
    for name in STEADY:
        try:
            found[name] = _exported(folder, [name], name)  # not choose: its int8 is the dynamic one
        except InputError:  # which says what is lacking, to those who ask for it by its name
            continue
    return found


def fastest_format(folder: Folder, threads: int | None = None) -> Choice:
    """Return which exported file of a folder is the fastest here, measured for a second if that is not known yet.

    Args:
        folder: the model folder.
        threads: of the computation; ``None`` takes torch's number.

    Raises:
        InputError: if the folder has no such file.
    """
    files = _steady(folder)
    if not files:
        _exported(folder, [STEADY[0]], STEADY[0])  # raises, and says why there is none
    threads = threads or torch.get_num_threads()

    def opened() -> dict[str, Any]:
        """Open each file."""
        return {name: open_file(file, folder.model, threads).encode for name, file in files.items()}

    return fastest({name: pieces(file) for name, file in files.items()}, threads, opened)


def known_fastest(folder: Folder) -> Choice | None:
    """Return what was measured of a folder's files on this processor, or ``None``; nothing is measured."""
    files = _steady(folder)
    return remembered({name: pieces(file) for name, file in files.items()}, torch.get_num_threads()) if files else None
