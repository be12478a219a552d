"""Ways to fine-tune a student on a labelled task beside a fine-tuned teacher: CE, KD, KD + L2, KD + CoDIR."""

import logging
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from benchmarks.glue.models import Classifier, TeacherOutputs, kd_loss, task_loss
from distilface.methods.codir import CoDIRLoss, ContrastSettings, check_contrast
from distilface.settings import check_known, parse, variant_words
from distilface.training.batches import LengthBatchSampler
from distilface.training.trainer import use_cpu_well

logger = logging.getLogger("distilface.benchmarks.glue")

WAYS = ("ce", "kd", "kd+l2", "kd+codir")


def read_way(way: str) -> tuple[str, dict[str, Any]]:
    """Read a way, and the settings of the contrast that it changes.

    >>> read_way("kd+codir weight=0.1 negatives=500")
    ('kd+codir', {'weight': 0.1, 'negatives': 500})

    Raises:
        InputError: on an unknown way or setting, or a value out of range.
    """
    name, _, variant = way.partition(" ")
    check_known([name], WAYS, "way")
    if not variant:
        return name, {}
    words = variant_words(variant)
    settings = parse(ContrastSettings, words, "")
    check_contrast(settings)
    return name, {
        key: getattr(settings, key) for key in (word[2:].split("=")[0] for word in words if word.startswith("--"))
    }


class FineTuning(nn.Module):
    """One way to fine-tune: (1 - b) CE + b T^2 KL(teacher || student) + w * (CoDIR or L2), each a mean over the batch.

    Without a teacher it is the cross-entropy alone. The L2 term is the mean of |s - t|^2 over the same summaries. Its
    map on the teacher's side keeps its random start: if both maps were trained, they would converge to a constant.

    Args:
        student: the one that is trained.
        outputs: the teacher's, from :func:`benchmarks.glue.models.run_teacher`; ``None`` for CE.
        contrast: the summaries and the contrast; ``None`` for CE and KD.
        l2: use the L2 term in place of the contrast.
        beta: b.
        temperature: T.
        weight: w.
    """

    def __init__(
        self,
        student: Classifier,
        outputs: TeacherOutputs | None = None,
        contrast: CoDIRLoss | None = None,
        l2: bool = False,
        beta: float = 0.5,
        temperature: float = 2.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student, self.outputs, self.contrast, self.l2 = student, outputs, contrast, l2
        self.beta, self.temperature, self.weight = beta, temperature, weight
        if l2 and contrast is not None:
            contrast.teacher.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Return the loss of one batch; ``index`` holds the examples' numbers."""
        logits, states = self.student(input_ids, attention_mask)
        loss = task_loss(logits, labels)
        if self.outputs is None:
            return loss
        goal, teacher_states, one_token = self.outputs.of(index)
        loss = (1 - self.beta) * loss + self.beta * kd_loss(logits, goal, self.temperature)
        if self.contrast is None:
            return loss
        if self.l2:
            difference = self.contrast.student(states, attention_mask) - self.contrast.teacher(
                teacher_states, one_token
            )
            return loss + self.weight * difference.square().sum(1).mean()
        return loss + self.weight * self.contrast(states, attention_mask, teacher_states, one_token, index, labels)


class BestEpoch(TrainerCallback):
    """Scores the student at the end of each epoch and keeps the weights of the best, in memory."""

    def __init__(self, score: Callable[[Classifier], float], name: str) -> None:
        self.score, self.name = score, name
        self.curve: list[float] = []
        self.weights: dict[str, Tensor] = {}

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Score, and keep the weights if they are the best so far."""
        student = kwargs["model"].student
        self.curve.append(self.score(student))
        logger.info("%s: epoch %d, held out %.2f", self.name, len(self.curve), self.curve[-1])
        if self.curve[-1] > max(self.curve[:-1], default=-1e9):
            self.weights = {name: weight.detach().clone() for name, weight in student.state_dict().items()}


class GlueTrainer(Trainer):
    """transformers' trainer whose loss is the module's own, with length-sorted batches."""

    train_dataset: Any

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of similar length: random ones would be half padding."""
        sampler = LengthBatchSampler(self.train_dataset, self.args.train_batch_size, False, seed=self.args.seed)
        loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of one batch."""
        return model(**inputs)


def fine_tune(
    way: FineTuning, tokens: Dataset, collator: DataCollatorWithPadding, best: BestEpoch, arguments: dict[str, Any]
) -> None:
    """Fine-tune a student; it ends with the weights of its best epoch.

    Args:
        way: the student and its loss.
        tokens: from :func:`benchmarks.glue.models.tokenise`.
        collator: pads a batch.
        best: chooses the epoch.
        arguments: for transformers' :class:`TrainingArguments`.
    """
    use_cpu_well(way)
    with tempfile.TemporaryDirectory() as folder:
        training_arguments = TrainingArguments(
            output_dir=folder,  # the trainer makes it, but nothing is saved
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            **arguments,
        )
        trainer = GlueTrainer(way, training_arguments, collator, tokens, callbacks=[best])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    way.student.load_state_dict(best.weights)
