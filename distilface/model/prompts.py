"""A model's own tokenizer and its default prompt: what a text is turned into before it is read."""

import json
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device


def tokenizer_rules(model: SentenceTransformer) -> dict[str, Any] | None:
    """Return all that decides the tokens of a text but its length, or ``None`` where the tokenizer cannot tell."""
    tokenizer: Any = model.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str"):
        return None
    rules: dict[str, Any] = json.loads(backend.to_str())
    return {k: v for k, v in rules.items() if k not in ("truncation", "padding")}  # each call sets these anew


def default_prompt(model: SentenceTransformer) -> str | None:
    """Return the words that ``encode`` puts before every text, or ``None``."""
    return model.prompts.get(model.default_prompt_name or "") or None


def role_prompt(model: SentenceTransformer, *roles: str) -> str:
    """Return the words that a model puts before a query or a document: of its first known role, else the default."""
    known = [role for role in roles if role in model.prompts]
    return (model.prompts[known[0]] if known else default_prompt(model)) or ""


def tokens_of(model: SentenceTransformer, texts: list[str], **limits: int) -> dict[str, Any]:
    """Tokenise text as ``encode`` does, by the model's own tokenizer and default prompt, onto its device."""
    return batch_to_device(model.preprocess(texts, prompt=default_prompt(model), **limits), model.device)
