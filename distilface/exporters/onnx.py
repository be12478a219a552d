"""How the ONNX file in fp32 is made of a model; :mod:`~distilface.exporters.smaller` makes the others of it."""

import contextlib
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from distilface.console import quiet_logger
from distilface.model.dimensions import cut
from distilface.model.families import family_name
from distilface.model.static import is_static, token_table
from distilface.runtimes.base import INPUTS, padded, token_ids
from distilface.settings import InputError


class _Graph(nn.Module):
    """All the modules of a model, from the inputs of a file to its two outputs."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the token vectors, shape (B, T, width), and the embeddings, shape (B, dimensions)."""
        features = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
        return features["token_embeddings"], cut(self.model, features["sentence_embedding"])


class _StaticGraph(nn.Module):
    """A static model, from the inputs of a file to its two outputs: of the pieces' vectors, those that are real count.

    ``StaticEmbedding`` itself reads the pieces of all texts in one row, with the place where each text begins.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(token_table(model).weight.detach())
        self.others = nn.ModuleList(list(model)[1:])
        self.cut = partial(cut, model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pieces' vectors, shape (B, T, width), and the embeddings; of an empty text, zeros."""
        tokens, mask = self.table(input_ids), attention_mask.unsqueeze(-1).to(torch.float32)
        # Counted in whole numbers: of a float's maximum, onnxruntime's conversion to fp16 makes a graph out of order.
        pieces = attention_mask.sum(1, keepdim=True).clamp(min=1)
        features = {"sentence_embedding": (tokens * mask).sum(1) / pieces}
        for module in self.others:
            features = module(features)
        return tokens, self.cut(features["sentence_embedding"])


def to_onnx(model: SentenceTransformer, file: Path) -> None:
    """Write a model as one self-contained ONNX file in fp32, of dynamic batch and length."""
    batch = padded(model, token_ids(model, ["a dog", "the dog runs in the park"]))
    with _quiet_exporter():
        example = [torch.from_numpy(batch[name]) for name in INPUTS]
        if is_static(model):
            _export(_StaticGraph(model), example, file)
        else:
            _export_any(model, example, file)
    _tidy(file)


def _tidy(file: Path) -> None:
    """Store each weight of an ONNX file once, and remove where each part was traced.

    The exporter turns a shared weight around for each of its products; what it notes are the paths of this machine, and
    up to 14 kB of names.
    """
    import onnx
    import onnx_ir
    from onnx_ir.passes.common import DeduplicateHashedInitializersPass

    model = onnx.load(file)
    shared = onnx_ir.from_proto(model)
    if DeduplicateHashedInitializersPass()(shared).modified:
        model = onnx_ir.to_proto(shared)
    graph = model.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        del part.metadata_props[:]
    for node in graph.node:
        node.doc_string = ""
    onnx.save(model, file)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter from warning of its own internals, and of torchvision where that is not installed."""
    with quiet_logger("torch.onnx"), warnings.catch_warnings(action="ignore"):
        yield


def _export_any(model: SentenceTransformer, example: list[Tensor], file: Path) -> None:
    """Export a model with the plain attention, or with its own where a family's plain one cannot be exported.

    The exporter takes a fused attention apart into a longer graph: it transposes the keys twice, scales both queries
    and keys, and looks for rows that are masked as a whole, which no text has.

    Raises:
        InputError: if it can be exported in neither way.
    """
    encoder: Any = model[0].model
    attention = encoder.config._attn_implementation
    try:
        encoder.set_attn_implementation("eager")
        _export(_Graph(model), example, file)
    except torch.onnx.OnnxExporterError:
        encoder.set_attn_implementation(attention)
        try:
            _export(_Graph(model), example, file)
        except torch.onnx.OnnxExporterError as error:
            cause = str(error.__cause__ or error).splitlines()[0]
            raise InputError(
                f"{family_name(encoder.config)} cannot be written as ONNX ({cause}); encode it by torch, --variant fp32"
            ) from error
    finally:
        encoder.set_attn_implementation(attention)


def _export(graph: nn.Module, example: list[Tensor], file: Path) -> None:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence")
    torch.onnx.export(
        graph.eval(),  # the exporter restores the wrapper's mode: in train mode, dropout would come back
        tuple(example),
        str(file),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=list(INPUTS),
        output_names=["last_hidden_state", "sentence_embedding"],
        dynamic_shapes={name: {0: batch, 1: length} for name in INPUTS},
    )
