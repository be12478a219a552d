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
from distilface.methods.relations import PAPER, products, relation_loss, relations, unit

#: Teacher embeddings from which the projection's principal components are taken.
PCA_ROWS = 20_000
Metric = Literal["mse", "cosine", "l2"]
#: The cosine from which on two texts are the same to a teacher: one is no neighbour of the other.
SAME = 0.9999


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

    The index may be larger than the batch, for the teacher's vectors of earlier texts are known: with a bank of N, the
    j of that half run over the last N of them too, but for those that the teacher sees as a text of the batch. It is a
    queue as MoCo's (arXiv 1911.05722), of vectors that do not age.

    Args:
        model: the student.
        metric: ``mse``, ``cosine`` or ``l2``.
        teacher_embeddings: a sample, shape (n, teacher width), to start a projection from; ``None`` for none.
        relation_weight: w, of the relations; 0 for none.
        relation_temperature: of both the student's and the teacher's.
        relation_bank: N, the teacher's vectors of earlier texts that are kept.
    """

    bank: torch.Tensor
    seen: torch.Tensor

    def __init__(
        self,
        model: SentenceTransformer,
        metric: Metric = "mse",
        teacher_embeddings: np.ndarray | None = None,
        *,
        relation_weight: float = 0.0,
        relation_temperature: float = 0.05,
        relation_bank: int = 0,
    ) -> None:
        width = None if teacher_embeddings is None else teacher_embeddings.shape[1]
        super().__init__(model, distance_metric=metric, projection_dim=width)
        self.relation_weight, self.relation_temperature = relation_weight, relation_temperature
        if relation_bank:  # buffers: a resume goes on with them
            self.register_buffer("bank", torch.zeros(relation_bank, model.get_embedding_dimension() or 0))
            self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.relation_bank = relation_bank
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
        term = relation_loss(relations(own), target, temperature, temperature)
        if self.projection is not None:
            return term
        found = relations(own, theirs)
        if self.relation_bank:
            rows, near = self._earlier(unit(theirs))
            found = torch.cat([found, products(unit(own), rows.to(found))], dim=1)
            target = torch.cat([target, near], dim=1)
        return (term + relation_loss(found, target, temperature, temperature)) / 2

    @torch.no_grad()
    def _earlier(self, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the vectors in the bank that are of no text of the batch, and their cosines with those of the batch.

        All are of unit length. In training, the batch's are put there for the next one.
        """
        rows = self.bank[: int(self.seen)].clone()
        near = products(theirs, rows.to(theirs))
        if (same := (near >= SAME).any(dim=0)).any():
            rows, near = rows[~same], near[:, ~same]
        if self.training:
            new = torch.arange(len(theirs), device=theirs.device)[-len(self.bank) :]
            self.bank[(self.seen + new) % len(self.bank)] = theirs[new].to(self.bank)
            self.seen += len(theirs)
        return rows, near

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        own = {name: getattr(self, name) for name in ("relation_weight", "relation_temperature")}
        own |= {"relation_bank": self.relation_bank} if self.relation_bank else {}
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
    relation_bank: int = 0,
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
        relation_bank: the teacher's vectors of earlier texts beside those of the batch.
    """
    sample = None
    if projection:
        rows = np.linspace(0, len(dataset) - 1, min(PCA_ROWS, len(dataset))).astype(int)
        sample = restored(np.asarray(dataset.select(rows)["label"][:]))
    return EmbeddingLoss(
        student,
        metric,
        sample,
        relation_weight=relation_weight,
        relation_temperature=relation_temperature,
        relation_bank=relation_bank,
    )
