"""Where a student comes from: a Hub id, a folder, or a layer cut of a BERT-family encoder."""

import contextlib
import logging
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
    DistilBertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilface.compression.layers import check_foldable, cut_layers
from distilface.hub_ids import DEFAULT_BACKBONE, resolve
from distilface.locks import scratch_folder
from distilface.model.loading import LOAD_ERRORS, no_model
from distilface.model.pooling import PoolingMode, pooling_modules
from distilface.settings import InputError


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
            check_foldable(config)
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
    """Keep transformers' table of unused weights off the screen: a backbone's masked-LM head is meant to be left."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_no_report)  # a raised level would switch another report on
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _distilbert_tokenizer(tokenizer: PreTrainedTokenizerBase, limit: int) -> PreTrainedTokenizerBase:
    """Have a tokenizer give what a DistilBERT takes: no token types, at most ``limit`` tokens."""
    # A BERT with another vocabulary than WordPiece (multilingual MiniLM has a Unigram) keeps its own class.
    kind = DistilBertTokenizer if isinstance(tokenizer, BertTokenizer) else AutoTokenizer
    inputs = ["input_ids", "attention_mask"]
    with scratch_folder() as temporary:
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
    with scratch_folder() as temporary:
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
