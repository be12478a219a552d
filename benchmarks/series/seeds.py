"""Train one recipe under several seeds, score each folder on MTEB's STS tasks, and report mean and deviation.

    python benchmarks/run_seeds.py --script training/train_distill.py --seeds 1 2 3 --data-dir STS --output FILE.json \
        -- --config minilm-l3 --data TEXT.txt --dev DEV.jsonl --output_dir models/minilm-l3

What follows ``--`` goes to the training script; each seed gets its own folder, ``<output_dir>-seed<N>``. A folder that
is already there with the same settings is not trained again, so a stopped series goes on with the same command; the
scores are always of the folders, reloaded from disk. The deviation is the sample's (n - 1). A series takes as long as
its trainings, and about 4 minutes more for each folder that is scored.

    --variants "switch_every=0" "switch_every=500 max_switches=1" "teachers=models/a,models/b"

makes a series of each variant, in folders named after them, and one result of all. Settings that a variant does not
name are the recipe's, so that the variants share their steps and data; ``train_seconds`` in the result is their cost.
``python -m benchmarks.series.seeds`` is the same command.
"""

import sys
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from mteb.cache import ResultCache

from benchmarks.series.training import method_of, read_recipe, split_words, train_once, variant_folder
from benchmarks.spread import as_text, mean_and_sd
from benchmarks.sts.comparison import measure, measure_relatives
from distilface.console import run_command
from distilface.environment import environment
from distilface.evaluation.scores import STS_TASKS, evaluate
from distilface.evaluation.tables import console, number_table
from distilface.evaluation.tasks import data_sources, find_tasks
from distilface.run import Run
from distilface.settings import parse, setting, variant_words
from distilface.storage import write_result


@dataclass
class Settings:
    """Options of the series."""

    script: str = setting("training/train_unsup.py", "the training script, or the name of its method")
    seeds: list[int] = setting([1, 2, 3], "the seeds")
    data_dir: str | None = setting(None, "a folder of <task>.jsonl[.gz]; default the Hub")
    output: str | None = setting(None, "write the result to this JSON file")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default $MTEB_CACHE or ~/.cache/mteb")
    variants: list[str] = setting([], "make a series of each: settings, as 'learning_rate=1e-4 pooling=cls'")
    relatives: bool = setting(True, "score the teacher and the untrained self too")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and sample deviation of every score over the seeds, and of the seconds of training."""
    columns = {name: [row["scores"][name] for row in rows] for name in rows[0]["scores"]}
    columns |= {name: [row[name] for row in rows] for name in ("mean_of_5", "mean_of_7", "stsb_dev")}
    columns["train_seconds"] = [row["run"]["train_seconds"] for row in rows]
    return {name: mean_and_sd(values) for name, values in columns.items() if None not in values}


def print_variants(series: dict[str, list[dict[str, Any]]]) -> None:
    """Print a row for each variant."""
    heads = ("stsb_dev", "mean_of_5", "mean_of_7", "train_seconds")
    table = number_table(*heads)
    for name, rows in series.items():
        values = summary(rows)
        table.add_row(name, *(as_text(values[head]) if head in values else "–" for head in heads))
    console().print(table)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and score the series; return the JSON's content."""
    own, words = split_words(list(sys.argv[1:] if argv is None else argv))
    settings = parse(Settings, own, __doc__ or "")
    method = method_of(settings.script)
    output_dir = read_recipe(method, words, settings.variants).output_dir
    sources = data_sources(find_tasks(STS_TASKS, settings.data_dir))
    cache = settings.cache_dir or ResultCache().cache_path
    score = partial(evaluate, tasks=STS_TASKS, data_dir=settings.data_dir, cache_dir=cache)
    series: dict[str, list[dict[str, Any]]] = {variant: [] for variant in settings.variants or [""]}
    relatives: list[dict[str, Any]] = []
    result: dict[str, Any] = {}
    for seed, variant in product(settings.seeds, series):
        folder = f"{variant_folder(output_dir, variant)}-seed{seed}"
        more = variant_words(variant) if variant else []
        run = train_once(method, [*words, *more, "--seed", str(seed)], folder)
        row = measure(folder, folder, "model", score).as_dict()
        series[variant].append({**row, "stsb_dev": run["scores"]["stsb_dev"], "run": run})
        if settings.relatives and not relatives:
            relatives = [row.as_dict() for row in measure_relatives(folder, Run.from_dict(run), score)]
        scored = {name: {"summary": summary(rows), "models": rows} for name, rows in series.items() if rows}
        result = {
            "seeds": settings.seeds[: max(map(len, series.values()))],
            **({"variants": scored} if settings.variants else scored[""]),
            "compared": relatives,
            "data": {"from": "local files" if settings.data_dir else "Hugging Face Hub", "tasks": sources},
            **environment(),
        }
        if settings.output:  # after each training, for a series may be stopped
            write_result(settings.output, result)
    if settings.variants:
        print_variants(series)
    else:
        for name, value in result["summary"].items():
            print(f"{name:14} {as_text(value)}")
    return result


if __name__ == "__main__":
    run_command(main)
