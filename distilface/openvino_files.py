"""How OpenVINO's files are made, of an ONNX file in fp32: a description (``.xml``) with its weights (``.bin``)."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from distilface.extras import import_silent


def to_openvino(source: Path, target: Path) -> None:
    """Write an ONNX file in fp32 as OpenVINO's, the weights kept in fp16 and computed with in fp32.

    Args:
        source: in fp32.
        target: the ``.xml``; its ``.bin`` is written beside it.
    """
    openvino = import_silent("openvino")
    openvino.save_model(openvino.Core().read_model(str(source)), str(target), compress_to_fp16=True)


def to_openvino_int8(source: Path, target: Path, samples: Sequence[dict[str, np.ndarray]]) -> None:
    """Write an ONNX file in fp32 as OpenVINO's in int8, weights and activations, by NNCF's static quantisation.

    The scales of the activations are fixed here, so that a sentence has one embedding in every batch.

    Args:
        source: in fp32.
        target: the ``.xml``; its ``.bin`` is written beside it.
        samples: inputs whose activations set the scales, by name, each of shape (1, T).
    """
    openvino, nncf = import_silent("openvino"), import_silent("nncf")
    with _quiet():
        quantized = nncf.quantize(
            openvino.Core().read_model(str(source)),
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's bars and remarks off the standard output, which is for results."""
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)


def table_bytes(file: Path, shape: Sequence[int]) -> int | None:
    """Return what a table of a shape weighs in an OpenVINO file, without its scales; ``None`` if it holds none such."""
    for node in import_silent("openvino").Core().read_model(str(file)).get_ops():
        if node.get_type_name() == "Constant" and list(node.get_output_shape(0)) == list(shape):
            return int(node.get_byte_size())
    return None
