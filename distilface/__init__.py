"""distilface: makes, measures and publishes small sentence encoders, on sentence-transformers.

Text goes in on the left, a small model folder comes out, and everything after that reads the folder.
"""

__version__ = "0.1.0"
