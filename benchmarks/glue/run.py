"""Fine-tune a teacher on GLUE tasks, then a layer cut of it four ways: CE, KD, KD + L2, KD + CoDIR (arXiv 2009.14167).

    python benchmarks/run_glue.py --tasks rte mrpc cola sst2 --seeds 1 2 3 --output FILE.json

The rows and steps of every training are said first; one epoch reads each row once, and the teacher costs about twice
its three-layer student. --max-train 5000 trains on a subset, which the result states. Data come from the Hub, or from
--data-dir, a folder of <task>/train.jsonl[.gz] and <task>/validation.jsonl[.gz]. The epoch is chosen on rows held out
of the training set; the validation set is scored once. Every finished training is in the output file: a stopped run
goes on with the same command, and more tasks, ways or seeds are added to it. Teachers lie in OUTPUT.teachers until
all is done. A way may have settings of its own, which makes a sweep:

    python benchmarks/run_glue.py --tasks rte --seeds 1 --ways "kd+codir weight=0.1" "kd+codir weight=1" --report false

--report false leaves the validation set alone: settings are chosen on the held-out rows.
"""

import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.glue.result import Result, print_table
from benchmarks.glue.runs import TaskRuns, teachers_folder
from benchmarks.glue.tasks import TASKS, TaskData, read_task
from benchmarks.glue.ways import WAYS, read_way
from distilface.console import run_command
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.codir import ContrastSettings, check_contrast
from distilface.settings import InputError, check_known, parse, setting

#: Settings that decide no result, or name what is to be done.
NOT_COMPARED = ("tasks", "ways", "seeds", "data_dir", "output")


@dataclass
class Settings(ContrastSettings):
    """What the benchmark can be told."""

    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder; its encoder is fine-tuned on each task")
    layers: list[int] = setting([0, 2, 5], "the student: these layers of the teacher as it was, counted from 0")
    tasks: list[str] = setting(["rte", "mrpc", "cola", "sst2"], f"of {', '.join(TASKS)}")
    ways: list[str] = setting(list(WAYS), "ways to fine-tune the student, as 'kd', or 'kd+codir weight=0.1'")
    seeds: list[int] = setting([1, 2, 3], "seeds; each has a teacher of its own")
    data_dir: str | None = setting(None, "a folder of <task>/train.jsonl[.gz] and validation; default the Hub")
    output: str = setting("glue.json", "the result, and what a stopped run goes on from")
    max_train: int | None = setting(None, "train on this many rows of a task, drawn at random; default all")
    held_out: int = setting(1000, "rows of the training set that choose the epoch, at most a tenth of it")
    max_length: int = setting(128, "tokens of an input")
    epochs: int = setting(3, "passes over the data, of teacher and student alike")
    batch_size: int = setting(32, "inputs a step")
    learning_rate: float = setting(5e-5, "peak learning rate of AdamW")
    weight_decay: float = setting(0.01, "AdamW's weight decay")
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises")
    beta: float = setting(0.5, "share of the distillation: (1 - beta) CE + beta T^2 KL")
    kd_temperature: float = setting(2.0, "T")
    report: bool = setting(True, "score the validation set; false: only the rows held out of the training set")
    bf16: str = setting("auto", "autocast to bf16: 'auto' (where the machine has it), 'yes' or 'no'")


def check(settings: Settings) -> None:
    """Refuse, before anything is read, what cannot be run.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    check_contrast(settings)
    check_known(settings.tasks, list(TASKS), "task")
    for way in settings.ways:
        read_way(way)
    for name in ("epochs", "batch_size", "learning_rate", "kd_temperature", "max_length", "held_out"):
        if getattr(settings, name) <= 0:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be above 0")
    if settings.max_train is not None and settings.max_train < 2:
        raise InputError(f"--max_train {settings.max_train} is out of range; it must be 2 or more")
    if not 0 <= settings.beta <= 1:
        raise InputError(f"--beta {settings.beta} is out of range; it must be from 0 to 1")
    if not 0 <= settings.warmup < 1:
        raise InputError(f"--warmup {settings.warmup} is out of range; it is a share of the steps")
    if bad := [seed for seed in settings.seeds if not 0 <= seed < 2**32]:
        raise InputError(f"--seeds {bad[0]} is out of range; it must be from 0 to {2**32 - 1}")
    if settings.bf16 not in ("auto", "yes", "no"):
        raise InputError(f"--bf16 {settings.bf16!r} must be auto, yes or no")
    if Path(settings.output).is_dir():
        raise InputError(f"{settings.output} is a folder; name a file to write")


def announce(settings: Settings, data: dict[str, TaskData], result: Result) -> None:
    """Say on stderr, first, what is to be done."""
    ways = ("teacher", *settings.ways)
    for name, rows in data.items():
        todo = sum(result.find(name, way, seed) is None for way in ways for seed in settings.seeds)
        steps = settings.epochs * -(-len(rows.train) // settings.batch_size)
        print(
            f"{name}: {len(rows.train):,} rows to train on, {len(rows.held_out):,} held out, {len(rows.validation):,} "
            f"to report; {todo} of {len(ways) * len(settings.seeds)} trainings to do, {steps:,} steps each",
            file=sys.stderr,
        )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train what is missing and print the table; return what stands in the JSON."""
    settings = parse(Settings, argv, __doc__ or "")
    check(settings)
    data = {name: read_task(name, settings.data_dir, settings.held_out, settings.max_train) for name in settings.tasks}
    compared = {name: value for name, value in asdict(settings).items() if name not in NOT_COMPARED}
    result = Result(settings.output, compared, {name: rows.described() for name, rows in data.items()})
    announce(settings, data, result)
    for name, rows in data.items():
        task = TaskRuns(name, rows, settings, result)
        for seed in settings.seeds:
            task.seed(seed)
    shutil.rmtree(teachers_folder(settings.output), ignore_errors=True)
    print_table(result.content)
    print(f"result: {settings.output}")
    return result.content


if __name__ == "__main__":
    run_command(main)
