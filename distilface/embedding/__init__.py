"""Embeddings on the disk, computed shard by shard: a teacher's, and those of a file of text of any size.

Imports settings, storage, data, model, runtimes and exporters; training, methods and the commands import it.
"""

from distilface.embedding.encoding import encode
from distilface.embedding.report import Encoded
from distilface.embedding.settings import EncodeSettings
from distilface.embedding.teacher_cache import embed

__all__ = ["EncodeSettings", "Encoded", "embed", "encode"]
