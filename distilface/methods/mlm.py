"""Masked-LM adaptation of a backbone to one's own text (BERT, arXiv 1810.04805, section 3.1)."""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    DataCollatorForLanguageModeling,
    DistilBertForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.modeling_outputs import MaskedLMOutput

from distilface.compression.layers import check_foldable
from distilface.compression.student import load_backbone
from distilface.hub_ids import DEFAULT_BACKBONE, resolve
from distilface.methods.base import Method, Paper, Task
from distilface.model.families import family_name
from distilface.settings import InputError, setting
from distilface.training.batches import LengthBatchSampler
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.fitting import arguments
from distilface.training.settings import TrainSettings
from distilface.training.verdict import Measure

logger = logging.getLogger(__name__)

#: Share of the tokens that are masked, as in BERT.
MASKED = 0.15

PAPER = Paper(
    name="masked-LM adaptation of a backbone",
    summary="the encoder guesses masked tokens of one's own text; what it writes is a backbone, not a sentence encoder",
    links={"bert": "https://arxiv.org/abs/1810.04805"},
    bibtex="""
@inproceedings{devlin2019bert,
    title = {{BERT}: Pre-training of Deep Bidirectional Transformers for Language Understanding},
    author = {Devlin, Jacob and Chang, Ming-Wei and Lee, Kenton and Toutanova, Kristina},
    booktitle = {Conference of the North American Chapter of the ACL (NAACL)},
    year = {2019}
}
""",
    limits=(
        "Its token vectors were never trained to be pooled: as a sentence encoder it is poor until it is trained on.",
    ),
)


@dataclass
class MaskedLMSettings(TrainSettings):
    """Options of masked-LM adaptation."""

    output_dir: str = setting("models/backbone", "the backbone folder to write")
    backbone: str = setting(DEFAULT_BACKBONE, "a Hub id or folder: a DistilBERT, or an encoder to cut with --layers")
    layers: list[int] | None = setting(None, "cut these layers, counted from 0, into a DistilBERT")
    held_out: int = setting(2000, "sentences kept out of the training, on which the loss is measured")
    dropout: float = setting(0.0, "dropout of this training; what is written keeps the backbone's own")
    learning_rate: float = setting(2e-4, "peak learning rate of AdamW")
    batch_size: int = setting(128, "sentences a step")
    train_max_length: int = setting(48, "tokens of a sentence that training reads")
    eval_steps: int = setting(250, "steps between two measurements of the held-out loss, each with a checkpoint")


class MaskedLM(DistilBertForMaskedLM):
    """``DistilBertForMaskedLM`` that projects to the vocabulary only the tokens that are scored.

    The loss is upstream's to rounding. Six of seven tokens are not masked, and their projection (tokens x 30,522)
    would cost about as much as the encoder itself. Without ``labels`` it is upstream's forward.

    Equation: mean over masked positions i of -log softmax(W h_i + b)[token_i].
    """

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput:
        """Return the loss over the tokens whose label is not -100, 0 where a batch has none (upstream: NaN).

        Logits only where no labels are given.
        """
        if labels is None:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        hidden = self.distilbert(input_ids=input_ids, attention_mask=attention_mask)[0]
        scored = labels != -100
        hidden = self.vocab_layer_norm(self.activation(self.vocab_transform(hidden[scored])))
        loss = nn.functional.cross_entropy(self.vocab_projector(hidden), labels[scored], reduction="sum")
        return MaskedLMOutput(loss=loss / max(len(hidden), 1))


# ``save_pretrained`` writes the name of the class into config.json, where loaders look for the head.
MaskedLM.__name__ = DistilBertForMaskedLM.__name__


