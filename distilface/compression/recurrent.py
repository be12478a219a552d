"""The recurrent bottleneck student: a plain ``AlbertModel`` made of the bottom layers of a BERT-family encoder.

Its embedding layer is factorised (V x e, then e -> h) and its k layers run r times with the same weights, a b c
a b c: stages 2 and 3 of multi-stage distillation (arXiv 2209.05869). It loads with ``AutoModel``, no code of ours.
"""

from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AlbertConfig, AlbertModel, PreTrainedModel

from distilface.compression.student import load_student, save_encoder
from distilface.locks import scratch_folder
from distilface.model.pooling import is_normalized
from distilface.settings import InputError

#: Where the weights of a BERT or DistilBERT layer go in an ALBERT layer.
LAYER_NAMES = {
    "bert": {
        "attention.self.query": "attention.query",
        "attention.self.key": "attention.key",
        "attention.self.value": "attention.value",
        "attention.output.dense": "attention.dense",
        "attention.output.LayerNorm": "attention.LayerNorm",
        "intermediate.dense": "ffn",
        "output.dense": "ffn_output",
        "output.LayerNorm": "full_layer_layer_norm",
    },
    "distilbert": {
        "attention.q_lin": "attention.query",
        "attention.k_lin": "attention.key",
        "attention.v_lin": "attention.value",
        "attention.out_lin": "attention.dense",
        "sa_layer_norm": "attention.LayerNorm",
        "ffn.lin1": "ffn",
        "ffn.lin2": "ffn_output",
        "output_layer_norm": "full_layer_layer_norm",
    },
}
_PREFIX = {"bert": "encoder.layer", "distilbert": "transformer.layer"}
#: Dimensions of the narrow table that carry no component: one that the LayerNorm removes, one that evens the norms.
_SPARE = 2
#: Positions that most sentences fill; the others are far from these in a trained table.
USUAL = 32


def check_recurrent(config: Any, keep_layers: int, repeats: int, embedding_size: int) -> None:
    """Refuse what no recurrent student can be made of, before anything is trained.

    Args:
        config: the configuration of the encoder whose layers are kept.
        keep_layers: how many of its bottom layers are kept.
        repeats: how often they run.
        embedding_size: the width e of the narrow table.

    Raises:
        InputError: on another family than BERT or DistilBERT, relative positions, or a number out of range.
    """
    kind = config.model_type
    if kind not in LAYER_NAMES:
        raise InputError(f"{kind} layers do not fit an ALBERT; give an assistant of the family bert or distilbert")
    if (getattr(config, "position_embedding_type", None) or "absolute") != "absolute":
        raise InputError(f"{config.position_embedding_type} position embeddings do not fit an ALBERT; it has absolute")
    layers, width = config.num_hidden_layers, config.hidden_size
    if not 1 <= keep_layers <= layers:
        raise InputError(f"--keep_layers {keep_layers} is out of range; the assistant has {layers} layers")
    if repeats < 1:
        raise InputError(f"--repeats {repeats} is out of range; the layers run at least once")
    if not 2 + _SPARE <= embedding_size <= width:
        raise InputError(f"--embedding_size {embedding_size} is out of range; it must be from 4 to {width}, the width")


