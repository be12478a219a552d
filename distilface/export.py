"""A model folder as ONNX files beside its weights, each written only where its vectors are the folder's.

The encoder reads ``input_ids`` and ``attention_mask`` of any batch and length, and gives ``last_hidden_state`` (the
token vectors that the folder's pooling reads, so that a runtime that pools by itself meets the same embedding) and
``sentence_embedding`` (pooling, ``Dense`` and ``Normalize`` included).
"""

import contextlib
import importlib.util
import json
import logging
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from distilface.folder import Folder, load
from distilface.record import environment, write_whole
from distilface.settings import InputError, check_known

#: What is imported where it is used: an extra, and onnxruntime's tools change ``sys.path`` as they are imported.
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
#: The results of an export, in the folder.
RECORD = "export.json"
#: Least cosine to the folder's own vectors, of a file that computes as the folder does.
SAME = 1 - 1e-5
#: Most points of Spearman x 100 that a smaller file may lose.
LOSS = 1.0
#: Sentences that are also encoded one by one: the scale of a dynamic int8 activation is its batch's.
ALONE = 100


@dataclass(frozen=True)
class Format:
    """One file: where it lies, how it is made of the fp32 file, and what it must keep.

    Attributes:
        file: in the folder.
        make: writes the second path from the first, the fp32 file.
        exact: whether every vector must be the folder's (:data:`SAME`), or only the score (:data:`LOSS`).
        what: in words, for people.
    """

    file: str
    make: Callable[[Path, Path], Any]
    exact: bool
    what: str


@dataclass(frozen=True)
class Parity:
    """How near a file comes to the folder in fp32, on given sentences.

    ``min_alone`` is the least cosine of a sentence encoded alone to itself in a batch. Scores are Spearman x 100 on
    scored pairs; ``megabytes`` are of 10^6 bytes; ``sentences_per_second`` is one pass in batches of 32, by length.
    """

    megabytes: float
    min_cosine: float
    mean_cosine: float
    min_alone: float
    score: float
    score_change: float
    sentences_per_second: float
    refused: str | None = None


class _Encoder(nn.Module):
    """What is exported: all the modules of a model, from ids to both outputs."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the token vectors, shape (B, T, width), and the embeddings, shape (B, dimensions)."""
        features = self.model({"input_ids": input_ids, "attention_mask": attention_mask})
        return features["token_embeddings"], features["sentence_embedding"]


