"""Distil an English teacher into a small student of many languages, in four stages (arXiv 2209.05869).

    python training/train_multistage.py --config training/recipes/xx-minilm-small.yaml --parallel FILE.en-de.tsv

makes an assistant of the teacher's layers with a vocabulary trained on the parallel text, a factorised embedding
layer, a recurrent student, and gives it the teacher's cosines: hours on 2 cores. With the Hub, the paper's own:

    python training/train_multistage.py --config training/recipes/xx-minilm.yaml --parallel FILE.en-de.tsv

Some stages alone: ``--stages 2 3``. Stages 1 to 3 are kept in ``<output>.stages``; one that is there with the same
settings is not trained again, and ``--resume`` goes on in the middle of one. Each ends in a verdict of its own.
"""

import sys
from typing import Any

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.parallel import held_out_split, read_parallel
from distilface.methods.multistage.settings import NAMES, check_models, check_sources, check_values
from distilface.methods.multistage.settings import MultistageSettings as Settings
from distilface.methods.multistage.stages import Materials, run_stage
from distilface.settings import parse
from distilface.training.stages import check_stages
from distilface.training.teacher import load_teacher


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the stages and write the folder; return what stands in the ``run.json`` of the last one."""
    settings = parse(Settings, argv, __doc__ or "")
    check_stages(settings, NAMES)
    check_values(settings)
    check_sources(settings)
    columns = (settings.text_column, settings.other_column)
    pairs = read_parallel(settings.data, settings.max_sentences, columns)
    pairs, held_out = held_out_split(pairs, settings.held_out)
    dev = read_sts(settings.dev)
    teacher = load_teacher(settings.teacher)
    check_models(settings, teacher)
    materials = Materials(settings, pairs, held_out, dev, teacher)
    runs = {number: run_stage(number, materials) for number in sorted(settings.stages)}
    for number, run in runs.items():
        scores = " ".join(f"{name}={score:.2f}" for name, score in run["scores"].items() if score is not None)
        print(f"stage {number} ({run['stage']}): {run['parameters']:,} parameters, {scores}", file=sys.stderr)
    return runs[max(runs)]


if __name__ == "__main__":
    run_command(main)
