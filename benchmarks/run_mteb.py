"""Score a model on MTEB's English STS tasks, beside its teacher, its untrained self and published peers.

    python benchmarks/run_mteb.py --model ID_OR_FOLDER --data-dir DIR --output FILE.json --figure FILE.png

A model of the size of all-MiniLM-L6-v2 takes about 4 minutes of one core, the second time seconds: mteb keeps
its results. For ``--model sentence-transformers/all-MiniLM-L6-v2`` the last lines hold (within 0.02)

    scores: 72.37 80.60 75.60 85.39 78.99 82.03 77.58

Without ``--model`` it scores what ``training/train_unsup.py`` writes; without ``--data-dir`` the data come from
the Hub. Across languages, each pair of them and their mean:

    python benchmarks/run_mteb.py --model ID_OR_FOLDER --tasks STS17 --data-dir DIR

with ``DIR/en-ar.jsonl.gz`` and so on; also STSBenchmarkMultilingualSTS, and STSBenchmarkCrosslingualSTS (English on
one side), which mteb has not.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from comparison import measure, measure_relatives, print_table, published
from figures import sts_against_parameters
from mteb.cache import ResultCache

from distilface.console import run_command
from distilface.environment import stamp
from distilface.evaluation.scores import PAPER_TASKS, STS_TASKS, as_encoder, evaluate
from distilface.evaluation.tasks import data_sources, find_tasks
from distilface.hub_ids import resolve
from distilface.runtimes.opening import open_file
from distilface.settings import InputError, parse, setting
from distilface.storage import save_result

TRAINED = "models/distilface"
PICTURES = (".png", ".svg", ".pdf")


@dataclass
class Settings:
    """What the benchmark can be told."""

    model: str = setting(TRAINED, "a Hub id or a folder; the default is what training/train_unsup.py writes")
    data_dir: str | None = setting(
        None, "a folder of <task or subset>.jsonl[.gz], sentence1, sentence2, score; default the Hub"
    )
    tasks: list[str] = setting(list(STS_TASKS), "names of MTEB tasks and benchmarks, as STS17 or 'MTEB(eng, v2)'")
    output: str | None = setting(None, "write the result to this JSON file")
    figure: str | None = setting(None, "draw the STS mean against parameters: a .png, .svg or .pdf file")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default $MTEB_CACHE or ~/.cache/mteb")
    batch_size: int = setting(32, "sentences in a batch")
    file: str | None = setting(None, "score this exported file of the folder, as onnx/model_quantized.onnx")
    only_model: bool = setting(False, "no teacher, no untrained self, no published peers beside it")


def check(settings: Settings) -> dict[str, Any]:
    """Refuse, before minutes of work, what would only fail after it; return the tasks' data sources."""
    if settings.model == TRAINED and not Path(TRAINED).is_dir():
        raise InputError(f"{TRAINED} does not exist; python training/train_unsup.py writes it, or give --model")
    if settings.batch_size < 1:
        raise InputError(f"a batch of {settings.batch_size} sentences cannot be; give --batch-size 1 or more")
    for file in filter(None, (settings.output, settings.figure)):
        if Path(file).is_dir():
            raise InputError(f"{file} is a folder; name a file to write")
    if settings.figure is not None and Path(settings.figure).suffix not in PICTURES:
        raise InputError(f"--figure {settings.figure} must end in one of {', '.join(PICTURES)}")
    sources = data_sources(find_tasks(settings.tasks, settings.data_dir))
    if settings.figure is not None and not set(PAPER_TASKS) <= set(sources):
        raise InputError(f"--figure draws the mean of {', '.join(PAPER_TASKS)}; have them all among --tasks")
    return sources


def read_run(folder: str) -> dict[str, Any]:
    """Read ``run.json``, how a folder was trained; empty where there is none."""
    file = Path(folder) / "run.json"
    try:
        return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
    except (ValueError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}); delete it to score the folder alone") from None


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Score, print the table, write the JSON and the figure; return what stands in the JSON."""
    settings = parse(Settings, argv, __doc__ or "")
    sources = check(settings)
    for task, source in sources.items():
        if "missing" in source:
            print(f"{task}: without {source['missing']}, not in {settings.data_dir}", file=sys.stderr)
    folder = resolve(settings.model)
    run = read_run(folder)
    cache = settings.cache_dir or ResultCache().cache_path
    score = partial(
        evaluate,
        tasks=settings.tasks,
        data_dir=settings.data_dir,
        cache_dir=cache,
        batch_size=settings.batch_size,
    )
    model = open_file(Path(folder) / settings.file, folder) if settings.file else folder
    row = measure("/".join(filter(None, (settings.model, settings.file))), model, "model", score)
    others = [] if settings.only_model else measure_relatives(folder, run, score)
    rows = [row, *others, *([] if settings.only_model else published())]
    print_table(rows)
    print("scores:", " ".join(f"{value:.2f}" for value in row.scores.values()))
    result = {
        **row.as_dict(),
        "fingerprint": as_encoder(model).fingerprint,
        "compared": {other.role: other.as_dict() for other in others},
        "data": {"from": "local files" if settings.data_dir else "Hugging Face Hub", "tasks": sources},
        "run": {key: run[key] for key in ("method", "seed", "baseline_model", "layers", "teacher") if key in run},
        **stamp(*(("onnxruntime", "openvino") if settings.file else ())),
    }
    save_result(settings.output, result)
    if settings.figure:
        Path(settings.figure).parent.mkdir(parents=True, exist_ok=True)
        sts_against_parameters(rows, settings.figure)
        print(f"figure: {settings.figure}")
    return result


if __name__ == "__main__":
    run_command(main)
