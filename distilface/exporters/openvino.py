"""How OpenVINO's files are made from an ONNX file in fp32: a description (``.xml``) with its weights (``.bin``)."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilface.console import quiet_logger
from distilface.extras import import_silent
from distilface.light.openvino import openvino_core

#: SmoothQuant's alpha, from 0 to 1 (arXiv 2211.10438, Eq. 4). Of 0.5, 0.75 and NNCF's own 0.95 it is the one whose
#: worst short sentence came nearest to its fp32 vector, with three layers of all-MiniLM-L6-v2.
SMOOTHING = 0.75


def to_openvino(source: Path, target: Path) -> None:
    """Write an ONNX file in fp32 as OpenVINO's: the weights are stored in fp16, and computed with in fp32.

    Args:
        source: in fp32.
        target: the ``.xml``; its ``.bin`` is written beside it.
    """
    openvino = import_silent("openvino")
    openvino.save_model(openvino_core().read_model(str(source)), str(target), compress_to_fp16=True)


def to_openvino_int8(source: Path, target: Path, samples: Sequence[dict[str, np.ndarray]]) -> None:
    """Write an ONNX file in fp32 as OpenVINO's in int8, weights and activations, by NNCF's static quantisation.

    The scales of the activations are fixed here, so that a sentence has one embedding in every batch. Three things
    differ from NNCF's defaults: how much of the activations' outliers the weights take over (:data:`SMOOTHING`);
    scales that cover every sample, not the average of them; and the attention's products with the values, which stay in
    fp32: attention that is spread over 512 tokens gives each less than half of an int8 step, which would round to zero.

    Args:
        source: in fp32.
        target: the ``.xml``; its ``.bin`` is written beside it.
        samples: inputs whose activations set the scales, by name, each of shape (1, T).
    """
    openvino, nncf = import_silent("openvino"), import_silent("nncf")
    model: Any = openvino_core().read_model(str(source))
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
    products, seen = set(), set()
    while nodes:
        for output in nodes.pop().outputs():
            for node in (target.get_node() for target in output.get_target_inputs()):
                name = node.get_friendly_name()
                if node.get_type_name() == "MatMul":
                    products.add(name)
                elif name not in seen:
                    nodes.append(node)
                seen.add(name)
    return sorted(products)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep NNCF's progress bars and remarks off the standard output, which is for results."""
    with quiet_logger("nncf"), contextlib.redirect_stdout(io.StringIO()):
        yield
