"""Everything that embeds text, by one protocol: a model in torch, exported files, and a model behind an endpoint.

Imports settings, storage and model; a new runtime is a module here and a row of :data:`RUNTIMES`.
"""

from distilface.runtimes.base import Encoder, FileEncoder
from distilface.runtimes.endpoint import EndpointEncoder
from distilface.runtimes.files import FILES, read_exports
from distilface.runtimes.onnx import OnnxEncoder
from distilface.runtimes.opening import RUNTIMES, choose, open_file
from distilface.runtimes.openvino import OpenVinoEncoder
from distilface.runtimes.torch import TorchEncoder

__all__ = [
    "FILES",
    "RUNTIMES",
    "Encoder",
    "EndpointEncoder",
    "FileEncoder",
    "OnnxEncoder",
    "OpenVinoEncoder",
    "TorchEncoder",
    "choose",
    "open_file",
    "read_exports",
]
