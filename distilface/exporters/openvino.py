"""How OpenVINO's files are made, of an ONNX file in fp32: a description (``.xml``) with its weights (``.bin``)."""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilface.runtimes.extras import import_silent

#: SmoothQuant's alpha, of 0 to 1 (arXiv 2211.10438, Eq. 4): of 0.5, this and NNCF's own 0.95, that which brought the
#: farthest of short sentences nearest to its fp32 vector, of three layers of all-MiniLM-L6-v2.
SMOOTHING = 0.75


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

    The scales of the activations are fixed here, so that a sentence has one embedding in every batch. Three things are
    not as NNCF would have them: how much of the activations' outliers the weights take over (:data:`SMOOTHING`), scales
    that cover all that was seen in place of the average of it, and the attention's products with the values, which stay
    in fp32: attention that is spread over 512 tokens is to each less than half of an int8 step, and would be none.

    Args:
        source: in fp32.
        target: the ``.xml``; its ``.bin`` is written beside it.
        samples: inputs whose activations set the scales, by name, each of shape (1, T).
    """
    openvino, nncf = import_silent("openvino"), import_silent("nncf")
    model: Any = openvino.Core().read_model(str(source))
    advanced = nncf.AdvancedQuantizationParameters(
        smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
        activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
    )
    with _quiet():
        quantized = nncf.quantize(
            model,
            nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
            ignored_scope=nncf.IgnoredScope(names=_attention_products(model)),
            advanced_parameters=advanced,
        )
    openvino.save_model(quantized, str(target), compress_to_fp16=False)


def _attention_products(model: Any) -> list[str]:
    """Return the names of the products that take the result of a softmax."""
    nodes = [node for node in model.get_ops() if node.get_type_name() == "Softmax"]
    found, seen = set(), set()
    while nodes:
        for output in nodes.pop().outputs():
            for node in (target.get_node() for target in output.get_target_inputs()):
                name = node.get_friendly_name()
                if node.get_type_name() == "MatMul":
                    found.add(name)
                elif name not in seen:
                    nodes.append(node)
                seen.add(name)
    return sorted(found)


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
