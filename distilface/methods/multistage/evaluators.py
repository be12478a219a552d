"""The scores that choose the checkpoints of a cross-lingual training."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import TranslationEvaluator

from distilface.methods.multistage.losses import embedding_output
from distilface.settings import InputError
from distilface.training.evaluators import DevEvaluator


class CrossLingualEvaluator(DevEvaluator):
    """The mean of two scores: Spearman on scored English pairs, and the accuracy of the nearest translation; x 100.

    The second is the share of the held-out sentences of a language whose English side is the nearest by cosine among
    those of that language, averaged over the languages. Each can be measured without the other: an English model
    has the first, a model of topics the second. The choice is ours; the paper names none.

    Args:
        dev: scored English pairs.
        held_out: pairs of :func:`distilface.data.parallel.held_out_split`.
        batch_size: sentences in a batch.
    """

    measured = "stsb_dev_and_translation"
    key = "cross_lingual"

    def __init__(self, dev: Dataset, held_out: Dataset, batch_size: int = 128) -> None:
        super().__init__(dev, batch_size=batch_size)
        frame: Any = held_out.to_pandas()
        self.translations = [
            TranslationEvaluator([*rows.english], [*rows.other], name=language, batch_size=batch_size, write_csv=False)
            for language, rows in frame.groupby("language")
            if len(rows) > 1
        ]
        if not self.translations:
            raise InputError("no language has two held-out pairs to tell apart; raise --held-out or give more pairs")

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return ``cross_lingual``, its two parts, the accuracy of each language, and the mean cosine."""
        scores = super().__call__(model, *args, **kwargs)
        languages = {f"accuracy_{e.name}": 100 * e(model)[f"{e.name}_trg2src_accuracy"] for e in self.translations}
        accuracy = float(np.mean(list(languages.values())))
        self.primary_metric = self.key
        return {**scores, **languages, "accuracy": accuracy, self.key: (scores["spearman"] + accuracy) / 2}


class BottleneckEvaluator(DevEvaluator):
    """How much of an assistant's embedding layer a student's explains, on held-out pairs, x 100.

    100 * (1 - |e_S - e_A|^2 / |e_A - mean e_A|^2), summed over both sides of all pairs, with e the mean over tokens
    of an embedding layer's output. What stands above that layer is not trained with it, so no STS score can be asked.

    Args:
        dev: scored English pairs; only their number is kept with the run.
        held_out: pairs of :func:`distilface.data.parallel.held_out_split`.
        assistant: whose embedding layer the student's imitates.
        batch_size: sentences in a batch.
    """

    measured = "explained_variance"
    key = "explained"

    def __init__(self, dev: Dataset, held_out: Dataset, assistant: SentenceTransformer, batch_size: int = 128) -> None:
        super().__init__(dev, batch_size=batch_size)
        self.texts = [*held_out["english"], *held_out["other"]]
        self.targets = self._outputs(assistant)

    @torch.no_grad()
    def _outputs(self, model: SentenceTransformer) -> np.ndarray:
        training, batches = model.training, []
        model.eval()
        for start in range(0, len(self.texts), self.batch_size):
            features = model.preprocess(self.texts[start : start + self.batch_size])
            features = {name: features[name].to(model.device) for name in ("input_ids", "attention_mask")}
            batches.append(embedding_output(model, features))
        model.train(training)
        return torch.cat(batches).double().cpu().numpy()

    def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return ``explained``."""
        self.primary_metric = self.key
        missed = np.square(self._outputs(model) - self.targets).sum()
        return {self.key: float(100 * (1 - missed / np.square(self.targets - self.targets.mean(0)).sum()))}
