"""Any encoder as a model of mteb."""

import warnings
from typing import Any

import numpy as np
from datasets import Dataset
from mteb.models import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from torch.utils.data import DataLoader

from distilface.console import quiet_logger
from distilface.model.dimensions import needs_length
from distilface.runtimes.base import Encoder
from distilface.runtimes.endpoint import EndpointEncoder
from distilface.runtimes.torch import TorchEncoder
from distilface.settings import InputError

#: The prompts that sentence-transformers takes for a query or a document where the task has none of its own.
ROLES = {PromptType.query: ("query",), PromptType.document: ("document", "passage", "corpus")}


class MtebModel(SentenceTransformerEncoderWrapper):
    """An encoder as mteb calls it; a sentence of the STS tasks is embedded once, in however many pairs it stands.

    Of the 47,700 sentences of the seven tasks 26,771 are different: nearly half of the time. The sentences of a model
    with prompts, which may depend on the task, and of tasks of other types are embedded as they come.
    """

    def __init__(self, encoder: Encoder) -> None:
        # mteb reports that it cannot count the table of a static model, which no score needs.
        with warnings.catch_warnings(), quiet_logger("mteb.models.model_meta"):
            warnings.filterwarnings("ignore", category=FutureWarning, module="mteb")
            super().__init__(encoder.model)
        self.encoder = encoder
        self._known: dict[tuple[str, str], np.ndarray] = {}

    def encode(self, inputs: DataLoader, *, task_metadata: Any, **kwargs: Any) -> Any:
        """Return the embeddings of all sentences of ``inputs``, shape (sentences, dimension)."""
        if task_metadata.type != "STS" or any((self.model_prompts or {}).values()):
            return self._embed(inputs, task_metadata=task_metadata, **kwargs)
        return self._once(inputs, "", task_metadata=task_metadata, **kwargs)

    def _once(self, inputs: DataLoader, prompt: str, **kwargs: Any) -> np.ndarray:
        """Embed the sentences that were not embedded yet with this prompt, and return the embeddings of all."""
        texts = [text for batch in inputs for text in batch["text"]]
        if new := [text for text in dict.fromkeys(texts) if (prompt, text) not in self._known]:
            rows = DataLoader(Dataset.from_dict({"text": new}), batch_size=1000)  # type: ignore[arg-type]
            vectors = self._embed(rows, **kwargs)
            self._known.update(((prompt, text), vector) for text, vector in zip(new, vectors, strict=True))
        return np.stack([self._known[prompt, text] for text in texts])

    def _embed(self, inputs: DataLoader, **kwargs: Any) -> Any:
        if isinstance(self.encoder, TorchEncoder):
            with self.encoder.autocast():
                more: Any = {"normalize_embeddings": True} if needs_length(self.encoder.model) else {}
                return super().encode(inputs, **kwargs, **more)
        prompt, size = self._prompt(kwargs["task_metadata"], kwargs.get("prompt_type")), kwargs.get("batch_size", 32)
        texts = [text for batch in inputs for text in batch["text"]]
        if isinstance(self.encoder, EndpointEncoder):  # a request holds what the endpoint takes
            return self.encoder.encode(texts, size, prompt)
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


class CachedModel(MtebModel):
    """An encoder as mteb calls it, in one evaluation of many tasks: a text with its prompt is embedded once."""

    def encode(self, inputs: DataLoader, *, task_metadata: Any, **kwargs: Any) -> Any:
        """Return the embeddings of all texts of ``inputs``, shape (texts, dimension).

        Raises:
            InputError: if they are not finite, or all alike: a search would then have the score of chance.
        """
        prompt = self._prompt(task_metadata, kwargs.get("prompt_type"))
        embeddings = self._once(inputs, prompt, task_metadata=task_metadata, **kwargs)
        name = task_metadata.name
        if not np.isfinite(embeddings).all():
            raise InputError(f"no score on {name}: the embeddings of {self.encoder.name} are NaN or infinite")
        if len(embeddings) > 2 and np.ptp(embeddings, axis=0).max() <= 1e-6 * np.abs(embeddings).max():
            raise InputError(f"no score on {name}: {self.encoder.name} embeds every text alike; it has collapsed")
        return embeddings


class TeacherIndex(MtebModel):
    """A student that searches what its teacher has embedded: the queries are the student's, the documents not."""

    def __init__(self, queries: CachedModel, documents: CachedModel) -> None:
        super().__init__(documents.encoder)
        self.queries, self.documents = queries, documents

    def encode(self, inputs: DataLoader, *, prompt_type: PromptType | None = None, **kwargs: Any) -> Any:
        """Return the embeddings of documents by the teacher, of queries by the student."""
        model = self.documents if prompt_type == PromptType.document else self.queries
        return model.encode(inputs, prompt_type=prompt_type, **kwargs)
