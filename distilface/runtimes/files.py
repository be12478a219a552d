"""The exported files of a model folder: their names, their precision, and the report of their export."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilface.model.folder import Folder

#: The report of an export, in the model folder.
REPORT = "export.json"


@dataclass(frozen=True)
class ExportFile:
    """One exported file.

    Attributes:
        path: in the model folder; for OpenVINO the ``.xml``, whose ``.bin`` lies beside it.
        precision: in which its matrix products are computed.
        what: in words, for people.
    """

    path: str
    precision: str
    what: str


#: By the names of their formats; the paths are those that transformers.js and sentence-transformers look for.
FILES = {
    "onnx": ExportFile("onnx/model.onnx", "fp32", "fp32"),
    "fp16": ExportFile("onnx/model_fp16.onnx", "fp16", "fp16, for GPUs"),
    "quantized": ExportFile("onnx/model_quantized.onnx", "int8", "dynamic int8, for browsers"),
    "int8": ExportFile("onnx/model_int8.onnx", "fp32", "int8 weights, the rest fp32"),
    "q4": ExportFile("onnx/model_q4.onnx", "fp32", "4 bits, for browsers"),
    "vnni": ExportFile("onnx/model_qint8_avx512_vnni.onnx", "int8", "dynamic int8, x86 with VNNI"),
    "avx2": ExportFile("onnx/model_quint8_avx2.onnx", "int8", "dynamic int8, older x86"),
    "arm64": ExportFile("onnx/model_qint8_arm64.onnx", "int8", "dynamic int8, ARM"),
    "openvino": ExportFile("openvino/openvino_model.xml", "fp32", "fp32, weights kept in fp16"),
    "openvino-int8": ExportFile("openvino/openvino_model_qint8_quantized.xml", "int8", "static int8"),
}


def precision_of(file: Path) -> str:
    """Return the precision of an exported file, which its name says; ``unknown`` for a name not in :data:`FILES`."""
    return next((known.precision for known in FILES.values() if Path(known.path).name == file.name), "unknown")


def pieces(file: Path) -> tuple[Path, ...]:
    """Return the files of one export: an OpenVINO description has its weights beside it."""
    return (file, file.with_suffix(".bin")) if file.suffix == ".xml" else (file,)


def megabytes(file: Path) -> float:
    """Return the size of an export on disk, with all its pieces, in 10^6 bytes."""
    return round(sum(piece.stat().st_size for piece in pieces(file)) / 1e6, 2)


def digest(file: Path) -> str:
    """Return the sha256, in hex, of an export, with all its pieces."""
    content = hashlib.sha256()
    for piece in pieces(file):
        content.update(piece.read_bytes())
    return content.hexdigest()


def file_fingerprint(folder: str, file: Path, words: str = "") -> str:
    """Return the sha256, in hex, of an export and of its folder's model, which has the tokenizer and the prompts.

    Args:
        folder: the :func:`distilface.model.identity.fingerprint` of the folder's model.
        file: the export.
        words: how it is run, if not on its own runtime.
    """
    return hashlib.sha256(f"{folder} {digest(file)} {words}".rstrip().encode()).hexdigest()


def read_exports(folder: Folder) -> dict[str, Any]:
    """Return the report of a folder's exports, if they are of the weights that it has now; otherwise nothing."""
    file = folder.path / REPORT
    if not file.is_file():
        return {}
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report if folder.has_fingerprint(report.get("fingerprint")) else {}
