"""A model's files as older sentence-transformers, transformers 4, fastembed and TEI read them.

sentence-transformers 5.4 renamed its classes and the keys of its settings, and its older versions fail on the
new names; every version reads the old ones.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding, WeightedLayerPooling
from tokenizers import Tokenizer
from torch import float32, nn

from distilface.json_files import read_json
from distilface.model.families import published_length
from distilface.model.static import check_static, is_static, rewrite_static_tokenizer
from distilface.settings import InputError
from distilface.storage import write_json

_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_OLDER_KEYS: dict[type[nn.Module], set[str]] = {
    Pooling: {"word_embedding_dimension", "include_prompt", *_FLAGS.values()},
    WeightedLayerPooling: {"word_embedding_dimension", "layer_start", "num_hidden_layers"},
    Dense: {"in_features", "out_features", "bias", "activation_function"},
    Normalize: set(),
}
#: Settings that the newer versions write and the older ones take for granted.
_FOR_GRANTED: dict[type[nn.Module], dict[str, Any]] = {
    Transformer: {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
        "module_output_name": "token_embeddings",
    },
    Dense: {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    Normalize: {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
}
#: Settings of a tokenizer that name the machine it was loaded on, or the length it last cut to.
_LEAKED = {
    *("is_local", "local_files_only", "name_or_path", "tokenizer_file", "special_tokens_map_file"),
    *("max_length", "stride", "truncation_strategy", "pad_to_multiple_of"),
}
_SPECIAL_TOKENS = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token")
#: Keys that say which version wrote a settings file; the vectors do not depend on them.
_WRITERS = ("__version__", "transformers_version")


def older_fingerprint(folder: Path, files: Sequence[Path]) -> str:
    """Return the fingerprint that distilface 0.1 wrote into ``export.json`` and README.md: sha256 of the model's files.

    Args:
        folder: a model folder.
        files: those of its files that decide the vectors, in the order of the modules.
    """
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".json":
            settings = read_json(file)
            if isinstance(settings, dict):
                settings = {key: value for key, value in settings.items() if key not in _WRITERS}
            content = json.dumps(settings, sort_keys=True).encode()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def portable_configs(model: SentenceTransformer, max_seq_length: int | None = None) -> list[dict[str, Any]]:
    """Return the settings of each module of ``model`` under the names that every version reads.

    Args:
        model: an encoder of transformers, or a static one, and modules of sentence-transformers.
        max_seq_length: tokens that the published model reads at most; ``None`` takes the model's own.

    Raises:
        InputError: if a module is not sentence-transformers' own or not known to its older versions, or the
            length is more than the encoder has positions, or the model names none.
    """
    transformer: Any = model[0]
    first, others = (StaticEmbedding, [Normalize]) if is_static(model) else (Transformer, list(_OLDER_KEYS))
    for place, module in enumerate(model):
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        if not kind.startswith("sentence_transformers."):
            raise InputError(f"{kind} is not a module of sentence-transformers: the folder would need remote code")
        if type(module) not in ([first] if place == 0 else others):
            names = ", ".join(known.__name__ for known in others)
            raise InputError(f"{kind} cannot be module {place} of a portable folder: {first.__name__}, then {names}")
    if is_static(model):
        check_static(model, max_seq_length)
        return [{} for _ in model]
    encoder = transformer.model
    if not type(encoder).__module__.startswith("transformers.models."):
        raise InputError(f"{type(encoder).__name__} is not an encoder of transformers: it would need remote code")
    length = published_length(transformer, max_seq_length)
    return [_portable_config(module, length) for module in model]


def _portable_config(module: Any, length: int) -> dict[str, Any]:
    """Return one module's settings under the older names; ``length`` is the published max_seq_length."""
    name, config = type(module).__name__, dict(module.get_config_dict())
    config.pop("unpad_inputs", None)
    for key, value in _FOR_GRANTED.get(type(module), {}).items():
        if config.get(key) == value:
            del config[key]
    if "embedding_dimension" in config:
        config = {"word_embedding_dimension": config.pop("embedding_dimension"), **config}
    if isinstance(module, Pooling):
        config = _older_pooling(config)
    if extra := set(config) - _OLDER_KEYS.get(type(module), set()):
        raise InputError(f"{name} with {', '.join(sorted(extra))} cannot be written portably")
    if isinstance(module, Dense) and not config["activation_function"].startswith("torch.nn.modules."):
        raise InputError(f"activation {config['activation_function']} is not torch's: it would need remote code")
    if isinstance(module, Transformer):
        return {"max_seq_length": length, "do_lower_case": bool(module.do_lower_case)}
    return config


