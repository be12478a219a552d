"""Multi-stage cross-lingual distillation (Findings of NAACL 2022, arXiv 2209.05869): the losses of its four stages.

The data of every stage are the columns ``english`` and ``other``, and the number of the row as ``label``. The
embeddings to meet are computed once (:func:`distilface.embedding.teacher_cache.embed`) and looked up by that number.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

from distilface.data.texts import numbered
from distilface.embedding.teacher_cache import embed
from distilface.settings import InputError

CITATION = """
@inproceedings{ding2022multistage,
    title = {Multi-stage Distillation Framework for Cross-Lingual Semantic Similarity Matching},
    author = {Ding, Kunbo and Liu, Weijie and Fang, Yuejian and Zhao, Zhe and Ju, Qi and Yang, Xuefeng and others},
    booktitle = {Findings of the Association for Computational Linguistics: NAACL 2022},
    year = {2022}
}
"""


def prepare(pairs: Dataset) -> Dataset:
    """Number the pairs: columns ``english``, ``other`` and ``label``, the row in which a pair's targets stand."""
    return numbered(pairs.select_columns(["english", "other"]))


def targets(
    pairs: Dataset,
    teacher: SentenceTransformer,
    column: str = "english",
    cache_dir: str | Path | None = None,
    bf16: bool | None = None,
) -> Dataset:
    """Embed one side of the pairs, once, on disk: a column ``label`` of float32 that is read as tensors."""
    return embed(teacher, pairs, cache_dir, column=column, bf16=bf16).select_columns(["label"]).with_format("torch")


def check_width(width: int, teacher: SentenceTransformer) -> None:
    """Refuse, before the teacher's pass, an assistant that cannot meet its embeddings.

    Raises:
        InputError: if their widths differ.
    """
    wanted = teacher.get_embedding_dimension()
    if width != wanted:
        raise InputError(
            f"the teacher's embeddings have {wanted} dimensions and the assistant's {width}; they must fit"
        )


class MatchLoss(nn.Module):
    """The student's embeddings of both sides of a pair meet given ones: stages 1 and 3.

    L = w * (MSE(S(en), t_en) + MSE(S(xx), t_xx)), each the mean over batch and dimensions. Stage 1 (the assistant)
    gives both sides the English teacher's embedding of the English sentence, t_en = t_xx = T(en). Stage 3 (the
    recurrent student) gives each side the assistant's own, A(en) and A(xx).

    Args:
        model: the student.
        english: what the English side shall meet, from :func:`targets`; looked up by the batch's labels.
        other: what the other side shall meet.
        weight: w. The paper's is 1; the number of dimensions gives unit vectors the scale of 1 - cosine.
    """

    def __init__(self, model: SentenceTransformer, english: Dataset, other: Dataset, weight: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.targets = (english, other)
        self.weight = weight

    def _wanted(self, rows: Tensor, device: torch.device) -> list[Tensor]:
        """Look the targets of a batch up: two tensors of shape (B, width)."""
        places = rows.tolist()
        english = self.targets[0][places]["label"].to(device)
        return [english, english if self.targets[1] is self.targets[0] else self.targets[1][places]["label"].to(device)]

    def _matched(self, embeddings: list[Tensor], wanted: list[Tensor]) -> Tensor:
        return self.weight * (mse_loss(embeddings[0], wanted[0]) + mse_loss(embeddings[1], wanted[1]))

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of one batch: the two sides of B pairs, and their rows."""
        embeddings = embed_columns(self.model, sentence_features, separate_first=False)
        return self._matched(embeddings, self._wanted(labels, embeddings[0].device))

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        return {"weight": self.weight}

    @property
    def citation(self) -> str:
        """Return the paper, as BibTeX."""
        return CITATION


class MultilingualContrastiveLoss(MatchLoss):
    """A batch's cosines across the languages meet the teacher's in English: stage 4.

    L = MSE(cos(T_en, T_en), cos(S_en, S_xx)) + w * (MSE(S_en, T_en) + MSE(S_xx, T_en)), the first term the mean over
    all B x B cosines of the batch.

    Args:
        model: the student.
        english: the teacher's embeddings of the English side, from :func:`targets`.
        weight: w; the paper's is 1.
    """

    def __init__(self, model: SentenceTransformer, english: Dataset, weight: float = 1.0) -> None:
        super().__init__(model, english, english, weight)

    def _matched(self, embeddings: list[Tensor], wanted: list[Tensor]) -> Tensor:
        relations = mse_loss(_cosines(*embeddings), _cosines(wanted[0], wanted[0]))
        return relations + super()._matched(embeddings, wanted)


def _cosines(first: Tensor, second: Tensor) -> Tensor:
    """Return the cosine of each row with each: under autocast too in fp32 or more, for bf16 would round them."""
    wide = torch.promote_types(first.dtype, torch.float32)
    with torch.autocast(first.device.type, enabled=False):
        return normalize(first.to(wide), dim=-1) @ normalize(second.to(wide), dim=-1).T


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


class BottleneckLoss(nn.Module):
    """The student's factorised embedding layer alone meets the assistant's: stage 2.

    L = MSE(e_S(en), e_A(en)) + MSE(e_S(xx), e_A(xx)), with e(x) the mean over tokens of an embedding layer's output.
    Nothing above the embedding layer gets a gradient. Student and assistant share their tokenizer.

    Args:
        model: the student, a factorised ALBERT.
        assistant: frozen; it is kept out of the module tree, so that no checkpoint holds it.
    """

    def __init__(self, model: SentenceTransformer, assistant: SentenceTransformer) -> None:
        super().__init__()
        self.model = model
        self.assistant = (assistant.requires_grad_(False).eval().to(model.device),)

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Return the loss of one batch: the two sides of B pairs."""
        terms = []
        for features in sentence_features:
            with torch.no_grad():
                wanted = embedding_output(self.assistant[0], features)
            terms.append(mse_loss(embedding_output(self.model, features).float(), wanted.float()))
        return torch.stack(terms).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card: it has none."""
        return {}

    @property
    def citation(self) -> str:
        """Return the paper, as BibTeX."""
        return CITATION
