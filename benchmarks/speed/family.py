"""Measure small models as people run them beside all-MiniLM-L6-v2 as people run it, in one process, in turns.

    python -m benchmarks.speed.family --folders models/minilm-5mb models/minilm-10mb --output speed-family.json

The small ones are their folders in each of the ways that the light encoder can run them here (distilface.light.ways),
the other is SentenceTransformer.encode in fp32; all have the cores that the process may use, and each core runs a batch
of its own, as where runtime="auto" has chosen. A ratio is of two passes of the same turn; the table has medians. One
sentence at a time is measured after that, a way after the other, those of onnxruntime with all threads for it, and on
one. The output keeps what other processors gave, each under its name: the same command on another machine adds a
column. Minutes.
"""

import inspect
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.checks import check_counts, check_file
from benchmarks.files import add_result
from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.environment import processor, stamp
from distilface.evaluation.tables import console, number_table
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.light import LightEncoder
from distilface.light.files import variants_in
from distilface.light.ways import for_batches, runs_here, ways_of
from distilface.settings import InputError, parse, setting
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.benchmarks.speed")

#: Embeds texts.
Encode = Callable[[Sequence[str]], Any]
USUAL = "all-MiniLM-L6-v2, SentenceTransformer.encode"


@dataclass
class FamilySettings:
    """Options of ``family``."""

    folders: list[str] = setting([], "model folders with onnx/; each of their steady ONNX files is measured")
    usual: str = setting(DEFAULT_TEACHER, "a Hub id or folder: the others are compared with it, in torch fp32")
    turns: int = setting(7, "passes of each over each set of texts; the median counts")
    output: str | None = setting(None, "add the result to this JSON file")


def texts_of() -> dict[str, list[str]]:
    """Return short sentences, and texts of about 128 tokens and of 256."""
    pairs = read_sts("sample")
    short = [*pairs["sentence1"], *pairs["sentence2"]]
    long = {f"{count} sentences": [" ".join(short[row : row + count]) for row in range(32)] for count in (10, 20)}
    return {"short": short, **long}


def rates(encoders: dict[str, Encode], texts: Sequence[str], turns: int) -> dict[str, list[float]]:
    """Return the texts a second of each encoder, turn by turn; in the first turn, not counted, a runtime allocates."""
    taken: dict[str, list[float]] = {name: [] for name in encoders}
    for turn in range(turns + 1):
        for name, encode in encoders.items():
            began = time.perf_counter()
            encode(texts)
            if turn:
                taken[name].append(len(texts) / (time.perf_counter() - began))
    return taken


def measure(encoders: dict[str, Encode], singly: dict[str, dict[str, Encode]], turns: int) -> dict[str, dict[str, Any]]:
    """Return of each encoder its texts a second, its ratio to the usual one, and the milliseconds of one sentence.

    Args:
        encoders: by their names.
        singly: what embeds one sentence at a time, and no batches, by what its milliseconds are called.
        turns: of each.
    """
    rows: dict[str, dict[str, Any]] = {name: {} for name in encoders}
    for kind, texts in texts_of().items():
        taken = rates(encoders, texts, turns)
        for name, own in taken.items():
            ratios = [one / other for one, other in zip(own, taken[USUAL], strict=True)]
            rows[name][kind] = {
                "texts_per_second": round(statistics.median(own), 1),
                "ratio": round(statistics.median(ratios), 2),
            }
        logger.info("%s: done", kind)
    singles = [[text] for text in texts_of()["short"][::4]]
    for key, those in singly.items():
        for name, encode in those.items():
            for text in singles:  # a runtime allocates for each length that it has not seen
                encode(text)
            times = []
            for text in singles:
                began = time.perf_counter()
                encode(text)
                times.append(1000 * (time.perf_counter() - began))
            rows[name][key] = round(statistics.median(times), 2)
    return rows


def open_all(
    settings: FamilySettings,
) -> tuple[dict[str, Encode], dict[str, dict[str, Encode]], dict[str, float]]:
    """Return what embeds batches by its name, what embeds sentences singly, and the megabytes: weights, and tokenizer.

    Raises:
        InputError: if there is no folder, or one has no ONNX file.
    """
    teacher = load_teacher(settings.usual, device="cpu")
    encoders: dict[str, Encode] = {USUAL: lambda texts: teacher.encode(list(texts), show_progress_bar=False)}
    singly: dict[str, dict[str, Encode]] = {"one_ms": dict(encoders), "one_ms_on_one_thread": {}}
    sizes = {USUAL: sum(weight.numel() for weight in teacher.parameters()) * 4 / 1e6}
    if not settings.folders:
        raise InputError("--folders is empty; name model folders with onnx/ (distilface export FOLDER)")
    for folder in map(Path, settings.folders):
        if not variants_in(folder):
            raise InputError(f"{folder} has no onnx/ that a light encoder reads; make it: distilface export {folder}")
        light = LightEncoder(folder)
        ways = ways_of(folder)
        for name, way in for_batches(ways).items():
            if runs_here(way):
                encoder, label = light.running(way), f"{folder.name}, {name}"
                encoders[label], sizes[label] = encoder.encode, encoder.megabytes
                singly["one_ms"][label] = (encoder if way == ways[name] else light.running(ways[name])).encode
                if way.openvino is None:
                    singly["one_ms_on_one_thread"][label] = light.running(replace(ways[name], one_thread=True)).encode
    return encoders, singly, sizes


def run(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, add to the JSON; return what this processor gave."""
    settings = parse(FamilySettings, argv, inspect.getdoc(FamilySettings) or "")
    check_counts(settings, "turns")
    check_file(settings.output)
    encoders, singly, sizes = open_all(settings)
    rows = measure(encoders, singly, settings.turns)
    kinds = list(texts_of())
    table = number_table("MB", *(head for kind in kinds for head in (f"{kind}/s", "ratio")), "one, ms", "1 thread")
    for name, row in rows.items():
        row["megabytes"] = round(sizes[name], 2)
        cells = [f"{row[kind][key]:,.2f}" for kind in kinds for key in ("texts_per_second", "ratio")]
        ones = [f"{row[key]:.2f}" if key in row else "" for key in ("one_ms", "one_ms_on_one_thread")]
        table.add_row(name, f"{sizes[name]:.2f}", *cells, *ones)
    console().print(table)
    result = {"rows": rows, "turns": settings.turns, **stamp("onnxruntime", "tokenizers")}
    add_result(settings.output, processor(), result)
    return result


if __name__ == "__main__":
    run_command(run)
