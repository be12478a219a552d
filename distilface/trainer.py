"""What trains a sentence encoder: length-sorted batches, the loss's own state kept, a score, a collapse alarm."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.sampler import DefaultBatchSampler
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
from torch import nn
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from distilface.checkpoints import WholeCheckpoints
from distilface.settings import InputError

LOSS_STATE = "loss.safetensors"
#: Batches in one pool of :class:`LengthBatchSampler` at most: sentences are sorted by length inside a pool.
POOL = 64
#: Mean pairwise cosine of unrelated sentences above which the embeddings tell nothing apart.
COLLAPSED = 0.95


class LengthBatchSampler(DefaultBatchSampler):
    """Batches of sentences of similar length, in random order, reproducible from ``seed`` and epoch.

    Every epoch is shuffled anew, cut into pools of :data:`POOL` batches or a quarter of the epoch (one pool would
    hold the same batches in every epoch), sorted by length inside each pool, and the batches are shuffled: little
    padding, and no curriculum from short to long. The length is the column ``length`` where there is one, else the
    characters of the first text column.
    """

    def __init__(self, dataset: Dataset, batch_size: int, drop_last: bool, **kwargs: Any) -> None:
        super().__init__(dataset, batch_size=batch_size, drop_last=drop_last, **kwargs)
        self.lengths = _lengths(dataset)

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size if self.drop_last else -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.batch_size * min(POOL, max(1, len(self) // 4))
        pools = [order[start : start + size] for start in range(0, len(order), size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
        starts = np.arange(len(self)) * self.batch_size
        for start in random.permutation(starts):
            yield order[start : start + self.batch_size].tolist()


def _lengths(dataset: Dataset) -> np.ndarray:
    if "length" in dataset.column_names:
        return np.asarray(dataset["length"])
    column = dataset.column_names[0]
    batches = dataset.select_columns([column]).iter(batch_size=10_000)
    return np.concatenate([np.fromiter(map(len, batch[column]), np.int64) for batch in batches])


class EncoderTrainer(WholeCheckpoints, SentenceTransformerTrainer):
    """sentence-transformers' trainer that keeps ``loss.state_dict()`` with its checkpoints.

    Upstream saves the model alone: a projection or a memory bank on the loss would start anew at a resume,
    silently, under the moments of its old optimizer.
    """

    loss: Any

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add nothing: upstream's card copies training sentences into the README."""

    def _loss_state(self) -> dict[str, torch.Tensor]:
        """Return what the loss holds beside the student."""
        state = self.loss.state_dict()
        student = {tensor.data_ptr() for tensor in self.model.state_dict().values()}
        return {name: tensor for name, tensor in state.items() if tensor.data_ptr() not in student}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        self.model.save_pretrained(str(folder), create_model_card=False)
        torch.save(self.args, folder / "training_args.bin")
        if state := self._loss_state():
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / LOSS_STATE)

    def _load_from_checkpoint(self, checkpoint_path: Any, model: Any = None) -> None:
        own, file = self._loss_state(), Path(checkpoint_path) / LOSS_STATE
        saved = load_file(file) if file.exists() else {}
        if _shapes(own) != _shapes(saved):
            raise InputError(f"{checkpoint_path} was saved with another loss; start over with --overwrite")
        super()._load_from_checkpoint(checkpoint_path)
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


class DevEvaluator(EmbeddingSimilarityEvaluator):
    """Spearman correlation of cosines with human scores, x 100, and the mean cosine of unrelated sentences.

    A subclass may choose checkpoints by another score: ``measured`` names it for ``run.json``, ``key`` is what a call
    returns it under; higher is better.
    """

    measured = "stsb_dev"
    key = "spearman"

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
        scores = super().__call__(model, *args, **kwargs)
        self.primary_metric = "spearman"
        return {
            "spearman": 100 * scores[f"{self.name}_spearman_cosine"],
            "mean_cosine": self.mean_cosine(model),
        }

    def mean_cosine(self, model: SentenceTransformer) -> float:
        """Return the mean cosine over all pairs of different sentences."""
        vectors = model.encode(self.sentences, batch_size=self.batch_size, normalize_embeddings=True)
        count = len(vectors)
        return float((np.square(vectors.sum(0)).sum() - count) / (count * (count - 1))) if count > 1 else 0.0


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


def use_cpu_well(model: nn.Module) -> None:
    """Set a model up for training on a CPU: plain attention; no change elsewhere.

    torch's fused attention has a slow backward on CPUs, and falls back to the plain one under dropout.
    """
    if torch.cuda.is_available():
        return
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")
