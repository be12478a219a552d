"""Unsupervised SimCSE (arXiv 2104.08821), as DistilFace trains with it (arXiv 2401.12472)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import Tensor, nn

from distilface import processes
from distilface.hub_ids import DEFAULT_BACKBONE
from distilface.methods.base import EncoderMethod, Paper, Task
from distilface.model.families import dropouts_of
from distilface.settings import InputError, setting
from distilface.training.settings import StudentSettings

PAPER = Paper(
    name="unsupervised SimCSE",
    summary="two dropout views of a sentence find each other among the sentences of a batch; no labels, no teacher",
    links={"simcse": "https://arxiv.org/abs/2104.08821", "distilface": "https://arxiv.org/abs/2401.12472"},
    bibtex="""
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
""",
    limits=(
        "It has seen no label and no teacher, so a model that was trained on labelled pairs is likely to be better.",
    ),
)


@dataclass
class SimCSESettings(StudentSettings):
    """Options of unsupervised SimCSE."""

    default_config: ClassVar[str] = "distilface"
    backbone: str = setting(DEFAULT_BACKBONE, "a Hub id or folder of a masked-LM backbone")
    dropout: float | None = setting(None, "the backbone's dropout, which makes the two views; default its own")
    scale: float = setting(20.0, "1 / temperature")
    mlp_head: bool = setting(False, "a linear layer and tanh on the embeddings, in training only")


def prepare(texts: Dataset) -> Dataset:
    """Pair every sentence with itself: columns ``sentence1``, ``sentence2``, without copying the text."""
    other = texts.select_columns(["text"]).rename_column("text", "sentence2")
    return concatenate_datasets([texts.select_columns(["text"]).rename_column("text", "sentence1"), other], axis=1)


class SimCSELoss(MultipleNegativesRankingLoss):
    """The two dropout views of a sentence find each other among the batch.

    Equation (1) of SimCSE: mean over i of -log( exp(cos(h_i, h'_i) / t) / sum_j exp(cos(h_i, h'_j) / t) ), with
    the temperature t = 1 / ``scale``. Both views come from the student's own dropout, so it must have some. Of several
    processes, each looks for its own sentences among those of all.

    Args:
        model: the student.
        scale: 20 is SimCSE's temperature 0.05.
        mlp_head: put a linear layer and a tanh, of the embedding's width, on the embeddings in training only. It
            lives on the loss: checkpoints keep it, the model folder never has it.

    Raises:
        InputError: if no dropout of the student is above 0; the two views would be one.
    """

    def __init__(self, model: SentenceTransformer, scale: float = 20.0, mlp_head: bool = False) -> None:
        super().__init__(model, scale=scale, gather_across_devices=processes.count() > 1)
        if not any(dropouts_of(model)):
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
        return PAPER.bibtex


class SimCSE(EncoderMethod):
    """Train a sentence encoder by unsupervised SimCSE: no labels, no teacher (DistilFace, arXiv 2401.12472).

        distilface train simcse

    is the paper's recipe on its own backbone and data, from the Hub: 20,000 steps of 128 sentences, about two hours on
    a GPU and two days on 2 cores; the paper's STS mean of five is 72.1 (70.6 in its second run). On your own text:

        distilface train mlm --config minilm-mlm --data TEXT.txt
        distilface train simcse --config minilm-simcse --data TEXT.txt
    """

    name = "simcse"
    aliases = ("unsup",)
    paper = PAPER
    Settings = SimCSESettings
    least_batch = 2

    def prepare(self, task: Task) -> Dataset:
        """Pair every sentence with itself."""
        return prepare(task.texts)

    def loss(self, student: SentenceTransformer, task: Task) -> SimCSELoss:
        """Return the loss of the two views."""
        return SimCSELoss(student, task.settings.scale, task.settings.mlp_head)
