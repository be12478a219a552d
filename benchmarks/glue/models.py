"""A classifier on an encoder: its tokens, its losses on a task, its predictions, and a teacher's outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, mse_loss
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase

from distilface.methods.codir.summary import SummaryPooling, pooled


class Classifier(nn.Module):
    """An encoder under a head: the mean over the real tokens, dropout, one linear map.

    The encoder of a sentence model was trained under the mean; DistilBERT's own head reads the first token, which such
    an encoder never used. Only [SEP] separates two sentences, as in DistilBERT and RoBERTa, so that teacher and student
    read the same.

    Args:
        encoder: a teacher's, or a cut of it.
        classes: of the task; 0 is a score, one output.
        dropout: before the linear map; the default is BERT's.
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
    """Return the cross-entropy, for a score the squared error; a mean over the batch."""
    return mse_loss(logits[:, 0], labels) if labels.is_floating_point() else cross_entropy(logits, labels)


def kd_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return T^2 KL(softmax(z_t / T) || softmax(z_s / T)), a mean over the batch; for a score the squared error.

    A score is one output: it has no softmax, and T has no effect on it.
    """
    if logits.shape[1] == 1:
        return mse_loss(logits, teacher)
    goal = log_softmax(teacher / temperature, dim=1)
    ours = log_softmax(logits / temperature, dim=1)
    return temperature**2 * kl_div(ours, goal, reduction="batchmean", log_target=True)


def tokenise(rows: Dataset, columns: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, max_length: int) -> Dataset:
    """Tokenise a task: ``input_ids``, ``attention_mask``, ``labels``, and each example's number in ``index``."""
    text = [rows[column][:] for column in columns]
    tokens = tokenizer(*text, truncation=True, max_length=max_length)
    kept = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    return Dataset.from_dict({**kept, "labels": rows["label"][:], "index": range(len(rows))})


def _by_length(
    model: Classifier, tokens: Dataset, collator: DataCollatorWithPadding
) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
    """Yield the numbers of rows of similar length, and their inputs, padded and on the model's device."""
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


@dataclass(frozen=True)
class TeacherOutputs:
    """A fine-tuned teacher's outputs for every example, computed once: no epoch and no student changes them.

    Attributes:
        logits: shape (n, classes or 1).
        states: by layer, its states pooled over the tokens, shape (n, 1, width). The linear map of a summary comes
            after its pooling, so that a pooled state serves as the layer of an example of a single token.
    """

    logits: Tensor
    states: dict[int, Tensor]

    def of(self, index: Tensor) -> tuple[Tensor, dict[int, Tensor], Tensor]:
        """Return the logits, the states and the mask of some examples, on the device of their numbers."""
        rows, device = index.cpu(), index.device
        states = {layer: state[rows].to(device) for layer, state in self.states.items()}
        return self.logits[rows].to(device), states, torch.ones(len(rows), 1, device=device)


@torch.no_grad()
def run_teacher(
    teacher: Classifier,
    tokens: Dataset,
    collator: DataCollatorWithPadding,
    layers: Sequence[int],
    pooling: SummaryPooling,
    bf16: bool,
) -> TeacherOutputs:
    """Compute a teacher's outputs for every example; the teacher is frozen and in eval mode from here on.

    Args:
        teacher: a fine-tuned one; in train mode its dropout would be in every output.
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
            output, hidden = teacher(**batch)
        logits[rows] = output.cpu()
        for layer in layers:
            states[layer][rows, 0] = pooled(hidden[layer].float(), batch["attention_mask"], pooling).cpu()
    return TeacherOutputs(logits, states)
