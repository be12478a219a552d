"""A model folder as ONNX and OpenVINO files beside its weights, each written only where its vectors are the folder's.

The encoder reads ``input_ids`` and ``attention_mask`` of any batch and length, and gives ``last_hidden_state`` (the
token vectors that the folder's pooling reads, so that a runtime that pools by itself meets the same embedding) and
``sentence_embedding`` (pooling, ``Dense`` and ``Normalize`` included).
"""

import copy
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.compression.gptq import round_weights
from distilface.compression.mixed import check_most_lost, more_bits
from distilface.environment import environment
from distilface.exporters.calibration import calibration_texts, tokenised
from distilface.exporters.contents import Contents, contents_refusal, read_contents
from distilface.exporters.formats import FORMATS, Format
from distilface.exporters.onnx import to_onnx
from distilface.exporters.parity import EDGES, SAME, Parity, Reference, compare, min_edge, reference_of, texts_of
from distilface.locks import locked, temporary_files_in, temporary_folder
from distilface.model.folder import Folder, open_folder
from distilface.runtimes.base import file_refusal
from distilface.runtimes.extras import ONNX
from distilface.runtimes.files import FILES, REPORT, pieces, read_exports
from distilface.runtimes.opening import open_file
from distilface.settings import InputError, check_known
from distilface.storage import write_whole

logger = logging.getLogger(__name__)


def export(
    path: str | Path | Folder,
    pairs: Dataset,
    formats: Sequence[str] | None = None,
    calibration: Sequence[str] = ("python",),
    most_lost: float | None = None,
) -> dict[str, Parity]:
    """Write the exported files of a model folder that pass, and the report of all in ``export.json``.

    A file that exists is replaced where the new one passes, and removed where it does not: it is of older weights, or
    would be refused today.

    Args:
        path: a model folder.
        pairs: scored pairs to measure on, from :func:`distilface.data.pairs.read_sts`.
        formats: names of :data:`FORMATS`; ``None`` takes those whose packages are installed.
        calibration: text that sets the scales of static int8 (:func:`distilface.data.texts.read_texts`), without
            the sentences of ``pairs``.
        most_lost: 1 - mean cosine to the folder's vectors on that text, at most, with the weights that q4 rounds: where
            4 bits lose more, some take 8 (:func:`distilface.compression.mixed.more_bits`). ``None`` has all in 4.

    Returns:
        The measurements of each format, with the reason where it was refused.

    Raises:
        InputError: on an unknown format, a folder that is not a whole model or that another process writes to, missing
            packages, no calibration text, or vectors that lose more than ``most_lost`` in 8 bits. No file is written.
    """
    names = _chosen(formats)
    check_most_lost(most_lost)
    folder = open_folder(path)
    with locked(folder.path):
        return _export(folder, pairs, names, calibration, most_lost)


def _export(
    folder: Folder, pairs: Dataset, names: Sequence[str], calibration: Sequence[str], most_lost: float | None
) -> dict[str, Parity]:
    """Write the files of the formats, and the report; for who has the lock of the folder."""
    model = folder.model
    if reason := file_refusal(model):
        raise InputError(f"{folder.path} cannot be exported: {reason}")
    texts = texts_of(pairs)
    texts_to_round = any(FORMATS[name].reads_text for name in names)
    sample = calibration_texts(calibration, texts) if texts_to_round else []
    reference = reference_of(model, pairs)
    fingerprint, results = folder.fingerprint, {}
    rows = read_exports(folder).get("files", {})
    report = {"fingerprint": fingerprint, "pairs": len(pairs), "files": rows}
    report |= environment("onnxruntime", "openvino", "nncf")
    logger.info(f"{len(names)} formats, each of {len(texts):,} sentences")
    with temporary_folder(folder.path) as temporary, temporary_files_in(temporary):
        source = temporary / "source.onnx"
        to_onnx(model, source)
        plain = _check_source(source, model, reference)
        rounding = any(FORMATS[name].rounded for name in names)
        rounded, in_eight = _on_grid(model, sample, source, most_lost) if rounding else (source, {})
        for name in names:
            known, form = FILES[name], FORMATS[name]
            file = temporary / known.path
            file.parent.mkdir(exist_ok=True)
            samples = [tokenised(model, sample)] if form.calibrated else []
            form.make(rounded if form.rounded else source, file, *samples)
            results[name], contents = _measure(file, form, model, reference, plain)
            _put(file, folder.path / known.path, results[name])
            rows[known.path] = {"what": known.what, **asdict(results[name]), "checked": _checked(contents, reference)}
            if form.rounded and most_lost is not None:
                more = f"; of its parts {len(in_eight)} in 8 bits" if in_eight else ""
                rows[known.path] |= {"what": known.what + more, "most_lost": most_lost, "in_8_bits": in_eight}
            write_whole(folder.path / REPORT, report, indent=2)
    return results


