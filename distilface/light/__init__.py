"""The half of the package that runs models: a folder's ONNX file on onnxruntime, without torch or transformers.

Imports settings, storage and Hub ids; nothing here may import a room that imports torch.
"""

from distilface.light.encoder import LightEncoder

__all__ = ["LightEncoder"]
