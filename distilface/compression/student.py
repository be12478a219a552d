"""Where a student comes from: a Hub id, a folder, or a layer cut of a BERT-family encoder."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from transformers import (
    MODEL_FOR_TEXT_ENCODING_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForTextEncoding,
    AutoTokenizer,
    BertTokenizer,
    DistilBertTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distilface.compression.layers import check_foldable, cut_layers
from distilface.hub_ids import DEFAULT_BACKBONE, resolve
from distilface.locks import scratch_folder
from distilface.model.families import (
    NAMED,
    dropout_settings,
    family_name,
    is_causal,
    positions,
    set_padding,
    usual_length,
)
from distilface.model.loading import LOAD_ERRORS, not_a_model
from distilface.model.pooling import PoolingMode, pooling_modules
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: A step of compression: makes a smaller encoder, or a smaller tokenizer, or both. It may change what it is given.
Step = Callable[[PreTrainedModel, PreTrainedTokenizerBase], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


def load_backbone(source: str, layers: Sequence[int] | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder without its pooling, whole or cut, and its tokenizer.

    Args:
        source: a Hub id or a folder; of a SentenceTransformer the encoder inside is taken.
        layers: cut these layers into a DistilBERT (:func:`cut_layers`); ``None`` takes the encoder as it is.

    Raises:
        InputError: if the source is not a model, or cannot be cut so.
    """
    folder = resolve(source)
    try:
        config = AutoConfig.from_pretrained(folder)
        if layers is not None:
            check_foldable(config)
        with _no_load_report():
            encoder, loading = _class_of(config).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except InputError:
        raise
    except LOAD_ERRORS as error:
        raise not_a_model(source, error) from None
    if missing := sorted(name for name in loading["missing_keys"] if "pooler" not in name):
        raise InputError(f"{source} is not a whole model: {len(missing)} weights are missing, as {missing[0]}")
    set_padding(tokenizer, encoder)
    if layers is None:
        return encoder, tokenizer
    encoder = cut_layers(encoder, layers)
    return encoder, _distilbert_tokenizer(tokenizer, encoder.config.max_position_embeddings)


def _class_of(config: Any) -> Any:
    """Return what loads an encoder: of T5 the encoder alone, without whose decoder a folder is whole."""
    return AutoModelForTextEncoding if type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING else AutoModel


@contextlib.contextmanager
def _no_load_report() -> Iterator[None]:
    """Keep transformers' table of unused weights off the screen: a backbone's masked-LM head is meant to be left."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_is_not_load_report)  # a raised level would switch another report on
    try:
        yield
    finally:
        logger.removeFilter(_is_not_load_report)


def _is_not_load_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()


def _distilbert_tokenizer(tokenizer: PreTrainedTokenizerBase, limit: int) -> PreTrainedTokenizerBase:
    """Have a tokenizer give what a DistilBERT takes: no token types, at most ``limit`` tokens."""
    # A BERT with another vocabulary than WordPiece (multilingual MiniLM has a Unigram) keeps its own class.
    kind = DistilBertTokenizer if isinstance(tokenizer, BertTokenizer) else AutoTokenizer
    inputs = ["input_ids", "attention_mask"]
    with scratch_folder() as temporary:
        tokenizer.save_pretrained(temporary)
        return kind.from_pretrained(temporary, model_max_length=limit, model_input_names=inputs)


def save_encoder(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str) -> None:
    """Save an encoder and its tokenizer in a folder of this process.

    transformers writes in the first of several processes alone; here each makes the student that it trains.
    """
    encoder.should_save_on_this_rank = lambda is_main_process: is_main_process  # type: ignore[method-assign]
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _warn_of_lost_map(source: str) -> None:
    """Log a warning where a SentenceTransformer ends in a map of its own, as a narrower hidden state's or LEAF's."""
    file = Path(resolve(source)) / "modules.json"
    modules = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    if any(module["type"].endswith(".Dense") for module in modules):
        logger.warning(f"{source} ends in a linear layer, which is not its encoder's: the student starts without it")


def load_student(
    source: str = DEFAULT_BACKBONE,
    layers: Sequence[int] | None = None,
    pooling: PoolingMode = "mean",
    *,
    normalize: bool = False,
    max_seq_length: int | None = None,
    dropout: float | None = None,
    steps: Sequence[Step] = (),
) -> SentenceTransformer:
    """Make a student: an encoder, whole or cut, under a pooling of sentence-transformers' own modules.

    Args:
        source: a Hub id or a folder of a masked-LM backbone, an encoder or a SentenceTransformer.
        layers: cut these layers, counted from 0, into a DistilBERT; ``None`` keeps the encoder whole.
        pooling: ``mean`` over the real tokens; ``cls``, the first token; ``lasttoken``, for a decoder; or
            ``last4``, the mean of the last four hidden states, then of the real tokens (DistilFace, arXiv 2401.12472).
        normalize: put a ``Normalize`` at the end, as most teachers have.
        max_seq_length: tokens that the published model reads at most; ``None``: as many as it has positions.
        dropout: the encoder's dropout in training; ``None`` keeps its own.
        steps: what else makes it smaller, in this order, after the layers are cut.

    Raises:
        InputError: as :func:`load_backbone` and the steps, where ``last4`` meets an encoder of fewer than four layers,
            or a decoder is pooled otherwise than by ``lasttoken``.
    """
    encoder, tokenizer = load_backbone(source, layers)
    _warn_of_lost_map(source)
    for step in steps:
        encoder, tokenizer = step(encoder, tokenizer)
    with scratch_folder() as temporary:
        save_encoder(encoder, tokenizer, temporary)
        transformer: Any = Transformer(temporary, config_kwargs=dropout_settings(encoder.config, dropout))
    limit = positions(encoder)
    if max_seq_length is not None and not 2 <= max_seq_length <= (limit or NAMED):
        raise InputError(f"max_seq_length {max_seq_length} is out of range; the encoder has {limit or 'any'} positions")
    transformer.max_seq_length = max_seq_length or usual_length(encoder, transformer.tokenizer)
    if pooling != "lasttoken" and is_causal(encoder):
        raise InputError(
            f"{family_name(encoder.config)} reads from left to right, so its last token alone has read the whole text: "
            f"--pooling {pooling} is refused; set --pooling lasttoken"
        )
    modules = [transformer, *pooling_modules(transformer, pooling)]
    return SentenceTransformer(modules=[*modules, Normalize()] if normalize else modules)
