"""A layer cut: chosen layers of a BERT or DistilBERT encoder as a new DistilBERT."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
)

from distilface.model.families import family_name
from distilface.settings import InputError

#: Where a BERT layer's weights go in a DistilBERT layer.
BERT_LAYER = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def check_foldable(config: Any) -> None:
    """Refuse an encoder whose computation a DistilBERT cannot repeat."""
    kind = config.model_type
    if kind not in ("bert", "distilbert"):
        raise InputError(
            f"{family_name(config)} cannot be cut into a DistilBERT; layers can be cut from bert or distilbert"
        )
    if kind == "distilbert":
        return
    position = getattr(config, "position_embedding_type", None) or "absolute"
    if position != "absolute":
        raise InputError(f"{position} position embeddings cannot be folded into a DistilBERT; it has absolute ones")
    if config.layer_norm_eps != 1e-12:
        raise InputError(f"layer_norm_eps {config.layer_norm_eps} cannot be folded into a DistilBERT; it has 1e-12")
    if config.hidden_act not in ("gelu", "relu"):
        raise InputError(f"activation {config.hidden_act!r} cannot be folded into a DistilBERT; it has gelu or relu")
    if getattr(config, "is_decoder", False):
        raise InputError("a decoder cannot be folded into a DistilBERT; it reads in both directions")


def _distilbert_config(config: Any, layers: int) -> DistilBertConfig:
    return DistilBertConfig(
        vocab_size=config.vocab_size,
        max_position_embeddings=config.max_position_embeddings,
        n_layers=layers,
        n_heads=config.num_attention_heads,
        dim=config.hidden_size,
        hidden_dim=config.intermediate_size,
        dropout=config.hidden_dropout_prob,
        attention_dropout=config.attention_probs_dropout_prob,
        activation=config.hidden_act,
        pad_token_id=config.pad_token_id,
    )


def _renamed(weights: dict[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """Copy BERT weights under DistilBERT's names, token type 0 added to the position table."""
    cut = {
        f"embeddings.{name}": weights[f"embeddings.{name}"]
        for name in ("word_embeddings.weight", "LayerNorm.weight", "LayerNorm.bias")
    }
    token_type = weights["embeddings.token_type_embeddings.weight"][0]
    cut["embeddings.position_embeddings.weight"] = weights["embeddings.position_embeddings.weight"] + token_type
    for new, old in enumerate(layers):
        for bert, distilbert in BERT_LAYER.items():
            for part in ("weight", "bias"):
                weight = weights[f"encoder.layer.{old}.{bert}.{part}"]
                cut[f"transformer.layer.{new}.{distilbert}.{part}"] = weight
    return cut


def _selected(weights: dict[str, torch.Tensor], layers: Sequence[int]) -> dict[str, torch.Tensor]:
    """Copy the embeddings and the chosen layers of a DistilBERT."""
    cut = {name: weight for name, weight in weights.items() if name.startswith("embeddings.")}
    for new, old in enumerate(layers):
        prefix = f"transformer.layer.{old}."
        for name, weight in weights.items():
            if name.startswith(prefix):
                cut[f"transformer.layer.{new}.{name.removeprefix(prefix)}"] = weight
    return cut


def cut_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> DistilBertModel:
    """Copy chosen layers of a BERT or DistilBERT encoder into a new DistilBERT.

    The token-type embedding 0 is folded into the position embeddings and the pooler is dropped, so that a cut of
    all the layers gives the encoder's own hidden states back.

    Args:
        encoder: a ``BertModel`` or ``DistilBertModel``; it is not changed.
        layers: which layers, counted from 0 at the bottom, in the order of the student's layers; one may come twice.

    Raises:
        InputError: if the encoder is of another family, cannot be folded (relative positions, another layer-norm
            epsilon), or a layer is out of range.
    """
    config = encoder.config
    check_foldable(config)
    count = config.num_hidden_layers
    if not layers:
        raise InputError(f"no layers chosen; name at least one of 0 to {count - 1}")
    for layer in layers:
        if not 0 <= layer < count:
            raise InputError(f"layer {layer} is out of range; the encoder has layers 0 to {count - 1}")
    weights = encoder.state_dict()
    if config.model_type == "distilbert":
        cut = _selected(weights, layers)
        student = DistilBertModel(DistilBertConfig(**{**config.to_dict(), "n_layers": len(layers)}))
    else:
        cut = _renamed(weights, layers)
        student = DistilBertModel(_distilbert_config(config, len(layers)))
    student.load_state_dict(cut)
    return student
