"""The model folder: how it is written, read, identified, and made of modules that every library knows.

It imports the rooms of settings, files and Hub ids, and :mod:`distilface.run`.
"""

from distilface.model.folder import Folder, load, open_folder, save_folder
from distilface.model.identity import fingerprint

__all__ = ["Folder", "fingerprint", "load", "open_folder", "save_folder"]
