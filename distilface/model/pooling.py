"""How token vectors become one sentence vector, made of sentence-transformers' own modules only."""

from typing import Literal, get_args

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, WeightedLayerPooling
from torch import nn

from distilface.model.prompts import default_prompt
from distilface.settings import InputError, check_known

PoolingMode = Literal["mean", "cls", "lasttoken", "last4"]

# One pooling mode of sentence-transformers as one expression over `tokens` and `mask`, padded on the right.
_AS_TORCH = {
    "cls": "tokens[:, 0]",
    "max": 'tokens.masked_fill(mask == 0, float("-inf")).max(1).values',
    "mean": "(tokens * mask).sum(1) / mask.sum(1)",
    "mean_sqrt_len_tokens": "(tokens * mask).sum(1) / mask.sum(1).sqrt()",
    "weightedmean": "(tokens * mask * place).sum(1) / (mask * place).sum(1)",
    "lasttoken": "tokens[torch.arange(len(tokens)), mask.sum(1)[:, 0] - 1]",
}

# What differs where a tokenizer pads on the left, as a decoder's does.
_FIRST = "tokens[torch.arange(len(tokens)), mask[:, :, 0].argmax(1)]"
_PADDED_LEFT = {"cls": _FIRST, "lasttoken": "tokens[:, -1]"}
_PLACE = "torch.arange(1, mask.size(1) + 1).unsqueeze(-1)"


def is_normalized(model: SentenceTransformer) -> bool:
    """Return whether a model ends in ``Normalize``: its embeddings have length 1."""
    return isinstance(list(model.children())[-1], Normalize)


def pooling_modules(transformer: Transformer, mode: PoolingMode) -> list[nn.Module]:
    """Make the modules that follow ``transformer`` in a SentenceTransformer.

    ``mean``, ``cls`` and ``lasttoken`` are one ``Pooling``. ``last4`` is the mean of the last four hidden states,
    then the masked mean over tokens: a ``WeightedLayerPooling`` whose four weights are one and stay one, then a
    ``Pooling``. What to know of ``WeightedLayerPooling``:

    - It reads every hidden state from ``layer_start`` on, and state 0 is the embeddings: the last four of n
      layers start at n - 3, and n must be right, for it sets how many weights there are.
    - It needs ``output_hidden_states`` in the encoder's own config, set here and kept in the saved
      ``config.json``; without it sentence-transformers 6 pools the last layer and says nothing.
    - Its weights are a parameter that comes back trainable from disk. They are frozen here and by
      :func:`distilface.model.folder.load`; a model loaded otherwise must be frozen again before it is trained.
    - A loader that looks for ``1_Pooling`` alone (TEI, fastembed) does not find this pooling.
    - An encoder that reports more states than ``num_hidden_layers`` + 1 (ALBERT with ``inner_group_num``
      above 1, in transformers 5) would load differently in transformers 4, and is refused.

    Args:
        transformer: the encoder's module; ``last4`` sets ``output_hidden_states`` in its config.
        mode: ``mean``, ``cls``, ``lasttoken`` or ``last4``.

    Raises:
        InputError: on an unknown mode, or ``last4`` of an encoder that has not four layers to give.
    """
    check_known([mode], get_args(PoolingMode), "pooling")
    width = transformer.get_embedding_dimension()
    if mode != "last4":
        return [Pooling(width, pooling_mode=mode)]
    layers = int(transformer.model.config.num_hidden_layers)
    if layers < 4:
        raise InputError(f"pooling 'last4' needs 4 layers or more and this encoder has {layers}; use mean")
    states = _hidden_states(transformer)
    if states != layers + 1:
        raise InputError(
            f"pooling 'last4' cannot be written portably for an encoder of {layers} layers "
            f"that gives {states} hidden states; use mean"
        )
    transformer.model.config.output_hidden_states = True
    last4 = WeightedLayerPooling(width, num_hidden_layers=layers, layer_start=layers - 3)
    return [freeze(last4), Pooling(width, pooling_mode="mean")]


def freeze(module: nn.Module) -> nn.Module:
    """Keep a module's weights out of training, and return it."""
    return module.requires_grad_(False)


def _hidden_states(transformer: Transformer) -> int:
    """Count the hidden states that the encoder gives, the embeddings among them, on one token."""
    encoder = transformer.model
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        token = torch.zeros(1, 1, dtype=torch.long, device=encoder.device)
        states = encoder(input_ids=token, output_hidden_states=True).hidden_states
    encoder.train(training)
    return len(states)


def _prompt_tokens(model: SentenceTransformer) -> int:
    """Count the tokens of the default prompt that a pooling of ``include_prompt: false`` leaves out."""
    prompt = default_prompt(model)
    return int(model.preprocess(["a"], prompt=prompt)["prompt_length"]) if prompt else 0


def pooling_code(model: SentenceTransformer) -> list[str]:
    """Spell what follows the encoder as lines of plain torch.

    The lines take ``output`` (the encoder's) and ``inputs`` (the tokenizer's, padded as it does by
    itself) to ``embeddings``. A ``Dense`` is read from the file of the module's own sub-folder of ``folder``.

    Args:
        model: whose modules and default prompt are spelt.
    """
    lines = ['mask = inputs["attention_mask"].unsqueeze(-1)', "tokens = output.last_hidden_state"]
    left = False
    for place, module in enumerate(model):
        if isinstance(module, Transformer):
            left = getattr(module.tokenizer, "padding_side", None) == "left"
        elif isinstance(module, WeightedLayerPooling):
            lines[1] = f"tokens = torch.stack(output.hidden_states[{module.layer_start}:]).mean(0)"
        elif isinstance(module, Pooling):
            modes = [module.pooling_mode] if isinstance(module.pooling_mode, str) else module.pooling_mode
            first = 0 if module.include_prompt else _prompt_tokens(model)
            if "weightedmean" in modes:
                lines.append(f"place = {'mask.cumsum(1)' if left else _PLACE}")
            if first:
                lines.append(f"mask = mask * (mask.cumsum(1) > {first})  # the tokens of the prompt are not pooled")
            codes = _AS_TORCH | _PADDED_LEFT if left else _AS_TORCH
            if first:
                codes = codes | {"cls": _FIRST}
            pooled = [codes[mode] for mode in modes]
            joined = pooled[0] if len(pooled) == 1 else f"torch.cat([{', '.join(pooled)}], 1)"
            lines.append(f"embeddings = {joined}")
        elif isinstance(module, Dense):
            activation = type(module.activation_function).__name__
            bias = ' + dense["linear.bias"]' if module.bias else ""
            lines += [
                f'dense = load_file(f"{{folder}}/{place}_Dense/model.safetensors")',
                f'embeddings = torch.nn.{activation}()(embeddings @ dense["linear.weight"].T{bias})',
            ]
        elif isinstance(module, Normalize):
            lines.append("embeddings = torch.nn.functional.normalize(embeddings, dim=1)")
    return lines
