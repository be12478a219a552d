"""Ways to fine-tune a student on a labelled task beside a fine-tuned teacher: CE, KD, KD + L2, KD + CoDIR."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from distilface.methods.codir import CoDIRLoss, ContrastSettings, check_contrast
from distilface.methods.codir.summary import SummaryPooling, pooled
from distilface.settings import check_known, parse, variant_words
from distilface.trainer import LengthBatchSampler, use_cpu_well

WAYS = ("ce", "kd", "kd+l2", "kd+codir")


def read_way(way: str) -> tuple[str, dict[str, Any]]:
    """Read a way and the settings of the contrast that are its own.

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


class Classifier(nn.Module):
    """An encoder under a head: the mean over the real tokens, dropout, one linear map.

    The mean is what the encoder of a sentence model was trained under; DistilBERT's own head reads the first token,
    which such an encoder never used. Two sentences are told apart by [SEP] alone, as in DistilBERT and RoBERTa, so
    that teacher and student read the same.

    Args:
        encoder: a teacher's, or a cut of it.
        classes: of the task; 0 is a score, one output.
        dropout: before the linear map; BERT's.
    """

    def __init__(self, encoder: PreTrainedModel, classes: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.encoder, self.dropout = encoder, nn.Dropout(dropout)
        self.linear = nn.Linear(encoder.config.hidden_size, classes or 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return the logits in fp32, shape (B, classes or 1), and all hidden states, the embeddings first."""
        states = self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        ).hidden_states
        mask = attention_mask.unsqueeze(-1).to(states[-1].dtype)
        mean = (states[-1] * mask).sum(1) / mask.sum(1)
        return self.linear(self.dropout(mean)).float(), states


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy, or for a score the squared error; a mean over the batch."""
    return mse_loss(logits[:, 0], labels) if labels.is_floating_point() else cross_entropy(logits, labels)


def kd_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(z_t / T) || softmax(z_s / T)), a mean over the batch; for a score the squared error.

    A score is one output: it has no softmax, and T says nothing of it.
    """
    if logits.shape[1] == 1:
        return mse_loss(logits, teacher)
    goal = log_softmax(teacher / temperature, dim=1)
    given = log_softmax(logits / temperature, dim=1)
    return temperature**2 * kl_div(given, goal, reduction="batchmean", log_target=True)


@dataclass(frozen=True)
class Answers:
    """What a fine-tuned teacher says of every example, asked once: it says the same in every epoch, to every student.

    Attributes:
        logits: shape (n, classes or 1).
        states: by layer, its states pooled over the tokens, shape (n, 1, width). A summary's one linear map comes
            after its pooling, so that each stands for the layer as if the example were a single token.
    """

    logits: Tensor
    states: dict[int, Tensor]

    def of(self, index: Tensor) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """Return the logits, the states and the mask of some examples, on the device of their numbers."""
        rows, device = index.cpu(), index.device
        states = {layer: state[rows].to(device) for layer, state in self.states.items()}
        return self.logits[rows].to(device), states, torch.ones(len(rows), 1, device=device)


class FineTuning(nn.Module):
    """One way to fine-tune: (1 - b) CE + b T^2 KL(teacher || student) + w * (CoDIR or L2), each a mean over the batch.

    Without a teacher it is the cross-entropy alone. The L2 term is the mean of |s - t|^2 over the same summaries; its
    map on the teacher's side stays as it was drawn, for two trained maps would meet in a constant.

    Args:
        student: trained.
        answers: the teacher's, from :func:`ask`; ``None`` for CE.
        contrast: the summaries and the contrast; ``None`` for CE and KD.
        l2: the L2 term in place of the contrast.
        beta: b.
        temperature: T.
        weight: w.
    """

    def __init__(
        self,
        student: Classifier,
        answers: Answers | None = None,
        contrast: CoDIRLoss | None = None,
        l2: bool = False,
        beta: float = 0.5,
        temperature: float = 2.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.student, self.answers, self.contrast, self.l2 = student, answers, contrast, l2
        self.beta, self.temperature, self.weight = beta, temperature, weight
        if l2 and contrast is not None:
            contrast.teacher.requires_grad_(False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, index: Tensor) -> Tensor:
        """Return the loss of one batch; ``index`` are the examples' own numbers."""
        logits, states = self.student(input_ids, attention_mask)
        loss = task_loss(logits, labels)
        if self.answers is None:
            return loss
        goal, teacher_states, one_token = self.answers.of(index)
        loss = (1 - self.beta) * loss + self.beta * kd_loss(logits, goal, self.temperature)
        if self.contrast is None:
            return loss
        if self.l2:
            difference = self.contrast.student(states, attention_mask) - self.contrast.teacher(
                teacher_states, one_token
            )
            return loss + self.weight * difference.square().sum(1).mean()
        return loss + self.weight * self.contrast(states, attention_mask, teacher_states, one_token, index, labels)


def tokenise(rows: Dataset, columns: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Tokenise a task: ``input_ids``, ``attention_mask``, ``labels``, and each example's number in ``index``."""
    text = [rows[column][:] for column in columns]
    tokens = tokenizer(*text, truncation=True, max_length=max_length)
    kept = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return Dataset.from_dict({**kept, "labels": rows["label"][:], "index": range(len(rows))})


def _by_length(
    model: Classifier, tokens: Dataset, collator: DataCollatorWithPadding
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Yield rows of similar length and what the model reads of them, padded and on its device."""
    order = np.argsort([len(ids) for ids in tokens["input_ids"]], kind="stable")
    columns = tokens.select_columns(["input_ids", "attention_mask"])
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = collator([columns[int(row)] for row in rows])
        yield rows, {name: value.to(model.linear.weight.device) for name, value in batch.items()}


@torch.no_grad()
def predict(model: Classifier, tokens: Dataset, collator: DataCollatorWithPadding) -> np.ndarray:
    """Return the logits for every row, in order, in fp32 and without dropout."""
    training = model.training
    model.eval()
    logits = np.zeros((len(tokens), model.linear.out_features), np.float32)
    for rows, batch in _by_length(model, tokens, collator):
        logits[rows] = model(**batch)[0].cpu().numpy()
    model.train(training)
    return logits


@torch.no_grad()
def ask(
    teacher: Classifier,
    tokens: Dataset,
    collator: DataCollatorWithPadding,
    layers: Sequence[int],
    pooling: SummaryPooling,
    bf16: bool,
) -> Answers:
    """Ask a teacher, frozen and in eval mode from here on, for all that its students may want of it.

    Args:
        teacher: fine-tuned.
        tokens: from :func:`tokenise`.
        collator: pads a batch.
        layers: whose states are kept, the embeddings 0.
        pooling: of each.
        bf16: autocast to bf16, as the students are trained.
    """
    teacher.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
    width = teacher.linear.in_features
    logits = torch.zeros(len(tokens), teacher.linear.out_features)
    states = {layer: torch.zeros(len(tokens), 1, width) for layer in layers}
    for rows, batch in _by_length(teacher, tokens, collator):
        with torch.autocast(teacher.linear.weight.device.type, torch.bfloat16, enabled=bf16):
            given, hidden = teacher(**batch)
        logits[rows] = given.cpu()
        for layer in layers:
            states[layer][rows, 0] = pooled(hidden[layer].float(), batch["attention_mask"], pooling).cpu()
    return Answers(logits, states)


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
        print(f"{self.name}: epoch {len(self.curve)}, held out {self.curve[-1]:.2f}", flush=True)
        if self.curve[-1] > max(self.curve[:-1], default=-1e9):
            self.weights = {name: weight.detach().clone() for name, weight in student.state_dict().items()}


class GlueTrainer(Trainer):
    """transformers' trainer whose loss is the module's own, with length-sorted batches."""

    train_dataset: Any

    def get_train_dataloader(self) -> DataLoader:
        """Return the batches: at random they would be half padding."""
        sampler = LengthBatchSampler(self.train_dataset, self.args.train_batch_size, False, seed=self.args.seed)
        loader = DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of one batch."""
        return model(**inputs)


def fine_tune(
    way: FineTuning, tokens: Dataset, collator: DataCollatorWithPadding, best: BestEpoch, arguments: dict[str, Any]
) -> None:
    """Fine-tune a student, and leave it with the weights of its best epoch.

    Args:
        way: the student and its loss.
        tokens: from :func:`tokenise`.
        collator: pads a batch.
        best: chooses the epoch.
        arguments: for transformers' :class:`TrainingArguments`.
    """
    use_cpu_well(way)
    with tempfile.TemporaryDirectory() as nothing:
        made = TrainingArguments(
            output_dir=nothing,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            dataloader_pin_memory=torch.cuda.is_available(),
            **arguments,
        )
        trainer = GlueTrainer(way, made, collator, tokens, callbacks=[best])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    way.student.load_state_dict(best.weights)
