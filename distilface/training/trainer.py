"""What trains a sentence encoder: length-sorted batches, the loss's own state kept, a score, a collapse alarm."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.modules import Transformer
from torch import nn
from transformers import PreTrainedModel

from distilface import processes
from distilface.settings import InputError
from distilface.training.batches import TokenBatchSampler, cut_batches, round_lengths, token_lengths
from distilface.training.checkpoints import WholeCheckpoints

LOSS_STATE = "loss.safetensors"


class EncoderTrainer(WholeCheckpoints, SentenceTransformerTrainer):
    """sentence-transformers' trainer that keeps ``loss.state_dict()`` with its checkpoints.

    Upstream saves the model alone: a projection or a memory bank on the loss would start anew at a resume,
    silently, under the moments of its old optimizer.
    """

    loss: Any

    def __init__(self, *args: Any, batch_tokens: int | None = None, **kwargs: Any) -> None:
        """Make the trainer.

        Args:
            args: upstream's.
            batch_tokens: the padded tokens of a batch, in place of a number of texts.
            kwargs: upstream's.
        """
        self.batch_tokens = batch_tokens
        super().__init__(*args, **kwargs)
        student = {weight.data_ptr() for weight in self.model.parameters()}
        # of a projection on the loss, which would become another one in each process
        processes.share_gradients(weight for weight in self.loss.parameters() if weight.data_ptr() not in student)

    def get_batch_sampler(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return upstream's sampler, or the one that counts tokens."""
        if self.batch_tokens is None:
            return super().get_batch_sampler(dataset, *args, **kwargs)
        return TokenBatchSampler(dataset, *args, tokens=self.batch_tokens, lengths=self._token_lengths, **kwargs)

    @cached_property
    def _token_lengths(self) -> np.ndarray:
        """The tokens of each text of the training; they are counted once."""
        dataset: Any = self.train_dataset
        model: Any = self.model
        collator: Any = self.data_collator
        return token_lengths(dataset, model, collator.max_length)

    @property
    def batches(self) -> int | None:
        """The batches of an epoch, where they are not the texts divided by a number."""
        if self.batch_tokens is None:
            return None
        return len(cut_batches(np.sort(round_lengths(self._token_lengths)), self.batch_tokens, processes.count()))

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


#: Tokens of a batch from which torch's fused attention trains faster on a CPU than the plain one, in bf16 and in fp32.
LONG = 192


def use_cpu_well(model: nn.Module) -> None:
    """Set a model up for training on a CPU: the attention that is faster for the length of a batch; none elsewhere.

    At 16 tokens in bf16 the fused attention takes two and a half times as long as the plain one, at 256 two thirds of
    it. Under dropout it falls back to the plain one, and is the slower.
    """
    if torch.cuda.is_available():
        return
    chosen = set()
    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            fused = module.config._attn_implementation
            module.set_attn_implementation("eager")
            if fused == "sdpa" and not attention_dropout(module.config):
                module.register_forward_pre_hook(_attend_by_length, with_kwargs=True)
                chosen.add(id(module))
    for module in model.modules():
        if isinstance(module, Transformer) and id(module.model) in chosen:
            module.register_forward_pre_hook(_attend_by_length_inside)


def attention_dropout(config: Any) -> float:
    """Return the dropout of attention, under the name that BERT has for it or the one of DistilBERT; else 0."""
    names = ("attention_probs_dropout_prob", "attention_dropout")
    return float(next((getattr(config, name) for name in names if hasattr(config, name)), 0.0))


def _attend_by_length(encoder: Any, positional: Any, named: dict[str, Any]) -> None:
    """Take the fused attention for a long batch, the plain one for another."""
    _choose_attention(encoder, named.get("input_ids"))


def _attend_by_length_inside(module: Any, inputs: Any) -> None:
    """Do so for the encoder in a module of sentence-transformers, which calls its ``forward`` past its hooks."""
    _choose_attention(module.model, inputs[0].get("input_ids"))


def _choose_attention(encoder: Any, ids: torch.Tensor | None) -> None:
    """Set the attention for a batch of token ids, shape (texts, tokens)."""
    wanted = "eager" if ids is None or ids.shape[-1] < LONG else "sdpa"
    if encoder.config._attn_implementation != wanted:
        encoder.set_attn_implementation(wanted)
