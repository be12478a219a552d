"""Train one recipe in several variants and compare them on the development set; no test set is read.

    python benchmarks/run_sweep.py --script training/train_unsup.py --output FILE.json \
        --variants "learning_rate=1e-5" "learning_rate=2e-4 pooling=last4" \
        -- --config minilm-simcse --data TEXT.txt --dev DEV.jsonl --output_dir models/sweep/simcse

What follows ``--`` goes to the training script, then a variant's own settings. Each variant gets its own folder,
``<output_dir>-<variant>``; one that is there with the same settings is not trained again, so a stopped sweep goes on
with the same command. It takes as long as its trainings. ``python -m benchmarks.series.sweep`` is the same command.
"""

import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.series.training import method_of, read_recipe, split_words, train_once, variant_folder
from distilface.console import run_command
from distilface.environment import environment
from distilface.settings import InputError, parse, setting, variant_words
from distilface.storage import write_result
from distilface.training.settings import PLACES, effective

#: What of a training's ``run.json`` stands in the result; a distillation alone has an agreement with its teacher.
RECORDED = ("seed", "steps", "best_step", "scores", "curve", "loss", "agreement", "parameters", "train_seconds", "data")


@dataclass
class Settings:
    """Options of the sweep."""

    script: str = setting("training/train_unsup.py", "the training script, or the name of its method")
    variants: list[str] = setting([], "each a string of settings, as 'learning_rate=1e-4 pooling=cls'")
    output: str | None = setting(None, "write the result to this JSON file")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train the variants; return the JSON's content."""
    own, words = split_words(list(sys.argv[1:] if argv is None else argv))
    settings = parse(Settings, own, __doc__ or "")
    if not settings.variants:
        raise InputError("--variants is empty; give at least one, as --variants 'learning_rate=1e-4'")
    method = method_of(settings.script)
    recipe = read_recipe(method, words, settings.variants)
    runs = []
    for variant in settings.variants:
        folder = variant_folder(recipe.output_dir, variant)
        run = train_once(method, [*words, *variant_words(variant)], folder)
        runs.append(
            {
                "name": variant,
                **{key: run[key] for key in RECORDED if key in run},
                "settings": {key: value for key, value in run["settings"].items() if key not in PLACES},
            }
        )
        result = {
            "recipe": {key: value for key, value in effective(recipe).items() if key not in PLACES},
            "runs": runs,
            **environment(),
        }
        if settings.output:
            write_result(settings.output, result)
    for run in runs:
        scores = {name: score for name, score in run["scores"].items() if score is not None}
        print(f"{run['name']:40}", *(f"{name} {score:.2f}" for name, score in scores.items()))
    return result


if __name__ == "__main__":
    run_command(main)
