"""Score, print the table, draw the figure."""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mteb.cache import ResultCache

from benchmarks import sts
from benchmarks.checks import check_counts, check_file
from benchmarks.files import save_result
from benchmarks.sts.comparison import measure, measure_relatives, published
from benchmarks.sts.figure import sts_against_parameters
from benchmarks.sts.table import print_table
from distilface.environment import stamp
from distilface.evaluation.scores import PAPER_TASKS, STS_TASKS, as_encoder, evaluate
from distilface.evaluation.tasks import data_sources, find_tasks
from distilface.hub_ids import resolve
from distilface.model.folder import Folder
from distilface.run import Run
from distilface.runtimes.opening import open_file
from distilface.settings import InputError, parse, setting

logger = logging.getLogger("distilface.benchmarks.sts")

DEFAULT_MODEL = "models/distilface"
PICTURES = (".png", ".svg", ".pdf")


@dataclass
class Settings:
    """Options of the benchmark."""

    model: str = setting(DEFAULT_MODEL, "a Hub id or a folder; the default is what training/train_unsup.py writes")
    data_dir: str | None = setting(
        None, "a folder of <task or subset>.jsonl[.gz], sentence1, sentence2, score; default the Hub"
    )
    tasks: list[str] = setting(list(STS_TASKS), "names of MTEB tasks and benchmarks, as STS17 or 'MTEB(eng, v2)'")
    output: str | None = setting(None, "write the result to this JSON file")
    figure: str | None = setting(None, "draw the STS mean against parameters: a .png, .svg or .pdf file")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default $MTEB_CACHE or ~/.cache/mteb")
    batch_size: int = setting(32, "sentences in a batch")
    file: str | None = setting(None, "score this exported file of the folder, as onnx/model_quantized.onnx")
    only_model: bool = setting(False, "without the teacher, the untrained self and published peers")


def check(settings: Settings) -> dict[str, Any]:
    """Refuse, before minutes of work, what would fail after it; return the data sources of the tasks."""
    if settings.model == DEFAULT_MODEL and not Path(DEFAULT_MODEL).is_dir():
        raise InputError(f"{DEFAULT_MODEL} does not exist; python training/train_unsup.py writes it, or give --model")
    check_counts(settings, "batch_size")
    for file in (settings.output, settings.figure):
        check_file(file)
    if settings.figure is not None and Path(settings.figure).suffix not in PICTURES:
        raise InputError(f"--figure {settings.figure} must end in one of {', '.join(PICTURES)}")
    sources = data_sources(find_tasks(settings.tasks, settings.data_dir))
    if settings.figure is not None and not set(PAPER_TASKS) <= set(sources):
        raise InputError(f"--figure draws the mean of {', '.join(PAPER_TASKS)}; name them all in --tasks")
    return sources


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Score, print the table, write the JSON and the figure; return the JSON's content."""
    settings = parse(Settings, argv, sts.__doc__ or "")
    sources = check(settings)
    for task, source in sources.items():
        if "missing" in source:
            logger.warning("%s: without %s, not in %s", task, source["missing"], settings.data_dir)
    folder = resolve(settings.model)
    run = Folder(Path(folder)).run
    score = partial(
        evaluate,
        tasks=settings.tasks,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir or ResultCache().cache_path,
        batch_size=settings.batch_size,
    )
    model = open_file(Path(folder) / settings.file, folder) if settings.file else folder
    row = measure("/".join(filter(None, (settings.model, settings.file))), model, "model", score)
    others = [] if settings.only_model else measure_relatives(folder, run or Run(), score)
    rows = [row, *others, *([] if settings.only_model else published())]
    print_table(rows)
    print("scores:", " ".join(f"{value:.2f}" for value in row.scores.values()))
    result = {
        **row.as_dict(),
        "fingerprint": as_encoder(model).fingerprint,
        "compared": {other.role: other.as_dict() for other in others},
        "data": {"from": "local files" if settings.data_dir else "Hugging Face Hub", "tasks": sources},
        "run": {key: getattr(run, key) for key in ("method", "seed", "baseline_model", "layers", "teacher") if run},
        **stamp(*(("onnxruntime", "openvino") if settings.file else ())),
    }
    save_result(settings.output, result)
    if settings.figure:
        sts_against_parameters(rows, settings.figure)
    return result