def _older_pooling(config: dict[str, Any]) -> dict[str, Any]:
    """Turn the list of pooling modes into a flag for each; flags are always joined in one order."""
    mode = config.pop("pooling_mode")
    modes = [mode] if isinstance(mode, str) else list(mode)
    if modes != [name for name in _FLAGS if name in modes]:
        raise InputError(f"pooling {', '.join(modes)} cannot be written portably; the order is {', '.join(_FLAGS)}")
    include = config.pop("include_prompt")
    return config | {flag: name in modes for name, flag in _FLAGS.items()} | {"include_prompt": include}


def make_portable(folder: Path, model: SentenceTransformer, configs: list[dict[str, Any]]) -> None:
    """Rewrite the files that ``model.save_pretrained(folder)`` has written.

    Args:
        folder: a folder just written.
        model: the model in it.
        configs: its :func:`portable_configs`.
    """
    entries = read_json(folder / "modules.json")
    rewrite_modules([folder / entry["path"] for entry in entries], model, configs)
    for entry, module in zip(entries, model, strict=True):
        entry["type"] = older_name(module)
    write_json(folder / "modules.json", entries)
    store_in_fp32(folder)


def older_name(module: nn.Module) -> str:
    """Return the class of a module by the name that every version knows."""
    return f"sentence_transformers.models.{type(module).__name__}"


def rewrite_modules(places: Sequence[Path], model: SentenceTransformer, configs: list[dict[str, Any]]) -> None:
    """Rewrite the settings and the tokenizer that a model's modules have written.

    Args:
        places: the folder of each module, the encoder's first.
        model: the model in them.
        configs: its :func:`portable_configs`.
    """
    for number, (place, config) in enumerate(zip(places, configs, strict=True)):
        if number or not is_static(model):
            write_json(place / ("config.json" if number else "sentence_bert_config.json"), config)
    if is_static(model):
        rewrite_static_tokenizer(places[0])
    else:
        _rewrite_encoder(places[0], layers=any(isinstance(m, WeightedLayerPooling) for m in model))
        _rewrite_tokenizer(places[0], model[0], configs[0]["max_seq_length"])


def store_in_fp32(folder: Path) -> None:
    """Write all weights of a folder as fp32, as readable as its ``modules.json``."""
    mode = (folder / "modules.json").stat().st_mode
    for file in folder.rglob("*.safetensors"):
        weights = load_file(file)
        if any(w.is_floating_point() and w.dtype != float32 for w in weights.values()):
            weights = {name: w.float() if w.is_floating_point() else w for name, w in weights.items()}
            save_file(weights, file, metadata={"format": "pt"})
        file.chmod(mode)  # safetensors makes its files readable by their owner alone


def _rewrite_encoder(folder: Path, layers: bool) -> None:
    """Drop paths and settings of a training from the encoder's config; with ``layers`` it returns all hidden states."""
    config = read_json(folder / "config.json")
    for key in ("_name_or_path", "output_hidden_states", "output_attentions", "torch_dtype"):
        config.pop(key, None)
    config |= {"dtype": "float32"} | ({"output_hidden_states": True} if layers else {})
    # TEI's ONNX backend reads these two by their common names, which DistilBERT does not have.
    common = {"hidden_size": config.get("dim"), "num_hidden_layers": config.get("n_layers")}
    config |= {name: value for name, value in common.items() if name not in config and value is not None}
    write_json(folder / "config.json", dict(sorted(config.items())))


def _rewrite_tokenizer(folder: Path, transformer: Any, length: int) -> None:
    """Write the published length, the inputs that the encoder takes, and the special tokens' own file."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{type(transformer.tokenizer).__name__} has no tokenizer.json; use a fast tokenizer")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.save(str(path), pretty=False)  # a third smaller, and a part of what a user downloads
    config = read_json(folder / "tokenizer_config.json")
    config = {key: value for key, value in config.items() if key not in _LEAKED}
    config["model_max_length"] = length
    if config.get("tokenizer_class") == "TokenizersBackend":  # the name that transformers 4 does not know
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
    if transformer.model.config.model_type == "distilbert":
        config["model_input_names"] = ["input_ids", "attention_mask"]
    write_json(folder / "tokenizer_config.json", dict(sorted(config.items())))
    tokens = {name: getattr(transformer.tokenizer, name, None) for name in _SPECIAL_TOKENS}
    write_json(folder / "special_tokens_map.json", {name: str(token) for name, token in tokens.items() if token})