def load_masked_lm(source: str, layers: Sequence[int] | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone with a masked-LM head and its tokenizer.

    A backbone that has a head (``distilbert-base-uncased``, or what :mod:`distilface.methods.mlm` wrote) keeps
    it; a layer cut, or an encoder without one, gets a fresh head, its projection tied to the word embeddings.

    Raises:
        InputError: if the source is no model, or is neither a DistilBERT nor cut into one.
    """
    encoder, tokenizer = load_backbone(source, layers)
    if encoder.config.model_type != "distilbert":
        check_foldable(encoder.config)  # a family that no cut is made of has no remedy of layers
        raise InputError(
            f"{source} is {family_name(encoder.config)}; name the layers to cut into a DistilBERT (--layers)"
        )
    if tokenizer.mask_token_id is None:
        raise InputError(f"the tokenizer of {source} has no mask token; masked-LM needs one")
    if layers is None and "DistilBertForMaskedLM" in (encoder.config.architectures or []):
        model = MaskedLM.from_pretrained(resolve(source), dtype=torch.float32)
    else:
        config: Any = encoder.config
        model = MaskedLM(config)
        model.distilbert.load_state_dict(encoder.state_dict())
    model.tie_weights()
    return model, tokenizer


def set_dropout(model: PreTrainedModel, dropout: float) -> None:
    """Set the dropout of this training; the saved configuration keeps the encoder's own."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout


def prepare(texts: Dataset, tokenizer: PreTrainedTokenizerBase, max_seq_length: int) -> Dataset:
    """Tokenise sentences: ``input_ids``, truncated to ``max_seq_length`` tokens, and their ``length``."""

    def tokenise(batch: dict[str, list[str]]) -> dict[str, list[Any]]:
        """Tokenise one batch of sentences."""
        ids = tokenizer(batch["text"], truncation=True, max_length=max_seq_length)["input_ids"]
        return {"input_ids": ids, "length": [len(i) for i in ids]}

    return texts.map(tokenise, batched=True, remove_columns=texts.column_names, desc="tokenising")


class BatchSeededMasking(DataCollatorForLanguageModeling):
    """Upstream's masking (15% of the tokens: 80% [MASK], 10% another, 10% kept), drawn from the batch itself.

    The draw is seeded by the token ids of the batch. Upstream draws from the global generator, which the data
    loader reads one batch ahead of the dropout: a resumed run would see other masks than one that never stopped.
    """

    def torch_call(self, examples: list[Any]) -> dict[str, Any]:
        """Mask one batch of ``input_ids``."""
        ids = [list(example["input_ids"]) for example in examples]
        self.generator = torch.Generator().manual_seed(zlib.crc32(str(ids).encode()))
        return dict(super().torch_call([{"input_ids": row} for row in ids]))


class BackboneTrainer(WholeCheckpoints):
    """transformers' trainer for a masked-LM backbone, with length-sorted batches and one held-out loss."""

    train_dataset: Any
    eval_dataset: Any
    processing_class: Any

    def get_train_dataloader(self) -> DataLoader:
        """Return the length-sorted batches."""
        sampler = LengthBatchSampler(
            self.train_dataset, self.args.train_batch_size, drop_last=False, seed=self.args.seed
        )
        rows = self.train_dataset.select_columns(["input_ids"])
        return self.accelerator.prepare(DataLoader(rows, batch_sampler=sampler, collate_fn=self.data_collator))

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score the held-out sentences under the same masks every time."""
        metrics = {"eval_loss": held_out_loss(self.model, self.eval_dataset, self.processing_class)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokens: Dataset, tokenizer: PreTrainedTokenizerBase) -> float:
    """Return the mean loss (nats a masked token) over held-out sentences, always under the same masks."""
    mask, total, count = BatchSeededMasking(tokenizer, mlm_probability=MASKED), 0.0, 0
    was_training = model.training
    model.eval()
    for batch in tokens.sort("length").select_columns(["input_ids"]).iter(batch_size=64):
        inputs = mask([{"input_ids": ids} for ids in batch["input_ids"]])
        inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
        scored = int((inputs["labels"] != -100).sum())
        total += float(model(**inputs).loss) * scored if scored else 0.0
        count += scored
    model.train(was_training)
    if not count:
        raise InputError("the held-out sentences are too few or too short to mask a token; hold out more of them")
    return total / count


def backbone_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tokens: Dataset,
    held_out: Dataset,
    settings: TrainSettings,
) -> tuple[BackboneTrainer, Measure]:
    """Make the trainer of a backbone and its measure, the loss on held-out sentences (lower is better).

    Args:
        model: as :func:`load_masked_lm` gives it.
        tokenizer: its tokenizer.
        tokens: the training sentences, from :func:`prepare`.
        held_out: other sentences, from :func:`prepare`.
        settings: how to train.
    """

    def save(trained: PreTrainedModel, folder: Path) -> None:
        """Write the backbone with its head, and its tokenizer."""
        trained.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    measure = Measure(
        "held_out_loss",
        lambda m: held_out_loss(m, held_out, tokenizer),
        save,
        lambda folder: load_masked_lm(str(folder))[0].eval(),
        key="eval_loss",
        higher=False,
        margin=0.1,
    )
    return BackboneTrainer(
        model=model,
        args=TrainingArguments(**arguments(settings, measure)),
        train_dataset=tokens,
        eval_dataset=held_out,
        data_collator=BatchSeededMasking(tokenizer, mlm_probability=MASKED),
        processing_class=tokenizer,
    ), measure


class MaskedLanguageModel(Method):
    """Adapt a backbone to your own text by masked-LM; its folder is a backbone for the other trainings.

        distilface train mlm --data TEXT.txt --output-dir models/my-backbone

    Cut from an encoder instead of the default backbone:

        distilface train mlm --config minilm-mlm --data TEXT.txt

    About 5,000 tokens a second for six layers of 384 on 2 cores with bf16. The last line is the verdict on the loss of
    held-out sentences (nats a masked token; lower is better).
    """

    name = "mlm"
    paper = PAPER
    Settings = MaskedLMSettings

    def trainer(self, task: Task) -> tuple[BackboneTrainer, Measure]:
        """Return the trainer of the backbone, and the loss on the held-out sentences."""
        settings = task.settings
        if not 0 < settings.held_out < len(task.texts):
            raise InputError(
                f"--held-out {settings.held_out} of {len(task.texts)} sentences leaves none for one side; change it"
            )
        model, tokenizer = load_masked_lm(settings.backbone, settings.layers)
        set_dropout(model, settings.dropout)
        split = task.texts.train_test_split(test_size=settings.held_out, seed=0)
        tokens, held_out = (prepare(split[side], tokenizer, settings.train_max_length) for side in ("train", "test"))
        logger.info(f"{sum(tokens['length']):,} tokens to train on, {len(held_out):,} sentences held out")
        return backbone_trainer(model, tokenizer, tokens, held_out, settings)
