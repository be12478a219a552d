"""Packages that an extra installs: whether they are there, and how they are imported without side effects."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from distilface.settings import InputError

_TELEMETRY = "openvino_telemetry"


@dataclass(frozen=True)
class Extra:
    """Packages that something needs beyond those that distilface always has, and the extra that installs them.

    They are imported where they are used: some change ``sys.path`` or the logging as they are imported.
    """

    what: str
    packages: tuple[str, ...]
    name: str

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def check(self) -> None:
        """Make sure that all are installed.

        Raises:
            InputError: naming those that are not.
        """
        if missing := self.missing:
            raise InputError(f"{self.what} need {', '.join(missing)}; pip install 'distilface[{self.name}]'")


ONNX = Extra("ONNX files", ("onnx", "onnxruntime", "onnxscript"), "onnx")
OPENVINO = Extra("OpenVINO files", ("openvino",), "openvino")
OPENVINO_INT8 = Extra("int8 files of OpenVINO", ("openvino", "nncf"), "openvino")
RAY = Extra("the workers of --engine ray", ("ray",), "ray")


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Keep an import from reporting itself over the network, and from changing the class of every later logger.

    OpenVINO and NNCF send their use to Google Analytics from the first import on, unasked; where the package of
    their telemetry cannot be imported, they send nothing. One that the user's program has imported is left alone.
    """
    logger = logging.getLoggerClass()
    foreign = _TELEMETRY in sys.modules
    if not foreign:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.setLoggerClass(logger)
        if not foreign:
            del sys.modules[_TELEMETRY]


def import_silent(name: str) -> ModuleType:
    """Import ``openvino`` or ``nncf`` without its telemetry."""
    with _as_it_was():
        return importlib.import_module(name)
