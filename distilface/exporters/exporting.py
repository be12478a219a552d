"""A model folder as ONNX and OpenVINO files beside its weights, each written only where its vectors are the folder's.

The encoder reads ``input_ids`` and ``attention_mask`` of any batch and length, and gives ``last_hidden_state`` (the
token vectors that the folder's pooling reads, so that a runtime that pools by itself meets the same embedding) and
``sentence_embedding`` (pooling, ``Dense`` and ``Normalize`` included).
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.data.texts import read_texts
from distilface.environment import environment
from distilface.exporters.formats import FORMATS, Format, installed_formats
from distilface.exporters.onnx import to_onnx
from distilface.exporters.parity import Parity, compare
from distilface.model.folder import Folder, open_folder
from distilface.runtimes.encoders import INPUTS, OnnxEncoder, parts
from distilface.runtimes.extras import ONNX
from distilface.settings import InputError, check_known
from distilface.storage import write_whole

__all__ = ["FORMATS", "Format", "OnnxEncoder", "Parity", "compare", "export", "installed_formats", "read_record"]

#: The results of an export, in the folder.
RECORD = "export.json"
#: Sentences that set the scales of static int8 activations; NNCF's own number.
CALIBRATION = 300


def export(
    path: str | Path | Folder,
    pairs: Dataset,
    formats: Sequence[str] | None = None,
    calibration: Sequence[str] = ("python",),
) -> dict[str, Parity]:
    """Write the files of a model folder that pass, and what was measured in ``export.json``.

    A file that is there already is replaced where the new one passes, and removed where it does not: it is of older
    weights, or would be refused today.

    Args:
        path: a model folder.
        pairs: scored pairs to measure on, from :func:`distilface.data.pairs.read_sts`.
        formats: names of :data:`FORMATS`; ``None`` takes those whose packages are installed.
        calibration: text that sets the scales of static int8 (:func:`distilface.data.texts.read_texts`); what
            stands in ``pairs`` too is left out of it.

    Returns:
        For each format what was found, with the reason where it was refused.

    Raises:
        InputError: on an unknown format, a folder that is no whole model, missing packages, or no calibration text.
    """
    names = _chosen(formats)
    folder = open_folder(path)
    model, found = folder.model, {}
    texts = [*pairs["sentence1"], *pairs["sentence2"]]
    samples = calibration_samples(model, calibration, texts) if any(FORMATS[name].calibrated for name in names) else []
    wanted = np.asarray(model.encode(texts, prompt=""), np.float32)  # a file knows nothing of a default prompt
    print(f"{len(names)} formats, each of {len(texts):,} sentences", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder.path.resolve().parent, prefix=".") as temporary:
        source = Path(temporary) / "source.onnx"
        to_onnx(model, source)
        for name in names:
            form = FORMATS[name]
            made = Path(temporary) / f"{name}{Path(form.file).suffix}"
            form.make(source, made, *([samples] if form.calibrated else []))
            found[name] = compare(made, model, pairs, wanted, form.exact)
            _put(made, folder.path / form.file, found[name])
            _record(folder, found, len(pairs))
    return found


def _chosen(formats: Sequence[str] | None) -> Sequence[str]:
    """Return the formats asked for, or those that can be made, saying which are left out."""
    ONNX.check()  # whatever is made, it is made of an ONNX file
    if formats is None:
        for name, form in FORMATS.items():
            if missing := form.extra.missing:
                needed = f"{', '.join(missing)} (pip install 'distilface[{form.extra.name}]')"
                print(f"left out: {name}, which needs {needed}", file=sys.stderr)
        return installed_formats()
    check_known(formats, list(FORMATS), "format")
    for name in formats:
        FORMATS[name].extra.check()
    return formats


def calibration_samples(
    model: SentenceTransformer, sources: Sequence[str], measured: Sequence[str]
) -> list[dict[str, Any]]:
    """Tokenise text that sets the scales of activations, each sentence alone: of none that the file is judged by.

    Raises:
        InputError: if there is no other text.
    """
    texts = read_texts(sources, CALIBRATION)["text"][:]
    kept = [text for text in texts if text not in set(measured)]
    if not kept:
        raise InputError(
            f"all {len(texts)} sentences of --calibration {' '.join(sources)} stand in the scored pairs; give others"
        )
    most: Any = {"truncation": True, "max_length": model.max_seq_length, "return_tensors": "np"}
    tokens = (model.tokenizer([text], **most) for text in kept)
    return [{name: row[name].astype(np.int64) for name in INPUTS} for row in tokens]


def _put(made: Path, place: Path, parity: Parity) -> None:
    """Put a file that passed in its place, all its parts or none, and say what was found."""
    if parity.refused:
        _remove(place)
        print(f"{place.name}: not written: {parity.refused}", file=sys.stderr)
        return
    place.parent.mkdir(exist_ok=True)
    new, old = parts(made), parts(place)
    if len(old) == 1:
        made.replace(place)
    else:
        _remove(place)
        try:
            for part, target in zip(reversed(new), reversed(old), strict=True):  # the weights before what names them
                part.replace(target)
        except BaseException:
            _remove(place)
            raise
    print(
        f"{place.name}: {parity.megabytes:.1f} MB, least cosine {parity.min_cosine:.4f}, Spearman {parity.score:.2f} "
        f"({parity.score_change:+.2f}), {parity.sentences_per_second:,.0f} sentences/s",
        file=sys.stderr,
    )


def _remove(place: Path) -> None:
    for part in parts(place):
        part.unlink(missing_ok=True)


def read_record(folder: Folder) -> dict[str, Any]:
    """Return the results of a folder's exports, if they are of the weights that it has now; otherwise nothing."""
    file = folder.path / RECORD
    if not file.is_file():
        return {}
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record if folder.has_fingerprint(record.get("fingerprint")) else {}


def _record(folder: Folder, found: dict[str, Parity], pairs: int) -> None:
    files = read_record(folder).get("files", {})
    files |= {FORMATS[name].file: {"what": FORMATS[name].what, **asdict(parity)} for name, parity in found.items()}
    record = {
        "fingerprint": folder.fingerprint,
        "pairs": pairs,
        "files": files,
        **environment("onnxruntime", "openvino", "nncf"),
    }
    write_whole(folder.path / RECORD, record, indent=2)
