"""Run a model in every runtime that its card has a snippet for, and compare each vector with the folder's own.

    python benchmarks/run_works_with.py --output benchmarks/results/works-with.json

EXPECTED
Each snippet is the card's own, run in an environment of its own where it needs one; these are built once, from PyPI
and npm, in --venvs. The goal is a least cosine above 0.9999 in fp32 and above 0.98 in int8. Without --model it is
layers 0, 2, 5 of all-MiniLM-L6-v2, untrained and exported first. About three minutes on 2 cores once the environments
are there, and about ten more for them.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.works_with.runtimes import RUNTIMES, Runtime, snippets, vectors, versions_of
from distilface.cards.card import make_card
from distilface.compression.student import load_student
from distilface.console import run_command
from distilface.data.samples import sts_sample
from distilface.environment import stamp
from distilface.exporters.exporting import export
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import Folder, load, save_folder
from distilface.model.pooling import is_normalized
from distilface.settings import InputError, check_known, parse, setting
from distilface.storage import save_result
from distilface.training.teacher import load_teacher

#: Least cosine to the folder's own vectors that is asked for.
GOALS = {"fp32": 0.9999, "int8": 0.98}
#: Beside the sample's sentences: two lines, and more tokens than a model reads.
EDGES = ["A text of\ntwo lines.", "The dog runs in the park near the old house by the river. " * 100]


@dataclass
class Settings:
    """What the benchmark can be told."""

    model: str | None = setting(None, "a model folder with its exports; default: the backbone's layers, as they are")
    backbone: str = setting(DEFAULT_TEACHER, "a Hub id or folder of which layers are cut")
    layers: list[int] = setting([0, 2, 5], "the layers that are cut")
    runtimes: list[str] = setting([], "only these, by their headings in the card; default: all")
    sentences: int = setting(30, "sentences of the sample that each runtime encodes")
    venvs: str = setting(os.environ.get("DISTILFACE_VENVS", "venvs"), "where the environments are kept")
    output: str | None = setting(None, "write the result to this JSON file")


def cut(settings: Settings, place: Path) -> Path:
    """Save the layers of the backbone as a model folder with its exports, and return it."""
    normalize = is_normalized(load_teacher(settings.backbone))
    save_folder(load_student(settings.backbone, settings.layers, normalize=normalize), place)
    export(place, sts_sample(), ["onnx", "quantized", "int8", "vnni", "openvino", "openvino-int8"])
    return place


def compare(given: np.ndarray, wanted: np.ndarray) -> dict[str, Any]:
    """Compare vectors with the folder's: direction, and the largest relative difference of length.

    Raises:
        InputError: if there are not as many, or not of the same width.
    """
    if given.shape != wanted.shape:
        raise InputError(f"vectors of the shape {given.shape} came back, and the folder's are {wanted.shape}")
    lengths = np.linalg.norm(given, axis=1), np.linalg.norm(wanted, axis=1)
    cosines = (given * wanted).sum(1) / lengths[0] / lengths[1]
    return {
        "min_cosine": round(float(cosines.min()), 6),
        "mean_cosine": round(float(cosines.mean()), 6),
        "max_length_difference": round(float(np.abs(lengths[0] / lengths[1] - 1).max()), 6),
    }


def measure(runtime: Runtime, folder: Path, home: Path, texts: Sequence[str], wanted: np.ndarray) -> dict[str, Any]:
    """Run a runtime's snippet in fp32 and, if it can read such a file that is there, in int8."""
    found: dict[str, Any] = {"versions": versions_of(runtime, home)}
    for precision, file in (("fp32", runtime.reads), ("int8", runtime.int8)):
        if precision == "fp32" or (file and (folder / file).is_file()):
            _, given = vectors(runtime, folder, home, texts, int8=precision == "int8")
            found[precision] = {"file": file or "model.safetensors", **compare(given, wanted)}
    return found


def table(found: dict[str, Any]) -> list[str]:
    """Spell what was found as a table in Markdown."""
    lines = ["| runtime | version | least cosine, fp32 | int8 |", "|---|---|---|---|"]
    for name, row in found.items():
        cosines = [f"{row[p]['min_cosine']:.6f}" if p in row else "" for p in GOALS]
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        lines.append(f"| {name} | {versions} | {' | '.join(cosines)} |")
    return lines


def short_of(found: dict[str, Any]) -> list[str]:
    """Name the runtimes and precisions that are below their goal."""
    return [
        f"{name} {p}"
        for name, row in found.items()
        for p, goal in GOALS.items()
        if p in row
        if not row[p]["min_cosine"] > goal
    ]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run every runtime, print the table, write the JSON; return what stands in it."""
    settings = parse(Settings, argv, __doc__ or "")
    check_known(settings.runtimes, list(RUNTIMES), "runtime")
    sample = sts_sample()
    texts = list(dict.fromkeys([*sample["sentence1"], *sample["sentence2"]]))[: settings.sentences] + EDGES
    with ExitStack() as stack:
        if settings.model is None:
            folder = cut(settings, Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cut")
        else:
            folder = Path(settings.model)
        known, wanted = snippets(make_card(folder)[0]), load(folder).encode(texts)
        found = {}
        for runtime in (RUNTIMES[name] for name in settings.runtimes or known):
            print(f"{runtime.name} ...", file=sys.stderr)
            found[runtime.name] = measure(runtime, folder, Path(settings.venvs), texts, wanted)
        model = {
            "name": folder.name if settings.model else settings.backbone,
            "layers": None if settings.model else settings.layers,
            "parameters": Folder(folder).parameters,
            "fingerprint": Folder(folder).fingerprint,
        }
    print("\n".join(table(found)))
    short = short_of(found)
    print(f"below the goals {GOALS}: {', '.join(short) or 'none'}")
    result = {
        "runtimes": found,
        "goals": GOALS,
        "short": short,
        "model": model,
        "sentences": len(texts),
        **stamp(),
    }
    save_result(settings.output, result)
    return result


if __name__ == "__main__":
    run_command(main)
