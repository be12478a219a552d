"""What a model folder tells of itself to its card: the shape of the model, and what its exports have shown."""

import json
from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from distilface.cards.training import machine
from distilface.model.folder import Folder
from distilface.model.pooling import is_normalized, pooling_code
from distilface.model.prompts import default_prompt
from distilface.runtimes.files import FILES, read_exports

#: Least cosine of a text alone to itself in a batch, of a file that rounds as fp32 does.
ONE_VECTOR = 0.9999
_POOLINGS = {"mean": "the mean of the token vectors", "cls": "the first token's vector"}
#: Encoders of Text Embeddings Inference's own, which need no ONNX file.
_SERVED = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "modernbert")


def shape_of(folder: Folder, model: SentenceTransformer) -> dict[str, Any]:
    """Tell what the weights and the modules tell; ``pooled`` is the pooling, if a runtime can do the rest by itself."""
    pooling = next(module for module in model if isinstance(module, Pooling))
    modes = [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)
    layers = [module for module in model if isinstance(module, WeightedLayerPooling)]
    dense = any(isinstance(module, Dense) for module in model)
    words = " and ".join(_POOLINGS.get(mode, f"`{mode}`") for mode in modes)
    words += ", each the mean of the last four layers'" if layers else ""
    return {
        "parameters": folder.parameters,
        "megabytes": folder.megabytes,
        "dimension": model.get_embedding_dimension(),
        "length": model.max_seq_length,
        "pooling": words + (", then a linear layer" if dense else ""),
        "pooled": modes[0] if modes in (["mean"], ["cls"]) and not dense else None,
        "normalized": is_normalized(model),
        "code": pooling_code(model),
        "prompt": json.dumps(default_prompt(model)) if default_prompt(model) else None,
        "prompt_name": model.default_prompt_name,
        "layers": bool(layers),
        "served": _served(model, modes),
        "padding": {"id": model.tokenizer.pad_token_id, "token": json.dumps(model.tokenizer.pad_token)},
    }


def _served(model: SentenceTransformer, modes: Sequence[str]) -> str | None:
    """Tell what Text Embeddings Inference reads of a model: its weights, or only its ONNX file; ``None`` is neither."""
    if list(modes) not in (["mean"], ["cls"]) or any(isinstance(module, WeightedLayerPooling) for module in model):
        return None
    ends = [type(module.activation_function) for module in model if isinstance(module, Dense)]
    encoder: Any = model[0]
    own = encoder.model.config.model_type in _SERVED and set(ends) <= {nn.Tanh, nn.Identity}
    return "weights" if own else "onnx"


def exports_of(folder: Folder) -> dict[str, Any]:
    """Tell what the exports have shown, and which of them are there."""
    record = read_exports(folder)
    found = [{"file": file, **row} for file, row in record.get("files", {}).items()]
    there = {row["file"] for row in found if not row["refused"] and (folder.path / row["file"]).is_file()}
    return {
        "rows": found,
        "rates": _rates([row for row in found if row["file"] in there]),
        "there": there,
        "pairs": record.get("pairs"),
        "machine": machine(record),
        "fp32": FILES["onnx"].path in there,
        "q8": FILES["quantized"].path in there,
        "int8": FILES["int8"].path in there,
        "openvino": FILES["openvino"].path in there,
        "openvino8": FILES["openvino-int8"].path in there,
        "batch_matters": any(row["min_alone"] < ONE_VECTOR and row["file"] in there for row in found),
    }


def _rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ONNX file in fp32, and the one that was fastest; those whose rate was measured."""
    measured = [row for row in rows if row["sentences_per_second"]]
    exact = [row for row in measured if row["file"] == FILES["onnx"].path]
    fastest = sorted(measured, key=lambda row: row["sentences_per_second"])[-1:]
    return exact + [row for row in fastest if row not in exact]
