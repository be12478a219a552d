"""Run the snippets, compare the vectors, print the table."""

import logging
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import works_with
from benchmarks.files import save_result
from benchmarks.works_with.runtimes import RUNTIMES, Runtime, run_snippet, versions_of
from distilface.cards.card import make_card
from distilface.cards.snippets import snippets
from distilface.compression.student import load_student
from distilface.data.samples import sts_sample
from distilface.environment import stamp
from distilface.exporters.exporting import export
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import Folder, load, save_folder
from distilface.model.pooling import is_normalized
from distilface.settings import InputError, check_known, parse, setting
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.benchmarks.works_with")

#: The least cosine to the folder's own vectors, by precision.
GOALS = {"fp32": 0.9999, "int8": 0.98}
#: Texts beside the sample's sentences: two lines, and more tokens than a model reads.
EDGES = ["A text of\ntwo lines.", "The dog runs in the park near the old house by the river. " * 100]


@dataclass
class Settings:
    """Options of the benchmark."""

    model: str | None = setting(None, "a model folder with its exports; default: the backbone's layers, as they are")
    backbone: str = setting(DEFAULT_TEACHER, "a Hub id or folder whose layers are cut")
    layers: list[int] = setting([0, 2, 5], "the layers of the backbone that are kept, counted from 0")
    runtimes: list[str] = setting([], "only these, by their headings in the card; default: all")
    sentences: int = setting(30, "sentences of the sample that each runtime encodes")
    venvs: str = setting(os.environ.get("DISTILFACE_VENVS", "venvs"), "the folder of the environments")
    output: str | None = setting(None, "write the result to this JSON file")


def cut(settings: Settings, place: Path) -> Path:
    """Save the layers of the backbone as a model folder with its exports; return the folder."""
    normalize = is_normalized(load_teacher(settings.backbone))
    save_folder(load_student(settings.backbone, settings.layers, normalize=normalize), place)
    export(place, sts_sample(), ["onnx", "quantized", "int8", "vnni", "openvino", "openvino-int8"])
    return place


def compare(vectors: np.ndarray, expected: np.ndarray) -> dict[str, Any]:
    """Compare vectors with the folder's: their cosines, and the largest relative difference of length.

    Raises:
        InputError: if their number or their width differs.
    """
    if vectors.shape != expected.shape:
        raise InputError(f"the vectors have the shape {vectors.shape}, and the folder's have {expected.shape}")
    lengths, expected_lengths = (np.linalg.norm(rows, axis=1) for rows in (vectors, expected))
    cosines = (vectors * expected).sum(1) / lengths / expected_lengths
    return {
        "min_cosine": round(float(cosines.min()), 6),
        "mean_cosine": round(float(cosines.mean()), 6),
        "max_length_difference": round(float(np.abs(lengths / expected_lengths - 1).max()), 6),
    }


def measure(runtime: Runtime, folder: Path, home: Path, texts: Sequence[str], expected: np.ndarray) -> dict[str, Any]:
    """Run a runtime's snippet in fp32 and, where it can read such a file and there is one, in int8."""
    row: dict[str, Any] = {"versions": versions_of(runtime, home)}
    for precision, file in (("fp32", runtime.reads), ("int8", runtime.int8)):
        if precision == "fp32" or (file and (folder / file).is_file()):
            _, vectors = run_snippet(runtime, folder, home, texts, int8=precision == "int8")
            row[precision] = {"file": file or "model.safetensors", **compare(vectors, expected)}
    return row


def table(rows: dict[str, Any]) -> list[str]:
    """Format the rows as a table in Markdown."""
    lines = ["| runtime | version | least cosine, fp32 | int8 |", "|---|---|---|---|"]
    for name, row in rows.items():
        cosines = [f"{row[p]['min_cosine']:.6f}" if p in row else "" for p in GOALS]
        versions = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        lines.append(f"| {name} | {versions} | {' | '.join(cosines)} |")
    return lines


def below_goal(rows: dict[str, Any]) -> list[str]:
    """List the runtimes and precisions that are below their goal; a NaN is below every goal."""
    return [
        f"{name} {p}"
        for name, row in rows.items()
        for p, goal in GOALS.items()
        if p in row
        if not row[p]["min_cosine"] > goal
    ]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run every runtime, print the table, write the JSON; return its content."""
    settings = parse(Settings, argv, works_with.__doc__ or "")
    check_known(settings.runtimes, list(RUNTIMES), "runtime")
    sample = sts_sample()
    texts = list(dict.fromkeys([*sample["sentence1"], *sample["sentence2"]]))[: settings.sentences] + EDGES
    with ExitStack() as stack:
        if settings.model is None:
            folder = cut(settings, Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cut")
        else:
            folder = Path(settings.model)
        names, expected = settings.runtimes or snippets(make_card(folder)[0]), load(folder).encode(texts)
        rows = {}
        for runtime in (RUNTIMES[name] for name in names):
            logger.info("%s ...", runtime.name)
            rows[runtime.name] = measure(runtime, folder, Path(settings.venvs), texts, expected)
        model = {
            "name": folder.name if settings.model else settings.backbone,
            "layers": None if settings.model else settings.layers,
            "parameters": Folder(folder).parameters,
            "fingerprint": Folder(folder).fingerprint,
        }
    print("\n".join(table(rows)))
    short = below_goal(rows)
    print(f"below the goals {GOALS}: {', '.join(short) or 'none'}")
    result = {
        "runtimes": rows,
        "goals": GOALS,
        "short": short,
        "model": model,
        "sentences": len(texts),
        **stamp(),
    }
    save_result(settings.output, result)
    return result
