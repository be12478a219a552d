"""Tiny model folders with an ONNX file, each with the kind of tokenizer that its family has, for the light encoder."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from families import FAMILIES, save_backbone
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny import on_one_thread, sentences
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from distilface.exporters.parity import EDGES
from distilface.model.folder import load, save_folder

#: Words to learn a vocabulary from: with the texts at the edges, cut short, no tokenizer meets only unknown pieces.
TEXTS = [*sentences(200), *(text[:60] for text in EDGES)]
PROMPTS = {"query": "Query: ", "document": "the Text: "}


def _pieces(lower: bool) -> PreTrainedTokenizerBase:
    """Learn a WordPiece tokenizer, as BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = list(FAMILIES["bert"].marks)
    trainer = trainers.WordPieceTrainer(vocab_size=260, show_progress=False, special_tokens=marks)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return transformers.BertTokenizerFast(vocab=tokenizer.get_vocab(), do_lower_case=lower)


def _bytes() -> PreTrainedTokenizerBase:
    """Learn a byte-level BPE tokenizer, as RoBERTa's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks, letters = list(FAMILIES["roberta"].marks), pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, show_progress=False, special_tokens=marks, initial_alphabet=letters)
    tokenizer.train_from_iterator(TEXTS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return transformers.RobertaTokenizerFast(vocab=model["vocab"], merges=merges)


def _unigram() -> PreTrainedTokenizerBase:
    """Learn a Unigram tokenizer, as XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = list(FAMILIES["xlm-roberta"].marks)
    trainer = trainers.UnigramTrainer(vocab_size=260, show_progress=False, special_tokens=marks, unk_token="<unk>")
    tokenizer.train_from_iterator(TEXTS, trainer)
    pieces = json.loads(tokenizer.to_str())["model"]["vocab"]
    return transformers.XLMRobertaTokenizerFast(vocab=[tuple(piece) for piece in pieces])


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "bert": lambda: _pieces(lower=True),
    "distilbert": lambda: _pieces(lower=False),
    "roberta": _bytes,
    "xlm-roberta": _unigram,
}


class _Graph(nn.Module):
    """A model from the inputs of a file to its two outputs."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        features = self.model({"input_ids": ids, "attention_mask": mask})
        return features["token_embeddings"], features["sentence_embedding"]


def _trace(model: SentenceTransformer, file: Path) -> None:
    """Write a model as an ONNX file by torch's older exporter, which takes a twentieth of the time of ours."""
    names, outputs = ["input_ids", "attention_mask"], ["last_hidden_state", "sentence_embedding"]
    sizes = {name: {0: "batch", 1: "sequence"} for name in names} | {outputs[1]: {0: "batch"}}
    example = model.tokenizer(["a dog", "the dog runs"], padding=True, return_tensors="pt")
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(
            _Graph(model).eval(),
            tuple(example[name] for name in names),
            str(file),
            dynamo=False,
            opset_version=18,
            input_names=names,
            output_names=outputs,
            dynamic_axes=sizes,
        )


def save_light(name: str, place: Path) -> Path:
    """Save a model of a family with its own tokenizer, prompts and an ONNX file in fp32; return the folder.

    The cased one lowers the case by a setting of sentence-transformers alone, and BERT's has a default prompt.
    """
    backbone = save_backbone(name, place / "backbone", vocab_size=512)
    TOKENIZERS[name]().save_pretrained(backbone)
    transformer = Transformer(str(backbone))
    pooling = Pooling(transformer.get_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu", prompts=PROMPTS)
    if name == "bert":
        model.default_prompt_name = "query"
    with on_one_thread():
        save_folder(model, place / "m")
        if name == "distilbert":
            settings = place / "m" / "sentence_bert_config.json"
            settings.write_text(settings.read_text().replace('"do_lower_case": false', '"do_lower_case": true'))
        (place / "m" / "onnx").mkdir()
        _trace(load(place / "m"), place / "m" / "onnx" / "model.onnx")
    return place / "m"
