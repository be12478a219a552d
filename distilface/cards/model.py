"""The model itself in the words of its card: the shape of the model, and the results of its exports."""

import json
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from distilface.cards.training import machine_text
from distilface.light.files import VARIANTS
from distilface.model.dimensions import cut_to, whole_width, with_cut
from distilface.model.families import auto_class
from distilface.model.folder import Folder
from distilface.model.pooling import is_normalized, pooling_code
from distilface.model.prompts import default_prompt
from distilface.model.static import is_static, length_limit, static_code
from distilface.runtimes.base import file_refusal
from distilface.runtimes.files import FILES, read_exports

#: Least cosine of a text alone to itself in a batch, of a file that rounds as fp32 does.
ONE_VECTOR = 0.9999
_POOLINGS = {"mean": "the mean of the token vectors", "cls": "the first token's vector"}
#: Encoders that Text Embeddings Inference has code for, and needs no ONNX file of.
_SERVED = ("bert", "distilbert", "roberta", "xlm-roberta", "camembert", "mpnet", "modernbert")


def shape_section(folder: Folder) -> dict[str, Any]:
    """Return what the card says of the model's shape; ``pooled`` is a pooling that every runtime knows by name."""
    model = folder.model
    common = {
        "parameters": folder.parameters,
        "megabytes": folder.megabytes,
        "dimension": model.get_embedding_dimension(),
        "of_dimension": whole_width(model) if cut_to(model) else None,
        "normalized": is_normalized(model),
        "length": length_limit(model),
        "prompt": json.dumps(default_prompt(model)) if default_prompt(model) else None,
        "prompt_name": model.default_prompt_name,
        "static": is_static(model),
    }
    return common | (_static_shape(model) if is_static(model) else _transformer_shape(model))


def _static_shape(model: SentenceTransformer) -> dict[str, Any]:
    """Return the shape of a static model, which no runtime knows by a name of its pooling."""
    return {
        "pooling": "the mean of the vectors of its pieces",
        "pooled": None,
        "code": with_cut(model, static_code(model)),
        "layers": False,
        "served": None,
        "padding": {"id": 0, "token": json.dumps(model.tokenizer.id_to_token(0))},
    }


def _transformer_shape(model: SentenceTransformer) -> dict[str, Any]:
    """Return the shape of a model with a transformer inside."""
    transformer: Any = model[0]
    pooling = next(module for module in model if isinstance(module, Pooling))
    modes = [pooling.pooling_mode] if isinstance(pooling.pooling_mode, str) else list(pooling.pooling_mode)
    layers = any(isinstance(module, WeightedLayerPooling) for module in model)
    dense = any(isinstance(module, Dense) for module in model)
    words = " and ".join(_POOLINGS.get(mode, f"`{mode}`") for mode in modes)
    words += ", each the mean of the last four layers'" if layers else ""
    return {
        "pooling": words + (", then a linear layer" if dense else ""),
        # A runtime that pools by itself gives all the numbers.
        "pooled": modes[0] if modes in (["mean"], ["cls"]) and not dense and not cut_to(model) else None,
        "loader": auto_class(transformer.model),
        "code": with_cut(model, pooling_code(model)),
        "layers": layers,
        "served": _served(model) if modes in (["mean"], ["cls"]) and not layers and not cut_to(model) else None,
        "padding": {"id": model.tokenizer.pad_token_id, "token": json.dumps(model.tokenizer.pad_token)},
    }


def _served(model: SentenceTransformer) -> str:
    """Return what Text Embeddings Inference reads of a model: ``weights``, or only ``onnx``."""
    activations = {type(module.activation_function) for module in model if isinstance(module, Dense)}
    encoder: Any = model[0]
    known = encoder.model.config.model_type in _SERVED and activations <= {nn.Tanh, nn.Identity}
    return "weights" if known else "onnx"


def exports_section(folder: Folder) -> dict[str, Any]:
    """Return what the card says of the exports: their results, and which of the files are there."""
    results = read_exports(folder)
    rows = [{"file": file, **row} for file, row in results.get("files", {}).items()]
    there = {row["file"] for row in rows if not row["refused"] and (folder.path / row["file"]).is_file()}
    refusal = file_refusal(folder.model)
    if refusal:  # its files are of an older version, and passed a gate without the prompt
        there = set()
    return {
        "rows": rows,
        "rates": _rates([row for row in rows if row["file"] in there]),
        "there": there,
        "remedy": refusal or "`distilface export` writes it",
        "pairs": results.get("pairs"),
        "machine": machine_text(results.get("machine", {})),
        "light": next((FILES[name].path for name in VARIANTS if FILES[name].path in there), None),
        "fp32": FILES["onnx"].path in there,
        "q8": FILES["quantized"].path in there,
        "int8": FILES["int8"].path in there,
        "openvino": FILES["openvino"].path in there,
        "openvino8": FILES["openvino-int8"].path in there,
        "batch_matters": any(row["min_alone"] < ONE_VECTOR and row["file"] in there for row in rows),
    }


def _rates(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the ONNX file in fp32 and the fastest file, of those whose rate was measured."""
    measured = [row for row in rows if row["sentences_per_second"]]
    exact = [row for row in measured if row["file"] == FILES["onnx"].path]
    fastest = sorted(measured, key=lambda row: row["sentences_per_second"])[-1:]
    return exact + [row for row in fastest if row not in exact]