def _chosen(formats: Sequence[str] | None) -> Sequence[str]:
    """Return the formats asked for, or those whose packages are installed; the others are logged."""
    ONNX.check()  # every file is made of an ONNX file
    if formats is not None:
        check_known(formats, list(FORMATS), "format")
        for name in formats:
            FORMATS[name].extra.check()
        return formats
    names = []
    for name, form in FORMATS.items():
        if missing := form.extra.missing:
            remedy = f"pip install 'distilface[{form.extra.name}]'"
            logger.info(f"left out: {name}, which needs {', '.join(missing)} ({remedy})")
        else:
            names.append(name)
    return names


def _check_source(source: Path, model: SentenceTransformer, reference: Reference) -> Contents:
    """Make sure of the fp32 file that all others are made from, and return its contents.

    A smaller file may differ from the folder by its rounding, in which a wrong input (a prompt, a length, a mask)
    would not be seen.

    Raises:
        InputError: if its vectors are not the folder's.
    """
    contents = read_contents(source)
    cosine = min_edge(open_file(source, model), reference)
    reason = contents_refusal(contents, contents, FORMATS["onnx"].weights)
    if reason is None and not cosine >= SAME:
        reason = f"its least cosine to the folder's vectors is {cosine:.6f}, below {SAME}"
    if reason:
        raise InputError(f"no file was written: the ONNX file that all are made from is not the model: {reason}")
    return contents


def _measure(
    file: Path, form: Format, model: SentenceTransformer, reference: Reference, source: Contents
) -> tuple[Parity, Contents]:
    """Measure a file against the folder and against its own name."""
    contents = read_contents(file)
    parity = compare(open_file(file, model), reference, form.exact)
    reason = contents_refusal(contents, source, form.weights)
    return (replace(parity, refused=reason) if reason else parity), contents


def _checked(contents: Contents, reference: Reference) -> dict[str, Any]:
    """Return what ``export.json`` says that a file was checked by."""
    return {
        "inputs": contents.inputs,
        "outputs": contents.outputs,
        "opset": contents.opset,
        "weight_bytes": contents.weight_bytes,
        "edge_texts": len(EDGES),
        "prompts": list(reference.edges),
    }


def _on_grid(
    model: SentenceTransformer, texts: Sequence[str], source: Path, most_lost: float | None
) -> tuple[Path, dict[str, float]]:
    """Return the ONNX file of a model with its weights on the 4-bit grid, and what is in 8 bits.

    By what the weights give on the texts. The file is ``source``, the model's own, if they are on the grid already;
    else it is written beside it. What is in 8 bits is as :func:`distilface.compression.mixed.more_bits` returns it.
    """
    rounded = copy.deepcopy(model)

    def embed(encoder: SentenceTransformer) -> np.ndarray:
        """Embed the texts."""
        return np.asarray(encoder.encode(list(texts), show_progress_bar=False))

    if not round_weights(rounded, lambda: embed(rounded)):
        if most_lost is not None:
            logger.info(f"--most_lost {most_lost:g} changes nothing: the weights are on the 4-bit grid already")
        return source, {}
    in_eight = {} if most_lost is None else more_bits(model, rounded, embed, most_lost)
    if most_lost is not None and not in_eight:
        logger.info(f"in 4 bits the vectors lose no more than --most_lost {most_lost:g}, so none is in 8")
    file = source.with_name("rounded.onnx")
    to_onnx(rounded, file)
    return file, in_eight


def _put(file: Path, target: Path, parity: Parity) -> None:
    """Move a file that passed to its place, all its pieces or none, and log the result."""
    if parity.refused:
        _remove(target)
        logger.warning(f"{target.name}: not written: {parity.refused}")
        return
    target.parent.mkdir(exist_ok=True)
    new, old = pieces(file), pieces(target)
    if len(old) == 1:
        file.replace(target)
    else:
        _remove(target)
        try:
            for piece, place in zip(reversed(new), reversed(old), strict=True):  # the weights before what names them
                piece.replace(place)
        except BaseException:
            _remove(target)
            raise
    logger.info(
        f"{target.name}: {parity.megabytes:.1f} MB, least cosine {parity.min_cosine:.4f}, Spearman {parity.score:.2f} "
        f"({parity.score_change:+.2f}), {parity.sentences_per_second:,.0f} sentences/s"
    )


def _remove(target: Path) -> None:
    for piece in pieces(target):
        piece.unlink(missing_ok=True)
