"""Which runtime opens an exported file, and which file of a folder this processor runs best."""

import platform
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from distilface.light.fastest import Choice, agreeing, fastest, remembered
from distilface.light.files import AUTO
from distilface.light.ways import Way, for_batches, ways_of
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


def way_of(file: str | Path) -> Way:
    """Return how an exported file runs on its own runtime.

    Raises:
        InputError: if its suffix is none of :data:`RUNTIMES`.
    """
    return Way(Path(file), openvino="f32" if runtime_of(file) is OpenVinoEncoder else None)


def open_file(
    file: str | Path | Way, source: str | Path | SentenceTransformer, threads: int | None = None
) -> FileEncoder:
    """Open an exported file on its own runtime, or as a way says; the arguments are those of :class:`FileEncoder`.

    Raises:
        InputError: without the packages of the runtime, or if the file or the folder is not there.
    """
    way = file if isinstance(file, Way) else way_of(file)
    return (OnnxEncoder if way.openvino is None else OpenVinoEncoder)(way, source, threads)


def int8_formats() -> list[str]:
    """Return the formats of int8 that are made for this processor, the one that it runs best first.

    Weights from -128 are for VNNI and ARM: without VNNI, x86 adds their products in 16 bits, which can overflow.
    """
    if platform.machine().lower() in ("arm64", "aarch64"):
        return ["arm64"]
    return ["vnni", "avx2"] if torch.cpu._is_vnni_supported() else ["avx2"]


def choose(folder: Folder, variant: str = AUTO, threads: int | None = None) -> Way:
    """Return an exported file of a folder, and how it is to be run.

    Args:
        folder: the model folder.
        variant: a name of :data:`FILES`; ``int8`` for the file of int8 that this processor runs best; or ``auto`` for
            the fastest way here, of those that give a text one vector in every batch (:func:`fastest_format`).
        threads: that ``auto`` is measured with; ``None`` takes torch's number.

    Raises:
        InputError: without the packages of the runtime, if no file can give the folder's vectors, or if the folder has
            no such file of its weights.
    """
    if variant == AUTO:
        choice = fastest_format(folder, threads)
        return _steady(folder)[choice.name]
    return way_of(_exported(folder, [*int8_formats(), "quantized"] if variant == "int8" else [variant], variant))


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


def _steady(folder: Folder) -> dict[str, Way]:
    """Return the ways to run the files of :data:`STEADY` that a folder has of its weights, with what is installed."""
    found = {}
    for name in STEADY:
        try:
            found[name] = way_of(_exported(folder, [name], name))  # not choose: its int8 is the dynamic one
        except InputError:  # which says what is lacking, to those who ask for it by its name
            continue
    files = {way.file for way in found.values()}
    others = {name: way for name, way in ways_of(folder.path).items() if way.file in files}
    described = {
        f"{name} in bf16": Way(way.file, openvino="bf16") for name, way in found.items() if way.file.suffix == ".xml"
    }
    return for_batches(found | others | described)


def fastest_format(folder: Folder, threads: int | None = None) -> Choice:
    """Return which way to run a folder's exported files is the fastest here, measured for a second if not known yet.

    A file of 4 bits may be rewritten, and OpenVINO may run what is ONNX, in bf16 where the processor has it
    (:func:`distilface.light.ways.ways_of`): whatever gives the vectors of the first file
    (:func:`distilface.light.fastest.agreeing`).

    Args:
        folder: the model folder.
        threads: of the computation; ``None`` takes torch's number.

    Raises:
        InputError: if the folder has no such file.
    """
    ways = _steady(folder)
    if not ways:
        _exported(folder, [STEADY[0]], STEADY[0])  # raises, and says why there is none
    threads = threads or torch.get_num_threads()

    def opened() -> dict[str, Any]:
        """Open each way."""
        return agreeing(ways, lambda way: open_file(way, folder.model, threads).encode)

    return fastest({name: pieces(way.file) for name, way in ways.items()}, threads, opened)


def known_fastest(folder: Folder) -> Choice | None:
    """Return what was measured of a folder's files on this processor, or ``None``; nothing is measured."""
    ways = _steady(folder)
    files = {name: pieces(way.file) for name, way in ways.items()}
    return remembered(files, torch.get_num_threads()) if ways else None
