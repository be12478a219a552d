"""Shared layers: each layer runs several times, as a plain ``AlbertModel`` does (ALBERT, arXiv 1909.11942)."""

import logging
from typing import Any

import torch
from transformers import AlbertConfig, AlbertModel, ElectraModel, PreTrainedModel

from distilface.compression.layers import cut_layers
from distilface.compression.recurrent import LAYER_NAMES, renamed
from distilface.settings import InputError

logger = logging.getLogger(__name__)


def _parts(config: Any) -> dict[str, Any]:
    """Return what an ALBERT's config calls otherwise than that of an Electra, or of a DistilBERT."""
    if config.model_type == "electra":
        own = ("embedding_size", "intermediate_size", "hidden_act", "hidden_dropout_prob", "layer_norm_eps")
        return {name: getattr(config, name) for name in (*own, "attention_probs_dropout_prob")}
    return {
        "embedding_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "hidden_act": config.activation,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.attention_dropout,
        "layer_norm_eps": 1e-12,
    }


@torch.no_grad()
def share_layers(encoder: PreTrainedModel, runs: int) -> tuple[AlbertModel, dict[str, Any]]:
    """Return an encoder as an ALBERT each of whose layers runs several times in a row: 0 0 2 2 of the layers 0 and 2.

    With ``runs`` 1 it would compute what the encoder does; an ALBERT's map from the token table to the width is then
    the identity, or that of an Electra.

    Args:
        encoder: a BERT, a DistilBERT or an Electra; it is not changed.
        runs: how often each layer runs.

    Returns:
        The ALBERT; and ``layers``, how many different ones, and ``runs``, for ``run.json``.

    Raises:
        InputError: if the family is another, its positions are relative, or a layer is to run less than twice.
    """
    if runs < 2:
        raise InputError(f"--layer_runs {runs} is out of range; it must be 2 or more, or leave it out")
    electra = isinstance(encoder, ElectraModel)
    position = getattr(encoder.config, "position_embedding_type", None) or "absolute"
    if electra and position != "absolute":
        raise InputError(f"{position} position embeddings do not fit an ALBERT; it has absolute ones")
    whole: Any = encoder if electra else cut_layers(encoder, range(encoder.config.num_hidden_layers))
    config, weights = whole.config, whole.state_dict()
    layers = config.num_hidden_layers
    albert: Any = AlbertModel(
        AlbertConfig(
            **_parts(config),
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=layers * runs,
            num_hidden_groups=layers,
            inner_group_num=1,
            num_attention_heads=config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            type_vocab_size=1,
            pad_token_id=config.pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    prefix, names = ("encoder", LAYER_NAMES["bert"]) if electra else ("transformer", LAYER_NAMES["distilbert"])
    for place, group in enumerate(albert.encoder.albert_layer_groups):
        group.albert_layers[0].load_state_dict(renamed(weights, f"{prefix}.layer.{place}.", names))
    # Of one kind of token, whose vector is that of the kind 0; a DistilBERT has none.
    types = "token_type_embeddings.weight"
    own = {name: weight for name, weight in whole.embeddings.state_dict().items() if not name.endswith("_ids")}
    own[types] = own[types][:1] if types in own else torch.zeros(1, albert.config.embedding_size)
    albert.embeddings.load_state_dict(own, strict=False)
    widening, project = albert.encoder.embedding_hidden_mapping_in, getattr(whole, "embeddings_project", None)
    widening.weight.copy_(torch.eye(config.hidden_size) if project is None else project.weight)
    widening.bias.copy_(torch.zeros(config.hidden_size) if project is None else project.bias)
    albert.pooler.weight.zero_()  # no embedding reads it
    albert.pooler.bias.zero_()
    logger.info(f"layers: {layers}, each of which runs {runs} times")
    return albert, {"layers": layers, "runs": runs}
