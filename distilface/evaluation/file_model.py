"""An exported file as a ``SentenceTransformer``, for what takes nothing else, as mteb does."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from distilface.model.folder import Folder
from distilface.runtimes.encoders import INPUTS, open_file, parts
from distilface.settings import InputError


class FileModel(SentenceTransformer):
    """An exported file as a ``SentenceTransformer``: its folder's tokenizer and prompts, the file's embeddings.

    Args:
        file: that :func:`distilface.exporters.exporting.export` wrote.
        folder: its model folder.

    Raises:
        InputError: if there is no such file or no whole folder, or without the file's runtime.
    """

    def __init__(self, file: str | Path, folder: str | Path) -> None:
        self._check(Path(file))
        Folder(Path(folder)).check()
        super().__init__(str(folder), device="cpu", local_files_only=True)
        self.eval()
        self.file = Path(file)
        self.encoder = open_file(file, self)
        self._vocabulary = Path(folder) / "tokenizer.json"  # not the object, which each use changes

    @staticmethod
    def _check(file: Path) -> None:
        for part in parts(file):
            if not part.is_file():
                raise InputError(f"{part} does not exist; make it first: distilface export FOLDER")

    def forward(self, input: dict[str, Tensor], **kwargs: Any) -> dict[str, Any]:
        """Embed a batch of tokens by the file."""
        inputs = {name: input[name].numpy().astype(np.int64) for name in INPUTS}
        return {**input, "sentence_embedding": torch.from_numpy(self.encoder.embed(inputs))}

    @property
    def fingerprint(self) -> str:
        """The sha256 of the file and of how its text is tokenised, which are all that its embeddings depend on."""
        digest = hashlib.sha256(str(self.max_seq_length).encode())
        for part in (self._vocabulary, *parts(self.file)):
            digest.update(part.read_bytes())
        return digest.hexdigest()
