"""The losses of the four stages (arXiv 2209.05869).

Every stage reads the columns ``english`` and ``other``, and the number of the row as ``label``: by it the teacher's
embeddings, which stay on disk, are looked up.
"""

from collections.abc import Iterable
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from sentence_transformers.util import all_gather, all_gather_with_grad, cos_sim
from torch import Tensor
from torch.nn.functional import mse_loss

from distilface import processes
from distilface.methods.base import Paper

PAPER = Paper(
    name="multi-stage distillation across languages",
    summary="an English teacher makes a multilingual assistant, and that a student with a narrow vocabulary and shared "
    "layers; this is the record of the last stage",
    links={"multistage": "https://arxiv.org/abs/2209.05869"},
    bibtex="""
@inproceedings{ding2022multistage,
    title = {Multi-stage Distillation Framework for Cross-Lingual Semantic Similarity Matching},
    author = {Ding, Kunbo and Liu, Weijie and Fang, Yuejian and Zhao, Zhe and Ju, Qi and Yang, Xuefeng and others},
    booktitle = {Findings of the Association for Computational Linguistics: NAACL 2022},
    year = {2022}
}
""",
    limits=("Its languages are not equally good; a language with little or technical training text is the weakest.",),
)


class MatchLoss(EmbedDistillLoss):
    """The student's embeddings of both sides of a pair match their targets: stages 1 and 3.

    L = w * (MSE(S(en), t_en) + MSE(S(xx), t_xx)), each the mean over batch and dimensions. In stage 1 both targets are
    the English teacher's embedding of the English sentence, t_en = t_xx = T(en). In stage 3 each side has the
    assistant's own, A(en) and A(xx).

    Args:
        model: the student.
        targets: a column ``label`` of tensors, on disk, for the English side and the other one; one alone is for both.
        weight: w. The paper's is 1; the number of dimensions gives unit vectors the scale of 1 - cosine.
    """

    citation = PAPER.bibtex

    def __init__(self, model: SentenceTransformer, *targets: Dataset, weight: float = 1.0) -> None:
        super().__init__(model, distance_metric="mse")
        self.targets, self.weight = targets, weight

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Any) -> Tensor:
        """Return the loss of one batch: the two sides of B pairs, and their rows."""
        # upstream gives the first column, elsewhere a query, a pass of its own; these two are of one kind
        embeddings = embed_columns(self.model, sentence_features, separate_first=False)
        rows, device = labels.tolist(), embeddings[0].device
        sides = [side[rows]["label"].to(device) for side in self.targets]
        return self.compute_loss_from_embeddings(embeddings, [sides[0], sides[-1]])

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]) -> Tensor:
        """Return w times the sum over the two sides, of which upstream returns the mean."""
        return 2 * self.weight * super().compute_loss_from_embeddings(embeddings, teacher_embeddings)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for ``run.json``."""
        return {"weight": self.weight}


class MultilingualContrastiveLoss(MatchLoss):
    """A batch's cosines across the languages match the teacher's in English: stage 4.

    L = MSE(cos(T_en, T_en), cos(S_en, S_xx)) + w * (MSE(S_en, T_en) + MSE(S_xx, T_en)), the first term the mean over
    all B x B cosines of the batch. The targets are the teacher's embeddings of the English side alone. Of several
    processes, each compares its own English sides with all others.
    """

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]) -> Tensor:
        """Return the loss of the cosines beside that of the embeddings."""
        english, kind = teacher_embeddings[0], torch.promote_types(embeddings[0].dtype, torch.float32)
        with torch.autocast(english.device.type, enabled=False):  # bf16 would round the cosines
            columns = embeddings[1], english
            if processes.count() > 1:
                columns = all_gather_with_grad(columns[0].contiguous()), all_gather(columns[1].contiguous())
            rows = embeddings[0], english
            ours, theirs = (cos_sim(a.to(kind), b.to(kind)) for a, b in zip(rows, columns, strict=True))
        return mse_loss(ours, theirs) + super().compute_loss_from_embeddings(embeddings, teacher_embeddings)


def embedding_output(model: SentenceTransformer, features: dict[str, Tensor]) -> Tensor:
    """Return the mean over the real tokens of what enters an encoder's first layer: shape (B, width).

    An ALBERT's embedding layer is factorised; the linear map that widens it belongs to it.
    """
    encoder: Any = model[0].model
    tokens = encoder.embeddings(input_ids=features["input_ids"])
    if encoder.config.model_type == "albert":
        tokens = encoder.encoder.embedding_hidden_mapping_in(tokens)
    mask = features["attention_mask"].unsqueeze(-1)
    return (tokens * mask).sum(1) / mask.sum(1).clamp(min=1)


class BottleneckLoss(MatchLoss):
    """The student's factorised embedding layer alone matches the assistant's: stage 2.

    L = MSE(e_S(en), e_A(en)) + MSE(e_S(xx), e_A(xx)), with e(x) the mean over tokens of an embedding layer's output.
    Nothing above the embedding layer gets a gradient. Student and assistant share their tokenizer.
    """

    def __init__(self, model: SentenceTransformer, assistant: SentenceTransformer) -> None:
        super().__init__(model)
        processes.share_gradients(model.parameters())  # the student itself makes no pass
        # in a tuple it is not a part of the module, so no checkpoint holds it
        self.assistant = (assistant.requires_grad_(False).eval().to(model.device),)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Any) -> Tensor:
        """Return the loss of one batch: the two sides of B pairs."""
        sides = list(sentence_features)
        with torch.no_grad():
            targets = [embedding_output(self.assistant[0], features) for features in sides]
        model: Any = getattr(self.model, "module", self.model)  # torch wraps that of several processes
        outputs = [embedding_output(model, features).float() for features in sides]
        return self.compute_loss_from_embeddings(outputs, targets)

    def get_config_dict(self) -> dict[str, Any]:
        """Return no settings: the loss has none."""
        return {}