def recurrent_encoder(
    encoder: PreTrainedModel, keep_layers: int, repeats: int, embedding_size: int = 128, dropout: float = 0.0
) -> AlbertModel:
    """Make the ALBERT of an encoder: its bottom layers copied, its embedding layer approximated.

    Args:
        encoder: a ``BertModel`` or ``DistilBertModel``; it is not changed.
        keep_layers: k, its bottom layers that are kept.
        repeats: r, how often they run, all k in order each time.
        embedding_size: e, the width of the narrow table.
        dropout: hidden and attention dropout; ``AlbertConfig``'s own default is none.

    Raises:
        InputError: as :func:`check_recurrent`.
    """
    config: Any = encoder.config
    check_recurrent(config, keep_layers, repeats, embedding_size)
    kind = config.model_type
    albert: Any = AlbertModel(
        AlbertConfig(
            vocab_size=config.vocab_size,
            embedding_size=embedding_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=repeats,
            num_hidden_groups=1,
            inner_group_num=keep_layers,
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.hidden_dim if kind == "distilbert" else config.intermediate_size,
            hidden_act=config.activation if kind == "distilbert" else config.hidden_act,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            max_position_embeddings=config.max_position_embeddings,
            layer_norm_eps=getattr(config, "layer_norm_eps", 1e-12),
            pad_token_id=config.pad_token_id,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    weights = encoder.state_dict()
    for place, layer in enumerate(albert.encoder.albert_layer_groups[0].albert_layers):
        layer.load_state_dict(renamed(weights, f"{_PREFIX[kind]}.{place}.", LAYER_NAMES[kind]))
    _factorise(encoder.get_submodule("embeddings"), albert)
    return albert


def renamed(weights: dict[str, Tensor], prefix: str, names: dict[str, str]) -> dict[str, Tensor]:
    """Return the weights of a layer under other names."""
    return {
        f"{new}.{part}": weights[f"{prefix}{old}.{part}"] for old, new in names.items() for part in ("weight", "bias")
    }


@torch.no_grad()
def _factorise(embeddings: Any, albert: Any) -> None:
    """Start an ALBERT's embedding layer at the principal components of another's output.

    The rows X of the wide layer's output (each token at the mean of the usual positions) are reduced to
    Z = (X - m) C, their first e - 2 principal components. ALBERT's LayerNorm, in the narrow space, would take each
    row's own norm and mean away; so a further column evens the norms out to M, and an orthonormal basis B of the
    e - 1 directions of mean 0 leaves nothing for it to centre. What it then does is one factor sqrt(e) / M, which the
    widening map takes back: the layer's output is m + Z C' for every token, exact but for the positions, which enter
    to first order.
    """
    norm, words = embeddings.LayerNorm, embeddings.word_embeddings.weight
    places = embeddings.position_embeddings.weight.clone()
    if hasattr(embeddings, "token_type_embeddings"):
        places += embeddings.token_type_embeddings.weight[0]
    middle = places[:USUAL].mean(0)
    raw = words + middle
    wide = norm(raw)
    mean, components = _principal(wide, albert.config.embedding_size - _SPARE)
    narrow = (wide - mean) @ components
    square = narrow.square().sum(1, keepdim=True)
    largest = square.max().sqrt()
    basis = _centred_basis(albert.config.embedding_size)
    moved = (places - middle) / raw.std(1, correction=0).mean() * norm.weight
    table, mapping = albert.embeddings, albert.encoder.embedding_hidden_mapping_in
    table.word_embeddings.weight.copy_(torch.cat([narrow, (largest**2 - square).clamp(min=0).sqrt()], 1) @ basis.T)
    table.position_embeddings.weight.copy_(moved @ components @ basis[:, :-1].T)
    table.token_type_embeddings.weight.zero_()
    mapping.weight.copy_(components @ basis[:, :-1].T * largest / albert.config.embedding_size**0.5)
    mapping.bias.copy_(mean)


def _principal(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean of the rows, and their first principal components as columns, the largest first."""
    mean = rows.mean(0)
    chunks = ((chunk - mean).double() for chunk in rows.split(16_384))  # a whole table in float64 is gigabytes
    square = torch.stack([chunk.T @ chunk for chunk in chunks]).sum(0)
    return mean, torch.linalg.eigh(square).eigenvectors.flip(1)[:, :count].float()


def _centred_basis(size: int) -> Tensor:
    """Return an orthonormal basis, shape (size, size - 1), of the vectors whose entries sum to 0."""
    square = torch.eye(size, dtype=torch.float64)
    square[:, 0] = 1
    return torch.linalg.qr(square).Q[:, 1:].float()


def recurrent_student(
    assistant: SentenceTransformer, keep_layers: int, repeats: int, embedding_size: int = 128, dropout: float = 0.0
) -> SentenceTransformer:
    """Make the student of an assistant: :func:`recurrent_encoder` under mean pooling, with the assistant's tokenizer.

    It normalises where the assistant does, and reads as many tokens.

    Raises:
        InputError: as :func:`check_recurrent`.
    """
    transformer: Any = assistant[0]
    encoder = recurrent_encoder(transformer.model, keep_layers, repeats, embedding_size, dropout)
    with scratch_folder() as folder:
        save_encoder(encoder, assistant.tokenizer, folder)
        normalize = is_normalized(assistant)
        return load_student(folder, normalize=normalize, max_seq_length=assistant.max_seq_length, dropout=dropout)
