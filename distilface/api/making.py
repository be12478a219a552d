"""Make a model: choose its shape, train it, export it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distilface.extras import check_toolkit
from distilface.settings import check_known

if TYPE_CHECKING:
    from datasets import Dataset

    from distilface.compression.sizes import Shape
    from distilface.exporters.parity import Parity

logger = logging.getLogger(__name__)


def shape(teacher: str | Path, megabytes: float, max_seq_length: int | None = None) -> list[Shape]:
    """Return the students of 4 bits that fill a budget, the best first; ``train(..., megabytes=N)`` makes that one.

    >>> import distilface
    >>> distilface.shape("models/none/there", megabytes=5)
    Traceback (most recent call last):
    distilface.settings.InputError: models/none/there is neither a folder nor a Hub id (owner/name)

    Args:
        teacher: a folder or a Hub id of a sentence encoder, a BERT or a DistilBERT inside.
        megabytes: what a user downloads to run the student, the 4-bit file and the tokenizer, 10^6 bytes.
        max_seq_length: the tokens that it reads; default the teacher's.

    Raises:
        InputError: if the teacher cannot be used or cut, or nothing fits.
    """
    check_toolkit("shape")
    from distilface.compression.budget import shapes_for

    return shapes_for(str(teacher), megabytes, max_seq_length)


def train(
    method: str,
    *,
    data: Sequence[str] | Dataset = (),
    config: str | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a model folder by a method; the settings are those of ``distilface train METHOD --help``.

    >>> import distilface
    >>> distilface.train("distil", data=["A cat sat.", "A dog ran."])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown method 'distil': did you mean 'distill'?

    Args:
        method: its name, as ``distill`` or ``simcse``.
        data: files, folders, Hub data sets or ``python``; or the sentences themselves; or a data set with a column
            ``text``.
        config: a recipe, by the name of a shipped one or its file; a method may have a default one.
        output_dir: the folder to write; default the recipe's or the method's.
        settings: whatever else differs, as ``teacher=...`` or ``steps=100``.

    Returns:
        What stands in the folder's ``run.json``.

    Raises:
        InputError: on an unknown method or setting, or data or models that cannot be used.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved; the same call with ``resume=True`` goes on.
    """
    check_toolkit("train")
    from distilface.data.texts import as_texts
    from distilface.methods import find_method
    from distilface.settings import parse

    chosen = find_method(method)
    check_known(list(settings), [field.name for field in fields(chosen.Settings)], f"setting of {method}:")
    places = {} if output_dir is None else {"output_dir": str(output_dir)}
    sources, texts = as_texts(data)
    values = {**settings, **places, **({"data": sources} if sources else {})}
    return chosen.train(parse(chosen.Settings, ["--config", config] if config else [], "", values), texts)


def export(
    folder: str | Path,
    *,
    formats: Sequence[str] | None = None,
    dev: str = "sample",
    calibration: Sequence[str] = ("python",),
    output_dir: str | Path | None = None,
    most_lost: float | None = None,
) -> dict[str, Parity]:
    """Write the ONNX and OpenVINO files of a model folder, each only where it passes the parity gate.

    >>> import distilface
    >>> distilface.export("models/mine", formats=["onxx"])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown format 'onxx': did you mean 'onnx'?

    Args:
        folder: a model folder; with ``output_dir`` also a Hub id.
        formats: which files; default all whose packages are installed.
        dev: scored pairs to measure on: a file, a Hub data set, or ``sample``.
        calibration: text that sets the scales of static int8, and the rounding to 4 bits.
        output_dir: a folder to save the model in first; it must be empty or not exist yet.
        most_lost: 1 - mean cosine to the folder's vectors on the calibration text, at most, with the weights that q4
            rounds: where 4 bits lose more, some take 8. ``None`` has all in 4.

    Returns:
        The measurements of each format, with the reason where it was refused.

    Raises:
        InputError: on an unknown format, a folder that is not a whole model, missing packages, or unreadable pairs.
    """
    check_toolkit("export")
    from distilface.compression.mixed import check_most_lost
    from distilface.data.pairs import read_sts
    from distilface.exporters import exporting
    from distilface.exporters.formats import FORMATS
    from distilface.exporters.source import source_of

    check_known(formats or [], list(FORMATS), "format")
    check_most_lost(most_lost)
    if most_lost is not None and formats and "q4" not in formats:
        logger.warning("most_lost has no effect without the format q4")
    pairs = read_sts(dev)
    with source_of(folder, output_dir) as source:
        return exporting.export(source, pairs, formats, calibration, most_lost)
