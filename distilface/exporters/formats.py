"""The table of the files that can be exported."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from distilface.exporters.onnx import to_fp16, to_int8, to_int8_weights, to_q4
from distilface.exporters.openvino import to_openvino, to_openvino_int8
from distilface.runtimes.extras import ONNX, OPENVINO, OPENVINO_INT8, Extra


@dataclass(frozen=True)
class Format:
    """One file: where it lies, how it is made of the fp32 file, and what it must keep.

    Attributes:
        file: in the folder; for OpenVINO the ``.xml``, whose ``.bin`` lies beside it.
        make: writes the second path from the first, the fp32 ONNX file; from samples of inputs too, if calibrated.
        exact: whether every vector must be the folder's, or only the score (:mod:`distilface.exporters.parity`).
        what: in words, for people.
        extra: what must be installed.
        calibrated: whether it is made with samples of inputs.
    """

    file: str
    make: Callable[..., Any]
    exact: bool
    what: str
    extra: Extra = ONNX
    calibrated: bool = False


#: What can be exported, by the names that transformers.js and sentence-transformers look for.
FORMATS = {
    "onnx": Format("onnx/model.onnx", shutil.copyfile, True, "fp32"),
    "fp16": Format("onnx/model_fp16.onnx", to_fp16, False, "fp16, for GPUs"),
    "quantized": Format(
        "onnx/model_quantized.onnx", partial(to_int8, signed=False), False, "dynamic int8, for browsers"
    ),
    "int8": Format("onnx/model_int8.onnx", to_int8_weights, False, "int8 weights, the rest fp32"),
    "q4": Format("onnx/model_q4.onnx", to_q4, False, "4 bits, for browsers"),
    "vnni": Format(
        "onnx/model_qint8_avx512_vnni.onnx", partial(to_int8, signed=True), False, "dynamic int8, x86 with VNNI"
    ),
    "avx2": Format("onnx/model_quint8_avx2.onnx", partial(to_int8, signed=False), False, "dynamic int8, older x86"),
    "arm64": Format("onnx/model_qint8_arm64.onnx", partial(to_int8, signed=True), False, "dynamic int8, ARM"),
    "openvino": Format("openvino/openvino_model.xml", to_openvino, True, "fp32, weights kept in fp16", OPENVINO),
    "openvino-int8": Format(
        "openvino/openvino_model_qint8_quantized.xml", to_openvino_int8, False, "static int8", OPENVINO_INT8, True
    ),
}


def installed_formats() -> list[str]:
    """Return the formats whose packages are installed."""
    return [name for name, form in FORMATS.items() if not form.extra.missing]
