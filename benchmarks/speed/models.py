"""The models that the speed benchmark compares, and the files of each runtime."""

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, DistilBertConfig, PretrainedConfig

from distilface.compression.student import load_student
from distilface.exporters.calibration import calibration_texts, tokenised
from distilface.exporters.formats import FORMATS
from distilface.exporters.onnx import to_onnx
from distilface.hub_ids import resolve
from distilface.model.folder import load, save_folder
from distilface.runtimes.extras import OPENVINO_INT8
from distilface.runtimes.files import megabytes
from distilface.runtimes.opening import int8_formats

logger = logging.getLogger("distilface.benchmarks.speed")

#: Each runtime, and the precision of its matrix products.
RUNTIMES = {
    "torch fp32": "fp32",
    "torch bf16": "bf16",
    "ONNX fp32": "fp32",
    "ONNX int8": "int8",
    "OpenVINO int8": "int8",
}
STUDENT, USUAL, PAPER, BERT = "3-layer student", "all-MiniLM-L6-v2", "DistilBERT, 6x768", "BERT-base, 12x768"
#: The models that are measured in random weights.
SHAPES: dict[str, Callable[[], PretrainedConfig]] = {PAPER: DistilBertConfig, BERT: BertConfig}


@dataclass(frozen=True)
class Contender:
    """One model on one runtime.

    Attributes:
        model: its name in the table.
        runtime: of :data:`RUNTIMES`.
        folder: the model's, with its tokenizer.
        file: the exported file, or empty for torch.
        megabytes: of its weights on disk, 10^6 bytes.
        pad: the id of the tokenizer's padding.
    """

    model: str
    runtime: str
    folder: str
    file: str
    megabytes: float
    pad: int


def random_model(config: PretrainedConfig, tokenizer: str, place: Path) -> Path:
    """Save an encoder of random weights under mean pooling, with the tokenizer of a folder; return its folder.

    The speed of an encoder does not depend on the values of its weights.
    """
    plain = place.with_name(f"{place.name}-plain")
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(plain)
    AutoTokenizer.from_pretrained(tokenizer, model_max_length=512).save_pretrained(plain)
    save_folder(load_student(str(plain)), place)
    return place


def model_folders(student: str | None, usual: str, place: Path) -> dict[str, Path]:
    """Return the folder of each model: the student (or the cut 0, 2, 5 of ``usual``), ``usual``, and two shapes."""
    source = Path(resolve(usual))
    if student is None:
        save_folder(load_student(str(source), [0, 2, 5], normalize=True), place / "student")
    shapes = {
        name: random_model(config(), str(source), place / f"shape{number}")
        for number, (name, config) in enumerate(SHAPES.items())
    }
    return {STUDENT: Path(student) if student else place / "student", USUAL: source, **shapes}


def exported(model: SentenceTransformer, place: Path, runtimes: Iterable[str]) -> dict[str, Path]:
    """Write a model's file for each runtime but torch, as ``export`` does, without its checks: random weights fail."""
    place.mkdir()
    source = place / "model.onnx"
    to_onnx(model, source)
    files = {"ONNX fp32": source}
    if "ONNX int8" in runtimes:
        files["ONNX int8"] = place / "int8.onnx"
        FORMATS[int8_formats()[0]].make(source, files["ONNX int8"])
    if "OpenVINO int8" in runtimes:
        files["OpenVINO int8"] = place / "int8.xml"
        FORMATS["openvino-int8"].make(
            source, files["OpenVINO int8"], tokenised(model, calibration_texts(["python"], []))
        )
    return files


def contenders(folders: dict[str, Path], runtimes: list[str], place: Path) -> list[Contender]:
    """Export each model, and list it on each runtime; BERT-base, a mere reference, is not exported: torch alone."""
    listed = []
    if "OpenVINO int8" in runtimes and (missing := OPENVINO_INT8.missing):
        logger.warning("left out: OpenVINO int8, which needs %s", ", ".join(missing))
        runtimes = [runtime for runtime in runtimes if runtime != "OpenVINO int8"]
    for name, folder in folders.items():
        own = [runtime for runtime in runtimes if name != BERT or runtime.startswith("torch")]
        model = SentenceTransformer(str(folder), device="cpu") if name == USUAL else load(folder)
        weights = round(sum(weight.numel() for weight in model.parameters()) * 4 / 1e6, 2)
        files: dict[str, Path] = {}
        if any(not runtime.startswith("torch") for runtime in own):
            logger.info("exporting %s", name)
            files = exported(model, place / f"{folder.name}-files", own)
        for runtime in own:
            file = files.get(runtime)
            size = megabytes(file) if file else weights
            listed.append(Contender(name, runtime, str(folder), str(file or ""), size, model.tokenizer.pad_token_id))
    return listed


def _config(folder: Path) -> Any:
    modules = folder / "modules.json"
    inside = json.loads(modules.read_bytes())[0]["path"] if modules.is_file() else ""
    return AutoConfig.from_pretrained(folder / inside, attn_implementation="eager")


def operations(folder: Path, lengths: Iterable[int]) -> float:
    """Count the multiplications and additions of an encoder's matrix products over texts of these numbers of tokens.

    torch's own counter counts them, on weights without values; attention is eager, for it does not see into fused ones.
    """
    with torch.device("meta"):
        model = AutoModel.from_config(_config(folder)).eval()

        @cache
        def count(length: int) -> int:
            ids = torch.zeros(1, length, dtype=torch.long)
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                model(input_ids=ids)
            return int(counter.get_total_flops())

        return float(sum(map(count, lengths)))
