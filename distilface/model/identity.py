"""What tells one model from another."""

import hashlib
import json
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from distilface.model.prompts import tokenizer_rules

#: The parts of an encoder's configuration that say where it came from, not what it computes.
_UNRELATED = ("_name_or_path", "transformers_version", "dtype", "architectures", "use_cache")


def weights_id(model: SentenceTransformer) -> str:
    """Return the sha256, in hex, of everything that decides a model's vectors.

    That is its weights, its modules and their settings (two poolings over one encoder have the same weights), the
    encoder's configuration, the tokenizer, the maximum length and the prompts.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)} ".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps(_described(model), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _described(model: SentenceTransformer) -> list[Any]:
    modules: list[Any] = list(model)
    config = getattr(getattr(modules[0], "auto_model", None), "config", None)
    words = tokenizer_rules(model) or {"vocab": model.tokenizer.get_vocab()}  # type: ignore[attr-defined]
    return [
        [[type(module).__name__, module.get_config_dict()] for module in modules],
        {k: v for k, v in config.to_dict().items() if k not in _UNRELATED} if config else None,
        words,
        [model.max_seq_length, model.prompts, model.default_prompt_name, model.truncate_dim],
    ]
