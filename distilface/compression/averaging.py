"""The mean of the weights of several students, as a start (model soups, arXiv 2203.05482)."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distilface.compression.student import load_backbone
from distilface.settings import InputError

logger = logging.getLogger(__name__)


@torch.no_grad()
def average(encoder: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, others: Sequence[str]) -> dict[str, Any]:
    """Give an encoder the mean of its own weights and those of others, in place.

    Students that were trained from one start lie near enough to each other for their mean to be a student, often a
    better one than each: the uniform soup of Model Soups (arXiv 2203.05482, section 2).

    Args:
        encoder: one of them.
        tokenizer: its own.
        others: Hub ids or folders of students of its shape, with its vocabulary.

    Returns:
        ``with``, the others, for ``run.json``.

    Raises:
        InputError: if one of them is not a model, or has another shape or vocabulary.
    """
    own = encoder.state_dict()
    total = {name: weight.double() for name, weight in own.items() if weight.is_floating_point()}
    for name in others:
        other, its_tokenizer = load_backbone(name)
        weights = other.state_dict()
        if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in own.items()}:
            raise InputError(
                f"{name} has another shape than the student, so they have no mean; name students of one shape"
            )
        if its_tokenizer.get_vocab() != tokenizer.get_vocab():
            raise InputError(
                f"{name} has other pieces than the student, so they have no mean; name students of one start"
            )
        for key in total:
            total[key] += weights[key]
    for key, weight in total.items():
        own[key].copy_(weight / (1 + len(others)))
    logger.info(f"average: of the weights of the student and of {', '.join(others)}")
    return {"with": list(others)}
