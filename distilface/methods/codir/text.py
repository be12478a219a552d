"""CoDIR (arXiv 2009.14167) on unlabelled sentences: another objective, plus the contrast of intermediate layers."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from distilface.data.texts import numbered
from distilface.methods import simcse
from distilface.methods.codir.loss import CoDIRLoss
from distilface.model.prompts import default_prompt, tokenizer_rules, tokens_of
from distilface.settings import InputError

logger = logging.getLogger(__name__)


def prepare(texts: Dataset, views: int = 1) -> Dataset:
    """Put its own number beside every sentence, in a column ``label``.

    Args:
        texts: a column ``text``; an example is followed by its row here, however it is shuffled.
        views: columns that hold the sentence: 1, or 2 for SimCSE's two dropout views.
    """
    one = texts.select_columns(["text"]).rename_column("text", "sentence1")
    return numbered(one if views == 1 else simcse.prepare(texts))


def announce(loss: CoDIRLoss) -> None:
    """Report what the memory banks take, in memory and in each checkpoint."""
    what = "queues" if loss.banks.queue else "memory banks"
    size = loss.banks.rows.numel() * loss.banks.rows.element_size() / 1e6
    logger.info(
        f"CoDIR: two {what} of {len(loss.banks):,} rows of {loss.banks.rows.shape[-1]}, {size:,.1f} MB in memory and "
        f"in each checkpoint; student layers {loss.student.layers}, teacher layers {loss.teacher.layers}"
    )


class CoDIRTextLoss(nn.Module):
    """An objective on the student's embeddings, and CoDIR on its hidden states: L = base + weight * L_CoDIR.

    The paper's base in pre-training is the masked-LM loss with its distillation; a sentence encoder's is the distance
    to the teacher's embedding (:mod:`distilface.methods.embedding`) or SimCSE (:mod:`distilface.methods.simcse`). The
    negatives are other sentences. Both terms are means over the batch.

    The teacher runs in every step, in eval mode and without gradients; it is not a child of this module, so it is not
    optimised, put in training mode or saved. It reads the student's tokens where both tokenizers are one, and
    otherwise the text itself, by its own tokenizer, length and default prompt.

    Args:
        model: the student.
        codir: the contrast.
        base: a loss on that student with ``compute_loss_from_embeddings``.
        teacher: frozen, as :func:`distilface.training.teacher.load_teacher` gives it.
        texts: the sentences by their number, a column ``text``.
        weight: of the contrast.
        targets: the teacher's embeddings by the same number, a column ``label`` as
            :func:`distilface.methods.embedding.prepare` gives; ``None`` where the base needs none.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        codir: CoDIRLoss,
        base: Any,
        teacher: SentenceTransformer,
        texts: Dataset,
        weight: float,
        targets: Dataset | None = None,
    ) -> None:
        super().__init__()
        self.model, self.codir, self.base, self.weight = model, codir, base, weight
        self.texts, self.targets = texts, targets
        self._teacher = (teacher.requires_grad_(False).eval(),)
        rules = tokenizer_rules(model)
        self.shares_tokens = default_prompt(teacher) is None and rules is not None and rules == tokenizer_rules(teacher)

    @property
    def teacher(self) -> SentenceTransformer:
        """The teacher, held where torch does not look for parameters."""
        return self._teacher[0]

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """Return both terms of one batch; the trainer adds them up and logs each.

        Args:
            sentence_features: one column, or SimCSE's two; the contrast reads the first.
            labels: the numbers of the sentences, shape (B).
        """
        columns = list(sentence_features)
        with all_layers(self.model):
            outputs = [self.model(dict(features)) for features in columns]
        embeddings = [output["sentence_embedding"] for output in outputs]
        targets = None if self.targets is None else [self.targets[labels.tolist()]["label"].to(labels.device)]
        states, mask = outputs[0]["all_layer_embeddings"], columns[0]["attention_mask"]
        contrast = self.codir(states, mask, *self._read(columns[0], labels), labels)
        base = self.base.compute_loss_from_embeddings(embeddings, targets)
        return {"base": base, "codir": self.weight * contrast}

    @torch.no_grad()
    def _read(self, features: dict[str, Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the teacher's hidden states and its mask, on the student's device."""
        limit = self.teacher.max_seq_length
        if self.shares_tokens and (limit is None or features["input_ids"].shape[1] <= limit):
            tokens = {name: features[name].to(self.teacher.device) for name in ("input_ids", "attention_mask")}
        else:
            tokens = tokens_of(self.teacher, self.texts[labels.tolist()]["text"])
        with all_layers(self.teacher):
            states = self.teacher[0](dict(tokens))["all_layer_embeddings"]
        return [state.to(labels.device) for state in states], tokens["attention_mask"].to(labels.device)

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings of the loss, for the model card."""
        base = {"base": type(self.base).__name__, **self.base.get_config_dict()}
        return {**base, "codir": self.codir.get_config_dict(), "weight": self.weight}

    @property
    def citation(self) -> str:
        """Return the papers, as BibTeX."""
        return f"{self.base.citation}{self.codir.citation}"


def encoder_config(model: SentenceTransformer, who: str) -> Any:
    """Return the configuration of a model's encoder.

    Raises:
        InputError: if it has no layers to summarise, as a table of word vectors has none.
    """
    config = getattr(model[0], "config", None)
    if not hasattr(config, "num_hidden_layers"):
        raise InputError(f"the {who} is a {type(model[0]).__name__} without hidden layers; CoDIR needs a transformer")
    return config


@contextlib.contextmanager
def all_layers(model: SentenceTransformer) -> Iterator[None]:
    """Have an encoder give all its hidden states, as ``all_layer_embeddings``; its saved config says nothing of it."""
    config: Any = model[0].config
    before, config.output_hidden_states = config.output_hidden_states, True
    try:
        yield
    finally:
        config.output_hidden_states = before
