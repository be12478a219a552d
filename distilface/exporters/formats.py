"""How each exported file is made, and what it must keep."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from distilface.exporters.four_bits import to_q4
from distilface.exporters.openvino import to_openvino, to_openvino_int8
from distilface.exporters.smaller import to_fp16, to_int8, to_int8_weights
from distilface.extras import Extra
from distilface.runtimes.extras import ONNX, OPENVINO, OPENVINO_INT8


@dataclass(frozen=True)
class Format:
    """How one exported file is made.

    Attributes:
        make: writes the second path from the first, the fp32 ONNX file; if calibrated, from samples of inputs too.
        exact: whether every vector must be the folder's, or only the score (:mod:`distilface.exporters.parity`).
        extra: the packages that make it.
        calibrated: whether it is made with samples of inputs.
        rounded: whether it is made of the model with its weights on the 4-bit grid.
        weights: the types in which its matrices may be stored (:mod:`distilface.exporters.contents`).
    """

    make: Callable[..., Any]
    exact: bool = False
    extra: Extra = ONNX
    calibrated: bool = False
    rounded: bool = False
    weights: frozenset[str] = frozenset({"int8", "uint8"})

    @property
    def reads_text(self) -> bool:
        """Whether it is made by what text gives in the model."""
        return self.calibrated or self.rounded


#: By the names of :data:`distilface.runtimes.files.FILES`, which has their paths.
FORMATS = {
    "onnx": Format(shutil.copyfile, exact=True, weights=frozenset({"float"})),
    "fp16": Format(to_fp16, weights=frozenset({"float16"})),
    "quantized": Format(partial(to_int8, signed=False)),
    "int8": Format(to_int8_weights),
    "q4": Format(to_q4, rounded=True, weights=frozenset({"int4", "int8", "uint8", "float16"})),
    "vnni": Format(partial(to_int8, signed=True)),
    "avx2": Format(partial(to_int8, signed=False)),
    "arm64": Format(partial(to_int8, signed=True)),
    "openvino": Format(to_openvino, exact=True, extra=OPENVINO, weights=frozenset({"float16"})),
    "openvino-int8": Format(to_openvino_int8, extra=OPENVINO_INT8, calibrated=True),
}
