"""The extras of the runtimes, and how their packages are imported without side effects."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from types import ModuleType

from distilface.extras import Extra

_TELEMETRY = "openvino_telemetry"


ONNX = Extra("ONNX files", ("onnx", "onnxruntime", "onnxscript"), "onnx")
OPENVINO = Extra("OpenVINO files", ("openvino",), "openvino")
OPENVINO_INT8 = Extra("int8 files of OpenVINO", ("openvino", "nncf"), "openvino")
RAY = Extra("the workers of --engine ray", ("ray",), "ray")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep an import from reporting itself over the network, and from changing the class of every later logger.

    OpenVINO and NNCF send their use to Google Analytics from the first import on, unasked; where the package of
    their telemetry cannot be imported, they send nothing. If the user's program has imported it, it is left alone.
    """
    logger = logging.getLoggerClass()
    imported = _TELEMETRY in sys.modules
    if not imported:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.setLoggerClass(logger)
        if not imported:
            del sys.modules[_TELEMETRY]


def import_silent(name: str) -> ModuleType:
    """Import ``openvino`` or ``nncf`` without its telemetry."""
    with _silenced():
        return importlib.import_module(name)
