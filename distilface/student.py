"""Where a student comes from: a Hub id, a folder, or a layer cut of a BERT-family encoder."""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilface.pooling import PoolingMode, pooling_modules
from distilface.settings import InputError
from distilface.teacher import LOAD_ERRORS, no_model, resolve

DEFAULT_BACKBONE = "distilbert/distilbert-base-uncased"

#: Where a BERT layer's weights go in a DistilBERT layer.
_LAYER_NAMES = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def _check_foldable(config: Any) -> None:
    """Refuse an encoder whose computation a DistilBERT cannot repeat."""
    kind = config.model_type
    if kind not in ("bert", "distilbert"):
        raise InputError(f"a {kind} encoder cannot be cut into a DistilBERT; layers can be cut from bert or distilbert")
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
        for bert, distilbert in _LAYER_NAMES.items():
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
        layers: which layers, counted from 0 at the bottom, in the order they shall have; one may come twice.

    Raises:
        InputError: if the encoder is of another family, cannot be folded (relative positions, another layer-norm
            epsilon), or a layer is out of range.
    """
    config = encoder.config
    _check_foldable(config)
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


def load_backbone(source: str, layers: Sequence[int] | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder without its pooling, whole or cut, and its tokenizer.

    Args:
        source: a Hub id or a folder; of a SentenceTransformer the encoder inside is taken.
        layers: cut these layers into a DistilBERT (:func:`cut_layers`); ``None`` takes the encoder as it is.

    Raises:
        InputError: if the source is no model, or cannot be cut so.
    """
    folder = resolve(source)
    try:
        config = AutoConfig.from_pretrained(folder)
        if layers is not None:
            _check_foldable(config)
        with _no_load_report():
            encoder, found = AutoModel.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except InputError:
        raise
    except LOAD_ERRORS as error:
        raise no_model(source, error) from None
    if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):
        raise InputError(f"{source} is no whole model: {len(missing)} weights are missing, as {missing[0]}")
    if layers is None:
        return encoder, tokenizer
    encoder = cut_layers(encoder, layers)
    return encoder, _distilbert_tokenizer(tokenizer, encoder.config.max_position_embeddings)


@contextlib.contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers' table of unused weights off the screen: a backbone's masked-LM head is meant to be left.

    At that level transformers checks a plan for sharding too, and warns that it is not followed.
    """
    loggers = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "distributed.tensor_parallel")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _distilbert_tokenizer(tokenizer: PreTrainedTokenizerBase, limit: int) -> PreTrainedTokenizerBase:
    """Have a tokenizer give what a DistilBERT takes: no token types, at most ``limit`` tokens."""
    # A BERT with another vocabulary than WordPiece (multilingual MiniLM has a Unigram) keeps its own class.
    kind = DistilBertTokenizer if isinstance(tokenizer, BertTokenizer) else AutoTokenizer
    inputs = ["input_ids", "attention_mask"]
    with tempfile.TemporaryDirectory() as temporary:
        tokenizer.save_pretrained(temporary)
        return kind.from_pretrained(temporary, model_max_length=limit, model_input_names=inputs)


def load_student(
    source: str = DEFAULT_BACKBONE,
    layers: Sequence[int] | None = None,
    pooling: PoolingMode = "mean",
    *,
    normalize: bool = False,
    max_seq_length: int | None = None,
    dropout: float | None = None,
) -> SentenceTransformer:
    """Make a student: an encoder, whole or cut, under a pooling of sentence-transformers' own modules.

    Args:
        source: a Hub id or a folder of a masked-LM backbone, an encoder or a SentenceTransformer.
        layers: cut these layers, counted from 0, into a DistilBERT; ``None`` keeps the encoder whole.
        pooling: ``mean`` over the real tokens; ``cls``, the first token; or ``last4``, the mean of the last four
            hidden states, then of the real tokens (DistilFace, arXiv 2401.12472).
        normalize: put a ``Normalize`` at the end, as most teachers have.
        max_seq_length: tokens that the published model reads at most; ``None``: as many as it has positions.
        dropout: the encoder's dropout in training; ``None`` keeps its own.

    Raises:
        InputError: as :func:`load_backbone`, or where ``last4`` meets an encoder of fewer than four layers.
    """
    encoder, tokenizer = load_backbone(source, layers)
    with tempfile.TemporaryDirectory() as temporary:
        encoder.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        transformer = Transformer(temporary, config_kwargs=_dropout(encoder.config, dropout))
    limit = transformer.max_seq_length or tokenizer.model_max_length
    positions = _positions(encoder)
    if max_seq_length is not None and not 2 <= max_seq_length <= positions:
        raise InputError(f"max_seq_length {max_seq_length} is out of range; the encoder has {positions} positions")
    transformer.max_seq_length = max_seq_length or min(limit, positions)
    modules = [transformer, *pooling_modules(transformer, pooling)]
    return SentenceTransformer(modules=[*modules, Normalize()] if normalize else modules)


def _positions(encoder: PreTrainedModel) -> int:
    """Count the tokens that an encoder can place: RoBERTa and MPNet leave the positions up to their padding unused."""
    padding = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
    return int(encoder.config.max_position_embeddings) - (0 if padding is None else padding + 1)


def _dropout(config: Any, dropout: float | None) -> dict[str, float]:
    """Name the dropout settings of this encoder's family, hidden and attention alike."""
    if dropout is None:
        return {}
    names = ("dropout", "attention_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob")
    return {name: dropout for name in names if hasattr(config, name) and name in config.to_dict()}
