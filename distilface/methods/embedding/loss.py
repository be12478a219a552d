"""The loss of a distillation: the distance to the teacher's embedding, and the relations within a batch beside it."""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from sklearn.decomposition import PCA

from distilface.embedding.rounding import restored
from distilface.methods.relations import PAPER, relation_loss, relations

#: Teacher embeddings from which the projection's principal components are taken.
PCA_ROWS = 20_000
Metric = Literal["mse", "cosine", "l2"]


class EmbeddingLoss(EmbedDistillLoss):
    """The student's embedding, projected if widths differ, meets the teacher's.

    Equations (7) and (8) of EmbedDistill: mean over the batch of d(W s_i + b, t_i), with d the mean squared
    error over dimensions, 1 - cosine, or the euclidean distance. Without a projection W is the identity.

    The projection starts as the principal components of the teacher's embeddings: W = V (teacher width x student
    width) and b = their mean, so that a student which emits the first components is at the optimum of the distance (the
    reduction of HPD, arXiv 2203.07687). It lives on the loss: checkpoints keep it, the model folder never has it.

    With a weight w, how the sentences of a batch relate is learned beside it: w times the mean over anchors i of
    CE(q_i || p_i), with q_i = softmax_j(cos(t_i, t_j) / T) over the others j, p_i = softmax_j(cos(s_i, s_j) / T): the
    second term of DistillCSE (arXiv 2310.13499) with one temperature and no shuffling. Without a projection it is
    half of that, and half of the same with p_i = softmax_j(cos(s_i, t_j) / T), a search in an index that the teacher
    made. It asks for the teacher's near neighbours, of which the distance, a mean over all directions, knows nothing.
    The relations are of the vectors before a projection.

    Args:
        model: the student.
        metric: ``mse``, ``cosine`` or ``l2``.
        teacher_embeddings: a sample, shape (n, teacher width), to start a projection from; ``None`` for none.
        relation_weight: w, of the relations; 0 for none.
        relation_temperature: of both the student's and the teacher's.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        metric: Metric = "mse",
        teacher_embeddings: np.ndarray | None = None,
        *,
        relation_weight: float = 0.0,
        relation_temperature: float = 0.05,
    ) -> None:
        width = None if teacher_embeddings is None else teacher_embeddings.shape[1]
        super().__init__(model, distance_metric=metric, projection_dim=width)
        self.relation_weight, self.relation_temperature = relation_weight, relation_temperature
        if teacher_embeddings is not None:
            self._start_at_principal_components(teacher_embeddings)

    def forward(
        self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the loss; the teacher's embeddings may be rounded."""
        return super().forward(sentence_features, None if labels is None else restored(labels))

    def compute_loss_from_embeddings(
        self, embeddings: list[torch.Tensor], teacher_embeddings: list[torch.Tensor]
    ) -> torch.Tensor:
        """Return the loss: of each column an embedding and a target, shapes (B, width) and (B, teacher width)."""
        distance = super().compute_loss_from_embeddings(embeddings, teacher_embeddings)
        if not self.relation_weight:
            return distance
        pairs = zip(embeddings, teacher_embeddings, strict=True)
        terms = [self._relation(own, theirs.to(own.device)) for own, theirs in pairs]
        return distance + self.relation_weight * torch.stack(terms).mean()

    def _relation(self, own: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """Return the term of the relations, of one column."""
        target, temperature = relations(theirs), self.relation_temperature
        indexes = [None, theirs] if self.projection is None else [None]
        terms = [relation_loss(relations(own, index), target, temperature, temperature) for index in indexes]
        return torch.stack(terms).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        own = {"relation_weight": self.relation_weight, "relation_temperature": self.relation_temperature}
        return super().get_config_dict() | (own if self.relation_weight else {})

    @property
    def citation(self) -> str:
        """Return the papers, as BibTeX."""
        return super().citation + (PAPER.bibtex if self.relation_weight else "")

    def _start_at_principal_components(self, embeddings: np.ndarray) -> None:
        projection: Any = self.projection
        student = projection.in_features
        count = min(student, *embeddings.shape)
        pca = PCA(n_components=count, svd_solver="full").fit(embeddings)
        components = np.zeros((embeddings.shape[1], student), np.float32)
        components[:, :count] = pca.components_.T
        with torch.no_grad():
            projection.weight.copy_(torch.from_numpy(components))
            projection.bias.copy_(torch.from_numpy(pca.mean_))


def make_loss(
    student: SentenceTransformer,
    dataset: Dataset,
    metric: Metric = "mse",
    projection: bool = False,
    relation_weight: float = 0.0,
    relation_temperature: float = 0.05,
) -> EmbeddingLoss:
    """Make the loss for a student on data that :func:`prepare` made.

    Args:
        student: the model to train.
        dataset: with the column ``label``.
        metric: the distance.
        projection: map the student's width to the teacher's, starting at the principal components of up to
            :data:`PCA_ROWS` of its embeddings.
        relation_weight: of the relations within a batch.
        relation_temperature: of these.
    """
    sample = None
    if projection:
        rows = np.linspace(0, len(dataset) - 1, min(PCA_ROWS, len(dataset))).astype(int)
        sample = restored(np.asarray(dataset.select(rows)["label"][:]))
    return EmbeddingLoss(
        student, metric, sample, relation_weight=relation_weight, relation_temperature=relation_temperature
    )
