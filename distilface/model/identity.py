"""The fingerprint of a model: equal where the embeddings are, different where anything that decides them is."""

import hashlib
import json
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from distilface.model.prompts import tokenizer_rules

#: Keys of an encoder's configuration that say where it came from, not what it computes.
_UNRELATED = ("_name_or_path", "transformers_version", "dtype", "architectures", "use_cache")


def fingerprint(model: SentenceTransformer) -> str:
    """Return the sha256, in hex, of everything that decides a model's embeddings in fp32.

    That is its weights, its modules and their settings (two poolings over one encoder have the same weights), the
    encoder's configuration, the tokenizer, the maximum length and the prompts. Where it was loaded from, and the
    precision that its weights are stored in, do not count.
    """
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        values = weight.detach().cpu()
        values = values.float() if values.is_floating_point() else values
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(values.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    digest.update(json.dumps(_settings(model), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _settings(model: SentenceTransformer) -> list[Any]:
    modules: list[Any] = list(model)
    config = getattr(getattr(modules[0], "auto_model", None), "config", None)
    words = tokenizer_rules(model)
    if words is None and model.tokenizer is not None:  # a model behind an endpoint keeps its tokenizer to itself
        words = {"vocab": model.tokenizer.get_vocab()}
    return [
        [[type(module).__name__, module.get_config_dict()] for module in modules],
        {key: value for key, value in config.to_dict().items() if key not in _UNRELATED} if config else None,
        words,
        [model.max_seq_length, model.prompts, model.default_prompt_name, model.truncate_dim],
    ]
