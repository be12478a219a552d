"""A model folder as ONNX and OpenVINO files, each written only where its vectors are the folder's.

Imports settings, storage, environment, data, model and runtimes, on which the files run.
"""

from distilface.exporters.exporting import export
from distilface.exporters.formats import FORMATS
from distilface.exporters.parity import Parity, compare

__all__ = ["FORMATS", "Parity", "compare", "export"]
