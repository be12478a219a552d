"""Use a model: load it, embed a file by it, search an index that exists."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from distilface.extras import check_toolkit, has_toolkit
from distilface.settings import InputError, check_known

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from distilface.embedding.report import Encoded
    from distilface.light import LightEncoder


@overload
def load(model: None = None, *, variant: str | None = None) -> LightEncoder: ...
@overload
def load(model: str | Path | None = None, *, runtime: Literal["onnx"], variant: str | None = None) -> LightEncoder: ...
@overload
def load(model: str | Path | None = None, *, runtime: Literal["auto"], one_by_one: bool = False) -> LightEncoder: ...
@overload
def load(model: str | Path, *, variant: str) -> LightEncoder: ...
@overload
def load(model: str | Path, *, runtime: Literal["torch"] | None = None) -> SentenceTransformer: ...
def load(
    model: str | Path | None = None, *, runtime: str | None = None, variant: str | None = None, one_by_one: bool = False
) -> SentenceTransformer | LightEncoder:
    """Load a model for use: the shipped one, a folder, or a model of the Hub.

    >>> import distilface
    >>> distilface.load("models/none/there")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none/there is neither a folder nor a Hub id (owner/name)

    Args:
        model: a folder or a Hub id; ``None`` is the model that the package ships, which onnxruntime runs.
        runtime: ``torch`` for the model in fp32 and in evaluation mode, ``onnx`` for its ONNX file on onnxruntime,
            ``auto`` for the ONNX file that is fastest on this processor (measured for a second, then remembered);
            ``None`` takes torch where the toolkit is installed, else onnxruntime.
        variant: of the ONNX file, ``q4``, ``int8`` or ``onnx``; default the first of them that is there.
        one_by_one: with ``auto``, what is fastest at texts that come one at a time, as queries do, and not in batches.

    Raises:
        InputError: if it is not a model, its weights are broken or not finite, the Hub is not in reach, or the
            runtime is not installed or cannot run it.
    """
    check_known([] if runtime is None else [runtime], ["auto", "onnx", "torch"], "runtime")
    if runtime == "auto":
        if variant is not None:
            raise InputError(f"runtime='auto' chooses the file; leave out variant={variant!r}, or give runtime='onnx'")
        runtime, variant = "onnx", "auto"
    elif one_by_one:
        raise InputError("one_by_one needs runtime='auto', which chooses the file; add it, or leave one_by_one out")
    light = model is None or variant is not None or not has_toolkit()
    if (runtime or ("onnx" if light else "torch")) == "onnx":
        from distilface.light import LightEncoder

        return LightEncoder(model, variant, one_by_one=one_by_one)
    if model is None or variant is not None:
        what = "the shipped model" if model is None else f"variant={variant!r}"
        raise InputError(f"{what} is run by onnxruntime; leave out runtime='torch'")
    check_toolkit("load")
    from distilface.model.loading import load_model

    return load_model(model)


def encode(folder: str | Path, input: str | Path, output: str | Path, **settings: Any) -> Encoded:
    """Embed every row of a file into a .parquet or .npy; an interrupted call goes on where it stopped.

    >>> import distilface
    >>> distilface.encode("models/mine", "lines.txt", "vectors.csv")
    Traceback (most recent call last):
    distilface.settings.InputError: vectors.csv: .csv suffix; embeddings are written to .parquet or .npy

    Args:
        folder: a model folder.
        input: a .txt (a row a line), .csv, .tsv, .jsonl (each also .gz) or .parquet file, or a folder of .parquet
            files: local, or a URL as ``s3://bucket/folder``.
        output: the file to write; of a folder the folder, also as a URL.
        settings: those of ``distilface encode --help``, as ``variant="int8"``.

    Returns:
        The report: rows, width, empty and truncated rows, megabytes, seconds.

    Raises:
        InputError: on a mistake in the settings, the folder or the input (with its line).
        KeyboardInterrupt: after Ctrl-C, with what is done kept.
    """
    check_toolkit("encode")
    from distilface.embedding import encoding
    from distilface.embedding.settings import EncodeSettings

    start = EncodeSettings(folder=str(folder), input=str(input), output=str(output))
    check_known(list(settings), list(vars(start)), "setting of encode:")
    return encoding.encode(replace(start, **settings))


def route(student: str | Path, output: str | Path, teacher: str | Path | None = None) -> Path:
    """Write one folder that embeds queries by a student and documents by its teacher: it searches an index that exists.

    >>> import distilface
    >>> distilface.route("models/none", "models/search")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none does not exist; give a model folder

    Args:
        student: a model folder, distilled into its teacher's own space, as its run.json says.
        output: the folder to write, which ``SentenceTransformer`` loads for ``encode_query`` and ``encode_document``.
        teacher: a folder or a Hub id; default what the student's run.json names.

    Returns:
        The folder that was written.

    Raises:
        InputError: if the two have different spaces, one of them cannot be loaded, or ``output`` is taken.
    """
    check_toolkit("route")
    from distilface import routing

    return routing.route(student, output, teacher)