def to_onnx(model: SentenceTransformer, file: Path) -> None:
    """Write a model as one self-contained ONNX file in fp32, of dynamic batch and length."""
    tokens = model.tokenizer(["a dog", "the dog runs in the park"], padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask")
    with _quiet_exporter():
        _export(model, [tokens[name] for name in names], names, file)
    _forget_origin(file)


def _forget_origin(file: Path) -> None:
    """Take out of an ONNX file where each node was traced: the paths of this machine, which would be published."""
    import onnx

    graph = onnx.load(file)
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(graph, file)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep the exporter from warning of its own parts, and of torchvision where there is none."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logger.setLevel(before)


def _export(model: SentenceTransformer, example: list[Tensor], names: Sequence[str], file: Path) -> None:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("sequence")
    torch.onnx.export(
        _Encoder(model).eval(),  # the wrapper's own mode is what the exporter restores
        tuple(example),
        str(file),
        dynamo=True,
        external_data=False,
        verbose=False,
        input_names=list(names),
        output_names=["last_hidden_state", "sentence_embedding"],
        dynamic_shapes={name: {0: batch, 1: length} for name in names},
    )


def to_fp16(source: Path, target: Path) -> None:
    """Write an ONNX file with fp16 weights, fp32 at its ends."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(source), keep_io_types=True), target)


def to_int8(source: Path, target: Path, signed: bool) -> None:
    """Write an ONNX file with int8 weights, the embedding table among them, a scale for each channel.

    Args:
        source: in fp32.
        target: where to.
        signed: weights from -128; without VNNI, x86 adds their products in 16 bits, which can overflow.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        # Layers that share weights are left in fp32 unless the graph has been through the optimiser.
        optimised = Path(folder) / "optimised.onnx"
        quant_pre_process(source, optimised, skip_symbolic_shape=True)
        kind = QuantType.QInt8 if signed else QuantType.QUInt8
        quantize_dynamic(optimised, target, per_channel=True, weight_type=kind)


#: What can be exported, by the names that transformers.js and sentence-transformers look for.
FORMATS = {
    "onnx": Format("onnx/model.onnx", shutil.copyfile, True, "fp32"),
    "fp16": Format("onnx/model_fp16.onnx", to_fp16, False, "fp16, for GPUs"),
    "quantized": Format("onnx/model_quantized.onnx", lambda s, t: to_int8(s, t, False), False, "int8, for browsers"),
    "vnni": Format("onnx/model_qint8_avx512_vnni.onnx", lambda s, t: to_int8(s, t, True), False, "int8, x86 with VNNI"),
    "avx2": Format("onnx/model_quint8_avx2.onnx", lambda s, t: to_int8(s, t, False), False, "int8, older x86"),
    "arm64": Format("onnx/model_qint8_arm64.onnx", lambda s, t: to_int8(s, t, True), False, "int8, ARM"),
}


class OnnxEncoder:
    """An exported file as an encoder of text, on onnxruntime alone.

    Args:
        file: a file that :func:`export` wrote.
        folder: its model folder, for the tokenizer and the most tokens.
        threads: of one batch's computation; ``None`` takes torch's, for onnxruntime's own number is that of the
            machine, and twice as slow where fewer may be used.

    Raises:
        InputError: without onnxruntime.
    """

    def __init__(self, file: str | Path, folder: str | Path, threads: int | None = None) -> None:
        _check_installed()
        import onnxruntime

        model = load(folder)
        self.tokenizer, self.length = model.tokenizer, model.max_seq_length
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def encode(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Embed texts, in batches of similar length: shape (n, width), float32, in the order given."""
        order = np.argsort([len(text) for text in texts], kind="stable")
        found: list[np.ndarray] = []
        for start in range(0, len(order), batch_size):
            batch = [texts[row] for row in order[start : start + batch_size]]
            tokens = self.tokenizer(batch, padding=True, truncation=True, max_length=self.length, return_tensors="np")
            given = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
            found.append(self.session.run(["sentence_embedding"], given)[0])
        embeddings = np.concatenate(found).astype(np.float32)
        embeddings[order] = embeddings.copy()
        return embeddings


def _check_installed() -> None:
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise InputError(f"ONNX files need {', '.join(missing)}; pip install 'distilface[onnx]'")


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)


def _score(embeddings: np.ndarray, scores: Sequence[float]) -> float:
    """Return Spearman x 100 of the cosines of the first half with the second."""
    first, second = np.split(_unit(embeddings), 2)
    return 100 * float(spearmanr((first * second).sum(1), scores).statistic)


def compare(file: Path, folder: Path, pairs: Dataset, wanted: np.ndarray, exact: bool) -> Parity:
    """Measure a file against the folder's own vectors, and say whether it may be written.

    Args:
        file: an ONNX file.
        folder: its model folder.
        pairs: ``sentence1``, ``sentence2``, ``score``.
        wanted: the folder's embeddings of all first sentences, then of all second ones.
        exact: as :class:`Format`.
    """
    encoder, texts = OnnxEncoder(file, folder), [*pairs["sentence1"], *pairs["sentence2"]]
    began = time.perf_counter()
    given = encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - began)
    cosines = (_unit(given) * _unit(wanted)).sum(1)
    alone = (_unit(encoder.encode(texts[:ALONE], batch_size=1)) * _unit(given[:ALONE])).sum(1)
    score = _score(given, pairs["score"])
    change = score - _score(wanted, pairs["score"])
    refused = None
    if exact and not cosines.min() >= SAME:
        refused = f"the least cosine to the folder's vectors is {cosines.min():.6f}, below {SAME}"
    elif not change >= -LOSS:
        refused = f"Spearman falls by {-change:.2f} points to {score:.2f}, and {LOSS} are allowed"
    return Parity(
        megabytes=round(file.stat().st_size / 1e6, 2),
        min_cosine=round(float(cosines.min()), 6),
        mean_cosine=round(float(cosines.mean()), 6),
        min_alone=round(float(alone.min()), 6),
        score=round(score, 4),
        score_change=round(change, 4),
        sentences_per_second=round(rate, 1),
        refused=refused,
    )


def export(path: str | Path, pairs: Dataset, formats: Sequence[str] = tuple(FORMATS)) -> dict[str, Parity]:
    """Write the files of a model folder that pass, and what was measured in ``export.json``.

    A file that is there already is replaced where the new one passes, and removed where it does not: it is of older
    weights, or would be refused today.

    Args:
        path: a model folder.
        pairs: scored pairs to measure on, from :func:`distilface.data.read_sts`.
        formats: names of :data:`FORMATS`.

    Returns:
        For each format what was found, with the reason where it was refused.

    Raises:
        InputError: on an unknown format, a folder that is no whole model, or missing packages.
    """
    check_known(formats, list(FORMATS), "format")
    folder = Folder(Path(path))
    folder.check()
    _check_installed()
    model, found = load(path), {}
    texts = [*pairs["sentence1"], *pairs["sentence2"]]
    wanted = np.asarray(model.encode(texts, prompt=""), np.float32)  # a file knows nothing of a default prompt
    print(f"{len(formats)} formats, each of {2 * len(pairs):,} sentences", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder.path.resolve().parent, prefix=".") as temporary:
        source = Path(temporary) / "source.onnx"
        to_onnx(model, source)
        for name in formats:
            form, made = FORMATS[name], Path(temporary) / f"{name}.onnx"
            form.make(source, made)
            found[name] = compare(made, folder.path, pairs, wanted, form.exact)
            _put(made, folder.path / form.file, found[name])
    _record(folder, found, len(pairs))
    return found


def _put(made: Path, place: Path, parity: Parity) -> None:
    """Put a file that passed in its place, and say what was found."""
    if parity.refused:
        place.unlink(missing_ok=True)
        print(f"{place.name}: not written: {parity.refused}", file=sys.stderr)
        return
    place.parent.mkdir(exist_ok=True)
    made.replace(place)
    print(
        f"{place.name}: {parity.megabytes:.1f} MB, least cosine {parity.min_cosine:.4f}, Spearman {parity.score:.2f} "
        f"({parity.score_change:+.2f}), {parity.sentences_per_second:,.0f} sentences/s",
        file=sys.stderr,
    )


def read_record(folder: Folder) -> dict[str, Any]:
    """Return what the exports of a folder have shown, if they are of the weights that it has now; else nothing."""
    file = folder.path / RECORD
    if not file.is_file():
        return {}
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record if record.get("fingerprint") == folder.fingerprint else {}


def _record(folder: Folder, found: dict[str, Parity], pairs: int) -> None:
    files = read_record(folder).get("files", {})
    files |= {FORMATS[name].file: {"what": FORMATS[name].what, **asdict(parity)} for name, parity in found.items()}
    record = {"fingerprint": folder.fingerprint, "pairs": pairs, "files": files, **environment()}
    write_whole(folder.path / RECORD, record, indent=2)
