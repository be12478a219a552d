"""A student of each kind, saved and exported in fp32, and what tests of exported files compare."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny import PAIRS, on_one_thread, sentences, tiny_backbone

from distilface.compression.recurrent import recurrent_student
from distilface.compression.student import load_student
from distilface.exporters.exporting import export
from distilface.model.folder import save_folder

#: In ALBERT the layers share their weights.
KINDS = ("mean", "cls", "last4", "dense", "albert")
PAIRS_SET = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
#: Batches and lengths that the example of the export has not, and a text longer than the model reads.
TEXTS = ["dog", *sentences(20), " ".join(sentences(9))]


def save_students(place: Path) -> None:
    """Save one model of each of :data:`KINDS`, exported in fp32; a trace of fewer layers takes less time."""
    backbone = str(tiny_backbone(place / "backbone", layers=4))
    models = {mode: load_student(backbone, [0, 3], pooling=mode) for mode in ("mean", "cls")}
    models["last4"] = load_student(backbone, pooling="last4")
    width = models["mean"].get_embedding_dimension()
    models["dense"] = SentenceTransformer(modules=[*models["mean"], Dense(width, 12), Normalize()], device="cpu")
    models["albert"] = recurrent_student(load_student(backbone, normalize=True), 2, 2, 8)
    with on_one_thread():
        for name, model in models.items():
            save_folder(model, place / name)
            export(place / name, PAIRS_SET, ["onnx"])


def as_traced(student: Path) -> Callable[[Any, Path], Any]:
    """Return what stands in for ``to_onnx``, whose trace takes seconds: it copies the file that a student has."""
    return lambda model, file: shutil.copyfile(student / "onnx" / "model.onnx", file)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine of each row of one array with that of the other."""
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


def few_bits(file: Path) -> Iterator[tuple[str, dict[str, int], np.ndarray, np.ndarray]]:
    """Yield what a file holds in few bits: the kind of its node, its flags, codes and scales, stored in fp16."""
    graph = onnx.load(file).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            flags = {flag.name: flag.i for flag in node.attribute}
            scales = tensors[f"{node.input[2]}_half"]
            assert scales.dtype == np.float16
            codes = tensors[node.input[1 if node.op_type == "MatMulNBits" else 0]]
            yield node.op_type, flags, codes, scales.astype(np.float32)
