"""A DistilBERT under its masked-LM head, which computes only what the loss reads."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import DistilBertForMaskedLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_outputs import MaskedLMOutput

from distilface.compression.layers import check_foldable
from distilface.compression.student import load_backbone
from distilface.hub_ids import resolve
from distilface.model.families import family_name
from distilface.settings import InputError


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

    A backbone that has a head (``distilbert-base-uncased``, or what masked-LM adaptation wrote) keeps
    it; a layer cut, or an encoder without one, gets a fresh head, its projection tied to the word embeddings.

    Raises:
        InputError: if the source is not a model, or neither a DistilBERT nor cut into one.
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
