"""Any encoder as a model of mteb."""

import warnings
from typing import Any

import numpy as np
from datasets import Dataset
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from torch.utils.data import DataLoader

from distilface.runtimes.base import Encoder
from distilface.runtimes.torch import TorchEncoder

#: The prompts that sentence-transformers takes for a query or a document where the task has none of its own.
ROLES = {PromptType.query: ("query",), PromptType.document: ("document", "passage", "corpus")}


class MtebModel(SentenceTransformerEncoderWrapper):
    """An encoder as mteb calls it; a sentence of the STS tasks is embedded once, in however many pairs it stands.

    Of the 47,700 sentences of the seven tasks 26,771 are different: nearly half of the time. The sentences of a model
    with prompts, which may depend on the task, and of tasks of other types are embedded as they come.
    """

    def __init__(self, encoder: Encoder) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="mteb")
            super().__init__(encoder.model)
        self.encoder = encoder
        self._known: dict[str, np.ndarray] = {}

    def encode(self, inputs: DataLoader, *, task_metadata: Any, **kwargs: Any) -> Any:
        """Return the embeddings of all sentences of ``inputs``, shape (sentences, dimension)."""
        if task_metadata.type != "STS" or any((self.model_prompts or {}).values()):
            return self._embed(inputs, task_metadata=task_metadata, **kwargs)
        texts = [text for batch in inputs for text in batch["text"]]
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            rows = DataLoader(Dataset.from_dict({"text": new}), batch_size=1000)  # type: ignore[arg-type]
            vectors = self._embed(rows, task_metadata=task_metadata, **kwargs)
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])

    def _embed(self, inputs: DataLoader, **kwargs: Any) -> Any:
        if isinstance(self.encoder, TorchEncoder):
            with self.encoder.autocast():
                return super().encode(inputs, **kwargs)
        prompt, size = self._prompt(kwargs["task_metadata"], kwargs.get("prompt_type")), kwargs.get("batch_size", 32)
        texts = [text for batch in inputs for text in batch["text"]]
        embeddings = np.empty((len(texts), self.encoder.dimension), np.float32)
        # The batches of SentenceTransformer.encode, longest texts first: in other batches a file of dynamic int8 has
        # other vectors, and so other scores than those that were published.
        order = np.argsort([-len(text) for text in texts])
        for rows in (order[start : start + size] for start in range(0, len(order), size)):
            embeddings[rows] = self.encoder.encode([texts[row] for row in rows], size, prompt)
        return embeddings

    def _prompt(self, task_metadata: Any, prompt_type: PromptType | None) -> str:
        """Return the prompt that mteb and sentence-transformers would choose: the task's, the role's, the default."""
        model = self.encoder.model
        own = self.get_prompt_name(task_metadata, prompt_type)
        names = [own] if own else [*(ROLES[prompt_type] if prompt_type else ()), model.default_prompt_name or ""]
        return next((model.prompts[name] or "" for name in names if name in model.prompts), "")
