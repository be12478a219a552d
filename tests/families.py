"""Tiny random models of many families, each with a tokenizer of its own family's habits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny import WORDS
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

#: Tokens that each of the models can place.
LENGTH = 32
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_PLACES = {"max_position_embeddings": LENGTH}
_AFTER_PADDING = {"max_position_embeddings": LENGTH + 2, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_DECODER = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": LENGTH}


@dataclass(frozen=True)
class Family:
    """How a tiny model of a family is made.

    Attributes:
        config: the settings of its configuration.
        marks: the special tokens, in the order of their ids.
        template: what the tokenizer puts around a text.
        roles: which special token has which role.
        encoder: the class of the encoder, by its name in transformers.
        settings: of the tokenizer.
    """

    encoder: str
    config: dict[str, Any]
    marks: tuple[str, ...] = _BERT
    template: str = "[CLS] $A [SEP]"
    roles: dict[str, str] = field(default_factory=lambda: _roles(_BERT, "pad unk cls sep mask"))
    settings: dict[str, Any] = field(default_factory=dict)


def _roles(marks: tuple[str, ...], names: str) -> dict[str, str]:
    return {f"{name}_token": mark for name, mark in zip(names.split(), marks, strict=True)}


def _roberta(encoder: str) -> Family:
    """Make a family whose positions begin after those of its padding."""
    roles = _roles(_ROBERTA, "cls pad sep unk mask") | {"bos_token": "<s>", "eos_token": "</s>"}
    return Family(encoder, _SMALL | _AFTER_PADDING, _ROBERTA, "<s> $A </s>", roles)


_LEFT = {"padding_side": "left"}
FAMILIES = {
    "bert": Family("BertModel", _SMALL | _PLACES),
    "distilbert": Family("DistilBertModel", {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4} | _PLACES),
    "roberta": _roberta("RobertaModel"),
    "xlm-roberta": _roberta("XLMRobertaModel"),
    "mpnet": _roberta("MPNetModel"),
    "modernbert": Family(
        "ModernBertModel",
        _SMALL
        | _PLACES
        | {"pad_token_id": 0, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3},
    ),
    "deberta-v2": Family(
        "DebertaV2Model",
        _SMALL
        | _PLACES
        | {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 16,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "electra": Family("ElectraModel", _SMALL | _PLACES | {"embedding_size": 16}),
    "albert": Family("AlbertModel", _SMALL | _PLACES | {"embedding_size": 16}),
    "t5": Family(
        "T5ForConditionalGeneration",
        {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
        ("<pad>", "</s>", "<unk>"),
        "$A </s>",
        {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"},
    ),
    "qwen3": Family(
        "Qwen3Model",
        _SMALL | _DECODER | {"pad_token_id": 0, "eos_token_id": 1},
        ("<|endoftext|>", "<|im_end|>"),
        "$A <|im_end|>",
        {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
        _LEFT,
    ),
    "gemma3": Family(
        "Gemma3TextModel",
        _SMALL | _DECODER | {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2, "sliding_window": 16},
        ("<pad>", "<eos>", "<bos>", "<unk>"),
        "<bos> $A <eos>",
        {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"},
        _LEFT,
    ),
}


def words_tokenizer(family: Family, **settings: Any) -> PreTrainedTokenizerFast:
    """Make the tokenizer of a family over the words of the tests; it names no length."""
    words = list(dict.fromkeys([*family.marks, *WORDS.split()]))
    vocabulary = {word: number for number, word in enumerate(words)}
    unknown = family.roles.get("unk_token", family.marks[-1])
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, vocabulary[word]) for word in family.template.split() if word in vocabulary]
    tokenizer.post_processor = processors.TemplateProcessing(single=family.template, special_tokens=ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **family.roles, **family.settings, **settings)


def save_backbone(name: str, folder: Path, **config: Any) -> Path:
    """Save a random model of a family, without a head or a pooling, as a plain transformers folder."""
    family = FAMILIES[name]
    tokenizer = words_tokenizer(family)
    model = getattr(transformers, family.encoder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model(model.config_class(**{"vocab_size": len(tokenizer), **family.config, **config})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
