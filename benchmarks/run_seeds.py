"""Train one recipe under several seeds, score each folder on MTEB's STS tasks, and report mean and deviation.

    python benchmarks/run_seeds.py --script training/train_distill.py --seeds 1 2 3 --data-dir STS --output FILE.json \
        -- --config training/recipes/minilm-l3.yaml --data TEXT.txt --dev DEV.jsonl --output_dir models/minilm-l3

What follows ``--`` goes to the training script; each seed gets its own folder, ``<output_dir>-seed<N>``. A folder that
is already there with the same settings is not trained again, so a stopped series goes on with the same command; the
scores are always of the folders, reloaded from disk. The deviation is the sample's (n - 1).
"""

import statistics
import sys
from dataclasses import dataclass
from functools import partial
from typing import Any

from comparison import measure, measure_relatives
from mteb.cache import ResultCache
from series import load_script, split_words, trained

from distilface.evaluate import STS_TASKS, evaluate
from distilface.record import environment, write_result
from distilface.settings import cli, parse, setting
from distilface.tasks import data_sources, find_tasks


@dataclass
class Settings:
    """What the series can be told."""

    script: str = setting("training/train_unsup.py", "the training script")
    seeds: list[int] = setting([1, 2, 3], "the seeds")
    data_dir: str | None = setting(None, "a folder of <task>.jsonl[.gz]; default the Hub")
    output: str | None = setting(None, "write the result to this JSON file")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default $MTEB_CACHE or ~/.cache/mteb")
    relatives: bool = setting(True, "score the teacher and the untrained self too")


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and sample deviation of every score over the seeds."""
    columns = {name: [row["scores"][name] for row in rows] for name in rows[0]["scores"]}
    columns |= {name: [row[name] for row in rows] for name in ("mean_of_5", "mean_of_7", "stsb_dev")}
    return {
        name: {
            "mean": round(statistics.mean(values), 2),
            "sd": round(statistics.stdev(values), 2) if len(values) > 1 else None,
        }
        for name, values in columns.items()
        if None not in values
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and score the series; return what stands in the JSON."""
    own, words = split_words(list(sys.argv[1:] if argv is None else argv))
    settings = parse(Settings, own, __doc__ or "")
    script = load_script(settings.script)
    output_dir = parse(script.Settings, words, "").output_dir
    sources = data_sources(find_tasks(STS_TASKS, settings.data_dir))
    cache = settings.cache_dir or ResultCache().cache_path
    score = partial(evaluate, tasks=STS_TASKS, data_dir=settings.data_dir, cache_dir=cache)
    rows: list[dict[str, Any]] = []
    relatives: list[dict[str, Any]] = []
    for seed in settings.seeds:
        folder = f"{output_dir}-seed{seed}"
        run = trained(script, [*words, "--seed", str(seed)], folder)
        rows.append(
            {**measure(folder, folder, "model", score).as_dict(), "stsb_dev": run["scores"]["stsb_dev"], "run": run}
        )
        if settings.relatives and not relatives:
            relatives = [row.as_dict() for row in measure_relatives(folder, run, score)]
        result = {
            "seeds": settings.seeds[: len(rows)],
            "summary": summary(rows),
            "models": rows,
            "compared": relatives,
            "data": {"from": "local files" if settings.data_dir else "Hugging Face Hub", "tasks": sources},
            **environment(),
        }
        if settings.output:
            write_result(settings.output, result)
    for name, value in result["summary"].items():
        print(f"{name:14} {value['mean']:.2f}" + ("" if value["sd"] is None else f" ± {value['sd']:.2f}"))
    return result


if __name__ == "__main__":
    cli(main)
