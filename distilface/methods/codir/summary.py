"""What chosen layers of an encoder hold of an input, as one vector, and which layers to choose (CoDIR)."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from distilface.settings import InputError, check_known

SummaryPooling = Literal["mean", "cls"]
#: Width of a summary, as published.
DIMENSION = 128


def even_spread(student: int, teacher: int) -> tuple[list[int], list[int]]:
    """Choose the layers of both sides where none are named: all of the student's, and as many of the teacher's.

    Layer k of the student's s goes with layer 1 + floor((k - 1) * t / s) of the teacher's t, counted from 1. That is
    the paper's own choice for 6 of 12, the identity where depths are equal, and repeats layers of a teacher that is
    the shallower one. Like the paper's, it leaves the teacher's last layer out where the teacher is deeper.

    >>> even_spread(6, 12)
    ([1, 2, 3, 4, 5, 6], [1, 3, 5, 7, 9, 11])
    >>> even_spread(3, 6)[1], even_spread(4, 6)[1], even_spread(3, 3)[1], even_spread(4, 2)[1]
    ([1, 3, 5], [1, 2, 4, 5], [1, 2, 3], [1, 1, 2, 2])
    """
    return list(range(1, student + 1)), [1 + k * teacher // student for k in range(student)]


def check_layers(layers: Sequence[int], count: int, who: str) -> list[int]:
    """Refuse a layer that an encoder of ``count`` layers does not have.

    Raises:
        InputError: naming the layer and those there are.
    """
    if not layers:
        raise InputError(f"no layers of the {who} named; name at least one of 0 (the embeddings) to {count}")
    for layer in layers:
        if not 0 <= layer <= count:
            raise InputError(f"layer {layer} of the {who} is out of range; it has 1 to {count}, and 0, the embeddings")
    return list(layers)


def pooled(state: Tensor, mask: Tensor, pooling: SummaryPooling) -> Tensor:
    """Pool one layer: the ``mean`` over the real tokens, or ``cls``, the first token.

    Args:
        state: shape (B, T, width).
        mask: 1 for a real token and 0 for padding, shape (B, T).
        pooling: which.
    """
    if pooling == "cls":
        return state[:, 0]
    weights = mask.to(state.dtype)
    return torch.einsum("btd,bt->bd", state, weights / weights.sum(1, keepdim=True))


class Summary(nn.Module):
    """One vector of length 1 for what chosen layers of an encoder hold of an input.

    Each layer is pooled over the real tokens, the layers stand side by side, and one linear map takes them to
    ``dimension``: s = normalise(W [pool(h_1); ...; pool(h_L)] + b). It computes in the precision of its weights, under
    autocast too: a temperature of 0.07 would multiply the rounding of bf16.

    Args:
        layers: which hidden states; 0 is the embeddings, k the output of the k-th layer.
        width: of a hidden state.
        dimension: of the summary.
        pooling: ``mean`` over the real tokens, as in the paper, or ``cls``, the first token, as in its code.
    """

    def __init__(
        self, layers: Sequence[int], width: int, dimension: int = DIMENSION, pooling: SummaryPooling = "mean"
    ) -> None:
        super().__init__()
        check_known([pooling], get_args(SummaryPooling), "summary pooling")
        self.layers, self.pooling = list(layers), pooling
        self.linear = nn.Linear(len(self.layers) * width, dimension)

    def forward(self, states: Sequence[Tensor] | Mapping[int, Tensor], mask: Tensor) -> Tensor:
        """Summarise a batch.

        Args:
            states: the encoder's hidden states by layer, the embeddings first, each of shape (B, T, width).
            mask: 1 for a real token and 0 for padding, shape (B, T).

        Returns:
            Shape (B, dimension), each row of length 1.
        """
        with torch.autocast(mask.device.type, enabled=False):
            chosen = [states[layer].to(self.linear.weight.dtype) for layer in self.layers]
            layers = [pooled(state, mask, self.pooling) for state in chosen]
            return normalize(self.linear(torch.cat(layers, dim=1)), dim=1)
