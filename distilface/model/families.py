"""What differs between families of encoders: their positions, their padding, their dropout, how far a token reads."""

import logging
import re
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import MODEL_MAPPING, PreTrainedModel, PreTrainedTokenizerBase

from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Tokens that a new student reads where neither its positions nor its tokenizer names a length.
USUAL_LENGTH = 512
#: A tokenizer that names no length has transformers' stand-in for infinity.
NAMED = 10**9
#: Settings of the dropouts inside an encoder: those of a classifier or a pooler on it have no part in an embedding.
_DROPOUT = re.compile(r"^(?!classifier|seq_classif|qa_|cls_|summary|pooler)\w*(dropout|pdrop)")
#: Largest difference of the same computation in two rows of a batch, as a share of the largest number.
_ROUNDING = 1e-6


def padding_position(encoder: nn.Module) -> int | None:
    """Return the id of the padding that an encoder counts its positions from, as RoBERTa and MPNet do, or ``None``.

    The position of a token is this id, plus 1, plus its place in the text.
    """
    for module in encoder.modules():
        padding = getattr(module, "padding_idx", None)
        if isinstance(padding, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return padding
    return None


def positions(encoder: PreTrainedModel) -> int | None:
    """Count the tokens that an encoder can place; ``None`` for one that can place any number, as T5."""
    count = getattr(encoder.config, "max_position_embeddings", None)
    if count is None or count < 1:
        return None
    padding = padding_position(encoder)
    return int(count) - (0 if padding is None else padding + 1)


def usual_length(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the tokens that a new student reads where none are asked for: all that it can place, if it names them."""
    named = [length for length in (positions(encoder), tokenizer.model_max_length) if length and length < NAMED]
    return min(named) if named else int(getattr(encoder.config, "n_positions", USUAL_LENGTH))


def published_length(transformer: Any, asked: int | None) -> int:
    """Return the max_seq_length of a folder: what is asked for, or what the model reads and can place.

    Raises:
        InputError: if there is no such length, or the tokenizer has no padding token for those who load the folder.
    """
    limit, name = positions(transformer.model), family_name(transformer.model.config)
    length: int = min(transformer.max_seq_length, limit or NAMED) if asked is None else asked
    if asked is None and length == NAMED:
        raise InputError(f"{name} names no length; give the model a max_seq_length, as {USUAL_LENGTH}")
    if not 0 < length <= (limit or NAMED):
        raise InputError(f"max_seq_length {length} is out of range; the encoder has {limit or 'any'} positions")
    if transformer.tokenizer.pad_token_id is None:
        raise InputError(
            f"the tokenizer of {name} has no padding token; load the model by distilface.load, which adds one"
        )
    return length


def set_padding(tokenizer: PreTrainedTokenizerBase, encoder: nn.Module) -> None:
    """Give a tokenizer that has no padding token one of its own, which the attention mask hides.

    Raises:
        InputError: if it has no token that could be one.
    """
    if tokenizer.pad_token_id is not None:
        return
    counted = padding_position(encoder)
    known = [tokenizer.eos_token, tokenizer.sep_token, tokenizer.unk_token, tokenizer.bos_token]
    token = next(filter(None, known), None) if counted is None else tokenizer.convert_ids_to_tokens(counted)
    if token is None:
        raise InputError(
            f"the tokenizer of {family_name(encoder.config)} has no padding token, so texts of two lengths make no "
            "batch; set its pad_token and save it again"
        )
    tokenizer.pad_token = token
    logger.info(f"the tokenizer has no padding token; it pads with {token}, which the attention mask hides")


def make_usable(model: SentenceTransformer) -> SentenceTransformer:
    """Have a model that was just loaded cut a text at what its encoder can place, and pad a batch.

    sentence-transformers counts the two positions that RoBERTa's padding takes as a text's own: a model that names no
    length would fail at the first long text, in the middle of a pass.

    Raises:
        InputError: as :func:`set_padding`.
    """
    encoder = getattr(model[0], "model", None)
    if not isinstance(encoder, PreTrainedModel):
        return model
    limit = positions(encoder)
    if limit is not None and model.max_seq_length is not None and model.max_seq_length > limit:
        logger.info(
            f"{family_name(encoder.config)} can place {limit} tokens, not {model.max_seq_length}: it is cut there"
        )
        model.max_seq_length = limit
    tokenizer: Any = model.tokenizer
    set_padding(tokenizer, encoder)
    return model


def family_name(config: Any) -> str:
    """Name the family of a configuration with its article.

    >>> from transformers import AlbertConfig
    >>> family_name(AlbertConfig())
    'an albert encoder'
    """
    kind = config.model_type
    vowel = kind[0] in "aeio" or kind[:2] in ("xl", "mp", "mt")  # as it is spoken: an MPNet
    return f"{'an' if vowel else 'a'} {kind} encoder"


def auto_class(encoder: PreTrainedModel) -> str:
    """Name the class of transformers that loads an encoder: of T5, ``AutoModel`` would load the decoder as well."""
    usual: Any = MODEL_MAPPING.get(type(encoder.config), None)
    return "AutoModel" if usual is None or type(encoder) is usual else type(encoder).__name__


@torch.no_grad()
def is_causal(encoder: PreTrainedModel) -> bool:
    """Return whether a token reads only what stands before it, so that the last token alone has read the whole text.

    It is measured, by two texts that differ after their first token: a Gemma may read in both directions, and other
    families have other switches.
    """
    training = encoder.training
    encoder.eval()
    ids = torch.tensor([[2, 0, 0, 0], [2, 1, 1, 1]], device=encoder.device)
    one, other = encoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[:, 0]
    encoder.train(training)
    return bool((one - other).abs().max() <= _ROUNDING * one.abs().max())


def dropout_settings(config: Any, dropout: float | None) -> dict[str, float]:
    """Return each dropout of an encoder's configuration, hidden, attention and whatever its family has, set to one.

    Raises:
        InputError: if dropout is asked for, and the encoder has none.
    """
    if dropout is None:
        return {}
    names = [name for name, value in config.to_dict().items() if _DROPOUT.match(name) and type(value) in (int, float)]
    if dropout and not names:
        raise InputError(f"--dropout {dropout} has no effect: {family_name(config)} has no dropout")
    logger.info(f"dropout {dropout}: {', '.join(names) or 'the encoder has none'}")
    return dict.fromkeys(names, dropout)


def dropouts_of(model: nn.Module) -> set[float]:
    """Return the probabilities by which a model drops out in training: of modules, and of attention by a number."""
    modules = {module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    settings = (item for module in model.modules() for item in vars(module).items())
    return modules | {value for name, value in settings if "dropout" in name and type(value) is float}
