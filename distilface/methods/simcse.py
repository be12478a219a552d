"""Unsupervised SimCSE (arXiv 2104.08821), as DistilFace trains with it (arXiv 2401.12472)."""

from collections.abc import Iterable
from typing import Any

from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from distilface.settings import InputError

CITATION = """
@inproceedings{gao2021simcse,
    title = {{SimCSE}: Simple Contrastive Learning of Sentence Embeddings},
    author = {Gao, Tianyu and Yao, Xingcheng and Chen, Danqi},
    booktitle = {Empirical Methods in Natural Language Processing (EMNLP)},
    year = {2021}
}
@article{distilface2024,
    title = {Contrastive Learning in Distilled Models},
    journal = {arXiv preprint arXiv:2401.12472},
    year = {2024}
}
"""


def prepare(texts: Dataset) -> Dataset:
    """Pair every sentence with itself: columns ``sentence1``, ``sentence2``, without copying the text."""
    other = texts.select_columns(["text"]).rename_column("text", "sentence2")
    return concatenate_datasets([texts.select_columns(["text"]).rename_column("text", "sentence1"), other], axis=1)


class SimCSELoss(MultipleNegativesRankingLoss):
    """The two dropout views of a sentence find each other among the batch.

    Equation (1) of SimCSE: mean over i of -log( exp(cos(h_i, h'_i) / t) / sum_j exp(cos(h_i, h'_j) / t) ), with
    the temperature t = 1 / ``scale``. Both views come from the student's own dropout, so it must have some.

    Args:
        model: the student.
        scale: 20 is SimCSE's temperature 0.05.
        mlp_head: put a linear layer and a tanh, of the embedding's width, on the embeddings in training only. It
            lives on the loss: checkpoints keep it, the model folder never has it.

    Raises:
        InputError: if no dropout of the student is above 0; the two views would be one.
    """

    def __init__(self, model: SentenceTransformer, scale: float = 20.0, mlp_head: bool = False) -> None:
        super().__init__(model, scale=scale)
        if not any(module.p > 0 for module in model.modules() if isinstance(module, nn.Dropout)):
            raise InputError("the student has no dropout, so the two views of a sentence are equal; set --dropout 0.1")
        width = int(model.get_embedding_dimension() or 0)
        self.head = nn.Sequential(nn.Linear(width, width, device=model.device), nn.Tanh()) if mlp_head else None

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Any) -> Tensor:
        """Return the loss of one batch: two columns of the same B sentences."""
        embeddings = embed_columns(self.model, sentence_features)
        if self.head is not None:
            embeddings = [self.head(view) for view in embeddings]
        return self.compute_loss_from_embeddings(embeddings, labels)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        return {**super().get_config_dict(), "mlp_head": self.head is not None}

    @property
    def citation(self) -> str:
        """Return the papers, as BibTeX."""
        return CITATION
