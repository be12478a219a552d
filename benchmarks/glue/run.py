"""Read the tasks, run the trainings that are missing, print the table."""

import logging
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks import glue
from benchmarks.checks import check_file
from benchmarks.glue.result import Result, print_table
from benchmarks.glue.runs import TaskRuns, teachers_folder
from benchmarks.glue.tasks import TASKS, TaskData, read_task
from benchmarks.glue.ways import WAYS, read_way
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods.codir import ContrastSettings, check_contrast
from distilface.settings import InputError, check_known, parse, setting

logger = logging.getLogger("distilface.benchmarks.glue")

#: Settings that no score depends on, or that name the trainings.
NOT_COMPARED = ("tasks", "ways", "seeds", "data_dir", "output")


@dataclass
class Settings(ContrastSettings):
    """Options of the benchmark."""

    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder; its encoder is fine-tuned on each task")
    layers: list[int] = setting([0, 2, 5], "the student: these layers of the teacher as it was, counted from 0")
    tasks: list[str] = setting(["rte", "mrpc", "cola", "sst2"], f"of {', '.join(TASKS)}")
    ways: list[str] = setting(list(WAYS), "ways to fine-tune the student, as 'kd', or 'kd+codir weight=0.1'")
    seeds: list[int] = setting([1, 2, 3], "seeds; each has a teacher of its own")
    data_dir: str | None = setting(None, "a folder of <task>/train.jsonl[.gz] and validation; default the Hub")
    output: str = setting("glue.json", "the result; a stopped run goes on from it")
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
    """Refuse, before anything is read, settings that cannot be run.

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
    check_file(settings.output)


def announce(settings: Settings, data: dict[str, TaskData], result: Result) -> None:
    """Log, before the first training, the rows and steps of all."""
    ways = ("teacher", *settings.ways)
    for name, rows in data.items():
        todo = sum(result.find(name, way, seed) is None for way in ways for seed in settings.seeds)
        steps = settings.epochs * -(-len(rows.train) // settings.batch_size)
        logger.info(
            f"{name}: {len(rows.train):,} rows to train on, {len(rows.held_out):,} held out, {len(rows.validation):,} "
            f"to report; {todo} of {len(ways) * len(settings.seeds)} trainings to do, {steps:,} steps each"
        )


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the trainings that are missing and print the table; return the JSON's content."""
    settings = parse(Settings, argv, glue.__doc__ or "")
    check(settings)
    data = {name: read_task(name, settings.data_dir, settings.held_out, settings.max_train) for name in settings.tasks}
    compared = {name: value for name, value in asdict(settings).items() if name not in NOT_COMPARED}
    result = Result(settings.output, compared, {name: rows.summary() for name, rows in data.items()})
    announce(settings, data, result)
    for name, rows in data.items():
        task = TaskRuns(name, rows, settings, result)
        for seed in settings.seeds:
            task.seed(seed)
    shutil.rmtree(teachers_folder(settings.output), ignore_errors=True)
    print_table(result.content)
    print(f"result: {settings.output}")
    return result.content
