"""Measure the ONNX files of a folder as the light encoder runs them: sentences a second, and seconds to a first vector.

    python -m benchmarks.speed.light_files --folder models/minilm-l6 --output benchmarks/results/light-files.json

Seconds are those of the processor, on one thread. The files take turns, so that what else the machine does falls on
all of them alike; each has the median of its turns. With the sentences of ``sample``, in batches of 32 and one by one;
minutes.
"""

import inspect
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.environment import stamp
from distilface.light import LightEncoder
from distilface.settings import InputError, parse, setting
from distilface.storage import write_result

#: A new process to its first vector, and what of the toolkit it has imported.
FIRST = """
import sys, time
import distilface
distilface.load(sys.argv[1], runtime="onnx").encode("a dog runs in the park")
print(time.process_time())
assert not {"torch", "transformers", "datasets"} & {*sys.modules}
"""


@dataclass
class LightSettings:
    """Options of ``light_files``."""

    folder: str = setting("", "a model folder with onnx/")
    output: str = setting("", "the JSON to write; default none")
    turns: int = setting(5, "of each file; the median counts")


def rate(encoder: LightEncoder, batches: Sequence[Sequence[str]]) -> float:
    """Return the sentences a second of the processor, of one pass over batches."""
    began = time.process_time()
    for batch in batches:
        encoder.encode(batch)
    return sum(map(len, batches)) / (time.process_time() - began)


def measure(folder: Path, turns: int) -> dict[str, dict[str, float]]:
    """Return the rates of each ONNX file of a folder, by the file's name."""
    files = sorted((folder / "onnx").glob("*.onnx"))
    if not files:
        raise InputError(f"{folder} has no onnx/*.onnx; make them first: distilface export {folder}")
    encoders = {file.name: LightEncoder(folder, file=f"onnx/{file.name}", threads=1) for file in files}
    pairs = read_sts("sample")
    texts = [*pairs["sentence1"], *pairs["sentence2"]]
    single = [[text] for text in texts[::8]]
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in encoders}
    for turn in range(turns + 1):
        for name, encoder in encoders.items():
            both = rate(encoder, [texts]), rate(encoder, single)
            if turn:  # in the first, a runtime allocates
                rates[name].append(both)
    return {
        name: {
            "megabytes": round(encoders[name].file.stat().st_size / 1e6, 2),
            "sentences_per_second": round(median(together for together, _ in turns_of), 1),
            "one_by_one": round(median(alone for _, alone in turns_of), 1),
        }
        for name, turns_of in rates.items()
    }


def first_vector(folder: Path, turns: int) -> float:
    """Return the processor's seconds of a new process to its first vector, without torch imported."""
    command = [sys.executable, "-c", FIRST, str(folder)]
    done = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(turns)]
    return round(float(np.median([float(seconds) for seconds in done])), 3)


def run(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure a folder; return the result."""
    settings = parse(LightSettings, argv, inspect.getdoc(LightSettings) or "")
    folder = Path(settings.folder)
    result: dict[str, Any] = {"threads": 1, "turns": settings.turns}
    result["files"] = measure(folder, settings.turns)
    result["seconds_to_first_vector"] = first_vector(folder, settings.turns)
    for name, rates in result["files"].items():
        print(f"{name:32} {rates['megabytes']:7.2f} MB {rates['sentences_per_second']:8.1f}/s")
    if settings.output:
        write_result(settings.output, {**result, **stamp("onnxruntime", "tokenizers")})
    return result


if __name__ == "__main__":
    run_command(run)
