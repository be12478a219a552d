"""The score that chooses a checkpoint, and an alarm for a collapse."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.evaluation.evaluator import BaseEvaluator
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from transformers import (
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from distilface.embedding.agreement import agreement
from distilface.embedding.joined import of_unit_length
from distilface.runtimes.endpoint import announce_cost
from distilface.settings import InputError

#: Mean pairwise cosine of unrelated sentences above which the embeddings tell nothing apart.
COLLAPSED = 0.95


def mean_cosine(embeddings: np.ndarray) -> float:
    """Return the mean cosine over all pairs of different embeddings; 0 of a single one."""
    vectors, count = of_unit_length(embeddings), len(embeddings)
    return float((np.square(vectors.sum(0)).sum() - count) / (count * (count - 1))) if count > 1 else 0.0


class DevEvaluator(EmbeddingSimilarityEvaluator):
    """Spearman correlation of cosines with human scores, x 100, and the mean cosine of unrelated sentences.

    A subclass may choose checkpoints by another score: ``measured`` names it for ``run.json``, ``key`` is what a call
    returns it under; higher is better. ``chooses`` is that of the checkpoint, where it is not the score itself.
    """

    measured = "stsb_dev"
    key = "spearman"
    chooses: str | None = None

    def __init__(self, pairs: Dataset, name: str = "dev", batch_size: int = 128) -> None:
        super().__init__(
            pairs["sentence1"],
            pairs["sentence2"],
            pairs["score"],
            batch_size=batch_size,
            main_similarity="cosine",
            similarity_fn_names=["cosine"],
            name=name,
            write_csv=False,
        )
        self.sentences = list(dict.fromkeys(pairs["sentence1"]))[:256]

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return ``spearman`` (x 100) and ``mean_cosine`` over up to 256 distinct sentences of the set."""
        announce_cost(model, [*self.sentences1, *self.sentences2, *self.sentences])
        scores = super().__call__(model, *args, **kwargs)
        self.primary_metric = "spearman"
        return {
            "spearman": 100 * scores[f"{self.name}_spearman_cosine"],
            "mean_cosine": self.mean_cosine(model),
        }

    def score(self, model: Any) -> float:
        """Return the score alone."""
        return self(model)[self.key]

    def mean_cosine(self, model: SentenceTransformer) -> float:
        """Return the mean cosine over all pairs of different sentences."""
        return mean_cosine(model.encode(self.sentences, batch_size=self.batch_size))


class AgreementEvaluator(BaseEvaluator):
    """The share of the teacher's ten nearest neighbours that a student finds, x 100, on texts without labels.

    Args:
        texts: that are not trained on, three or more.
        teacher: the teacher's embeddings of them, shape (texts, width).
        batch_size: of the student's pass.
    """

    measured = "agreement"
    key = "recall"
    chooses: str | None = None

    def __init__(self, texts: Sequence[str], teacher: np.ndarray, batch_size: int = 128) -> None:
        super().__init__()
        self.texts, self.teacher, self.batch_size = list(texts), teacher, batch_size
        self.primary_metric = self.key

    def agreement(self, model: SentenceTransformer) -> dict[str, Any]:
        """Return the number of ``texts`` and the figures of :class:`distilface.embedding.agreement.Agreement`."""
        return self._figures(self._embeddings(model))

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return ``recall``, and the ``mean_cosine`` of different texts, of one pass over the texts."""
        embeddings = self._embeddings(model)
        return {self.key: self._figures(embeddings)[self.key], "mean_cosine": mean_cosine(embeddings[:256])}

    def score(self, model: Any) -> float:
        """Return the score alone."""
        return self.agreement(model)[self.key]

    def mean_cosine(self, model: SentenceTransformer) -> float:
        """Return the mean cosine over all pairs of up to 256 of the texts."""
        return mean_cosine(model.encode(self.texts[:256], batch_size=self.batch_size))

    def _embeddings(self, model: SentenceTransformer) -> np.ndarray:
        announce_cost(model, self.texts)
        return np.asarray(model.encode(self.texts, batch_size=self.batch_size, show_progress_bar=False))

    def _figures(self, embeddings: np.ndarray) -> dict[str, Any]:
        return {"texts": len(self.texts), **agreement(self.teacher, embeddings).as_dict()}


class DevAndAgreementEvaluator(DevEvaluator):
    """The correlation with human scores, and the agreement with the teacher on texts that are not trained on.

    Their mean chooses the checkpoint. By the correlation alone a student can lose a tenth of what it has learnt of its
    teacher for two hundredths of a point; the agreement is what a search sees.

    Args:
        pairs: scored pairs, as :class:`DevEvaluator` takes them.
        agreement: on texts held out of the training.
    """

    chooses = "mean_score"

    def __init__(self, pairs: Dataset, agreement: AgreementEvaluator) -> None:
        super().__init__(pairs)
        self.agreement = agreement

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return what :class:`DevEvaluator` returns, ``recall``, and the mean of the two scores."""
        scores = super().__call__(model, *args, **kwargs)
        recall = self.agreement.agreement(model)[AgreementEvaluator.key]
        return {**scores, AgreementEvaluator.key: recall, self.chooses: (scores[self.key] + recall) / 2}

    def score(self, model: Any) -> float:
        """Return the correlation alone: of a teacher behind an endpoint each text may have to be paid for."""
        return super().__call__(model)[self.key]


class CollapseAlarm(TrainerCallback):
    """Stops a training whose embeddings have become all alike.

    The alarm is a mean cosine above :data:`COLLAPSED` that is also no lower than the untrained student's: a raw
    backbone may start above it, and training then lowers it.
    """

    def __init__(self, untrained: float) -> None:
        self.untrained = untrained

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise :class:`InputError` on a collapse."""
        cosine = (metrics or {}).get("eval_mean_cosine", 0.0)
        if cosine > COLLAPSED and cosine >= self.untrained:
            raise InputError(
                f"the embeddings have collapsed: mean cosine of different sentences {cosine:.3f} at step "
                f"{state.global_step} (untrained {self.untrained:.3f}); lower the learning rate "
                f"(now {args.learning_rate:g}) or raise the batch size"
            )
