"""Memory banks: the summaries of earlier batches, from which a contrastive loss draws its negatives."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class MemoryBanks(nn.Module):
    """A student's bank and a teacher's, side by side: unit rows, each of one example.

    Either one row for each example, found by its index, which moves towards every new summary of it,

        row <- normalise(m * row + (1 - m) * new),

    or a queue (MoCo, arXiv 1911.05722) of the latest summaries, which are replaced, not moved. An example gets its
    row, holding its first summary, before negatives are drawn, so that a first batch can draw from itself; a row that
    no example has is never drawn. (The published code starts all rows at random: in a first pass over the data, most
    of its negatives are then no sentence's.)

    All that a resume needs is a buffer, the number of batches among them: it and the seed decide the draws.

    Args:
        size: rows: the number of examples, or the length of the queue.
        dimension: width of a row.
        momentum: m.
        queue: whether the rows are a queue.
        margin: labels whose difference is above it make two examples negatives of each other: 0 for classes.
        seed: of the draws, from 0 to below 2**32.
    """

    rows: Tensor
    owners: Tensor
    labels: Tensor
    batches: Tensor
    entered: Tensor

    def __init__(
        self,
        size: int,
        dimension: int = 128,
        momentum: float = 0.5,
        queue: bool = False,
        margin: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.momentum, self.queue, self.margin, self.seed = momentum, queue, margin, seed
        self.register_buffer("rows", torch.zeros(2, size, dimension))  # the student's, the teacher's
        self.register_buffer("owners", torch.full((size,), -1))  # the example of a row; -1 is none
        self.register_buffer("labels", torch.zeros(size))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("entered", torch.zeros((), dtype=torch.long))

    def __len__(self) -> int:
        return len(self.owners)

    @torch.no_grad()
    def enter(self, index: Tensor, summaries: Tensor, labels: Tensor | None = None) -> None:
        """Give a row to each example of a batch that has none; a queue gives one to all, the oldest first.

        Args:
            index: the examples, shape (B).
            summaries: shape (2, B, dimension).
            labels: shape (B).
        """
        if self.queue:
            new = torch.arange(len(index), device=index.device)[-len(self) :]
            places = (self.entered + new) % len(self)
        else:
            new = (self.owners[index] < 0).nonzero().squeeze(1)
            places = index[new]
        self.owners[places] = index[new]
        self.rows[:, places] = summaries[:, new].to(self.rows.dtype)
        if labels is not None:
            self.labels[places] = labels[new].to(self.labels.dtype)
        self.entered += len(index)

    def draw(self, index: Tensor, count: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw negatives for each example of a batch, with replacement.

        Without labels they are any other examples; with labels, those whose label differs by more than ``margin``.

        Returns:
            The places of ``count`` rows for each example, shape (B, count), and which of these are negatives: not a
            row of the example itself, and not a place that fills up where there is no negative.
        """
        random = np.random.default_rng([self.seed, int(self.batches)])
        places = torch.zeros(len(index), count, dtype=torch.long, device=index.device)
        negative = torch.zeros_like(places, dtype=torch.bool)
        taken = (self.owners >= 0).nonzero().squeeze(1)
        for label in [None] if labels is None else labels.unique():
            group = torch.arange(len(index)) if label is None else (labels == label).nonzero().squeeze(1)
            far = taken if label is None else taken[(self.labels[taken] - label).abs() > self.margin]
            if len(far):
                chosen = far[torch.from_numpy(random.integers(len(far), size=(len(group), count)))]
                places[group] = chosen
                negative[group] = self.owners[chosen] != index[group, None]
        return places, negative

    @torch.no_grad()
    def update(self, index: Tensor, summaries: Tensor) -> None:
        """Move the rows of a batch towards its summaries, shape (2, B, dimension); a queue's stay as they entered."""
        self.batches += 1
        if not self.queue:
            moved = self.momentum * self.rows[:, index] + (1 - self.momentum) * summaries.to(self.rows.dtype)
            self.rows[:, index] = normalize(moved, dim=-1)
