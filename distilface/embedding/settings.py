"""The settings of an encoding: which are refused before anything is read, and which decide its bytes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from distilface.data.lines import suffix_of
from distilface.data.location import Location, is_url
from distilface.embedding.output import OUTPUT_SUFFIXES, Output
from distilface.embedding.worker import PRECISIONS, VARIANTS, Variant
from distilface.locks import check_writable
from distilface.model.folder import Folder
from distilface.runtimes.extras import RAY
from distilface.runtimes.files import digest
from distilface.runtimes.opening import choose
from distilface.settings import InputError, check_known, setting, warn_unused

ENGINES = ("local", "ray")
#: What it means that a part of a key, which is not a setting, has another value.
_DIFFERENCES = {
    "folder": "the model was another",
    "input": "the text was another",
    "export": "the export was another",
}


def is_of_folders(settings: "EncodeSettings") -> bool:
    """Return whether a folder of .parquet files is to be embedded into another, part by part."""
    return _is_folder(settings.input) or is_url(settings.output)


def _is_folder(place: str) -> bool:
    return is_url(place) or Path(place).is_dir()


@dataclass
class EncodeSettings:
    """distilface encode FOLDER INPUT OUTPUT: the embedding of every row of a file, or of a folder of them, in order.

    A row without text keeps its place and is zeros; of a text that is longer than the model reads, the first part
    counts. Both are counted at the end. The input is read once for its mistakes before anything is computed. A run that
    was stopped, at any moment, goes on when the same command is given again. The same file twice gives the same bytes.

    A folder of .parquet files, local or a URL as s3://bucket/folder, becomes a folder of them: each part is read and
    written by one worker, and its text is read once.
    """

    folder: str = setting("", "the model folder; also as the first word")
    input: str = setting(
        "",
        "a .txt (a row a line), .csv, .tsv, .jsonl (also .gz) or .parquet, or a folder of .parquet; the second word",
    )
    output: str = setting("", "the .parquet or .npy file to write, of a folder the folder; also as the third word")
    text_column: str = setting(
        "text",
        "the column of the text, in files with columns",
        needs={"input": lambda file: suffix_of(Path(file)) != ".txt"},
    )
    keep_text: bool = setting(False, "write the text beside each embedding, into a .parquet")
    variant: str = setting(
        "fp32",
        "fp32 or bf16 by torch; onnx, q4, openvino, openvino-int8, int8 (for this processor) by an export; auto: the "
        "fastest of these here that gives a text one vector in every batch, by OpenVINO and in bf16 too",
    )
    batch_size: int = setting(32, "texts in one forward pass, of similar lengths")
    chunk_rows: int = setting(8192, "rows held in memory and written at a time; a kill loses at most these")
    part_rows: int = setting(
        65536,
        "of a folder: rows of a part; a larger file is cut between its row groups. A kill loses the parts begun",
        needs={"input": _is_folder},
    )
    threads: int | None = setting(None, "of one process; default torch's. Another number can change the last bits")
    device: str = setting("cpu", "what fp32 and bf16 run on: cpu, cuda, mps")
    engine: str = setting("local", "local: one process; ray: workers on Ray, the same bytes")
    workers: int | None = setting(None, "workers of --engine ray; default as many as it has CPUs for")
    overwrite: bool = setting(False, "replace the output, and drop the beginning of another encoding to it")


def check(settings: EncodeSettings, output: Output) -> None:
    """Refuse settings that cannot be followed, before anything is read.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    file = output.file
    _check_values(settings)
    if file.suffix not in OUTPUT_SUFFIXES:
        known = " or ".join(OUTPUT_SUFFIXES)
        raise InputError(f"{file}: {file.suffix or 'no'} suffix; embeddings are written to {known}")
    if settings.keep_text and file.suffix == ".npy":
        raise InputError(f"{file} has no place for text; name a .parquet, or leave out --keep_text")
    if file.is_dir():
        raise InputError(f"{file} is a folder; name a file")
    if file.exists() and Path(settings.input).exists() and file.samefile(settings.input):
        raise InputError(f"{file} is the input as well; name another output")
    there = next(parent for parent in file.resolve().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{there} cannot be written to; name a file elsewhere")
    if "report" not in output.note:
        check_free(settings)


def check_folders(settings: EncodeSettings, source: Location, output: Location) -> None:
    """Refuse settings of an encoding from folder to folder that cannot be followed, before anything is read.

    Raises:
        InputError: as :func:`check`.
    """
    _check_values(settings)
    if Path(output.place).suffix in OUTPUT_SUFFIXES or (output.is_local and output.path.is_file()):
        raise InputError(f"{output} names a file, and the input is a folder; name a folder for its embeddings")
    if f"{output.place}/".startswith(f"{source.place}/"):
        raise InputError(f"{output} is the input or lies in it; name another output")
    if output.is_local:
        check_writable(output.path)


def _check_values(settings: EncodeSettings) -> None:
    """Refuse values that are wrong whatever is to be embedded."""
    warn_unused(settings)
    check_known([settings.variant], VARIANTS, "variant")
    check_known([settings.engine], ENGINES, "engine")
    for name in ("batch_size", "chunk_rows", "part_rows", "threads", "workers"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be 1 or more")
    if settings.variant not in PRECISIONS and settings.device != "cpu":
        raise InputError(
            f"{settings.variant} runs on the CPU, not on {settings.device}; leave --device out, or choose bf16"
        )
    if settings.workers is not None and settings.engine != "ray":
        raise InputError(f"--workers {settings.workers} is for --engine ray; add that, or leave --workers out")
    if settings.engine == "ray":
        RAY.check()


def check_free(settings: EncodeSettings) -> None:
    """Refuse an output that exists, unless it may be replaced.

    Raises:
        InputError: naming it.
    """
    if Path(settings.output).exists() and not settings.overwrite:
        raise InputError(f"{settings.output} exists; name another file, or add --overwrite")


def variant_of(settings: EncodeSettings, folder: Folder) -> Variant:
    """Return what the settings ask each process to compute; its folder by the whole path, for a worker elsewhere.

    Raises:
        InputError: if the folder has no export for the variant.
    """
    return Variant(
        folder=str(folder.path.resolve()),
        name=settings.variant,
        export=None if settings.variant in PRECISIONS else choose(folder, settings.variant, settings.threads),
        batch_size=settings.batch_size,
        threads=settings.threads or torch.get_num_threads(),
        device=settings.device,
    )


def model_of(settings: EncodeSettings, folder: Folder) -> SentenceTransformer:
    """Return the folder's model, on the device where this process computes.

    Ray's workers load their own, where the device is; of this one only the width and the length are used.
    """
    here = settings.engine == "local" and settings.device != "cpu"
    return folder.load(settings.device) if here else folder.model


def key_of(settings: EncodeSettings, folder: Folder, variant: Variant, text: str) -> dict[str, Any]:
    """Return all that decides the bytes of the output, by which its parts are known again; ``text`` is its digest."""
    export = variant.export
    return {
        "folder": folder.fingerprint,
        "input": text,
        "variant": variant.name,
        "export": f"{digest(export.file)} {export.words}".rstrip() if export else None,
        "batch_size": variant.batch_size,
        "chunk_rows": settings.chunk_rows,
        "threads": variant.threads,
        "device": variant.device,
        "keep_text": settings.keep_text,
    }


def difference(before: Mapping[str, Any], key: Mapping[str, Any]) -> str:
    """Return what differs first between the key of an earlier encoding and another."""
    name = next(name for name in key if before.get(name) != key[name])
    return _DIFFERENCES.get(name, f"--{name} was {before.get(name)} and is {key[name]}")
