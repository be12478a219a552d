"""Options of multi-stage distillation, and the ranges of their values."""

import math
from dataclasses import dataclass

from distilface.hub_ids import DEFAULT_TEACHER
from distilface.settings import InputError, setting
from distilface.training.settings import RISES, TrainSettings

#: The options with a value for each stage, and the one that each replaces there.
EACH = {
    "stage_epochs": "epochs",
    "stage_steps": "steps",
    "stage_batch_sizes": "batch_size",
    "stage_learning_rates": "learning_rate",
    "stage_weights": "weight",
}


def _leaves_stages(values: list[float] | None) -> bool:
    """Return whether a list leaves a stage to another setting, as steps of -1 do."""
    return values is None or any(value <= 0 for value in values)


@dataclass
class MultistageSettings(TrainSettings):
    """Options of multi-stage distillation."""

    stages: list[int] = setting([1, 2, 3, 4], "the stages to run, counted from 1")
    stage_epochs: list[float] | None = setting(
        None, "passes over the data, of each stage; default --epochs", excludes=["epochs", "steps"], off=_leaves_stages
    )
    stage_steps: list[int] | None = setting(
        None, "steps, of each stage; default --steps", excludes=["steps", "epochs", "stage_epochs"], off=_leaves_stages
    )
    stage_batch_sizes: list[int] | None = setting(
        None, "batch size, of each stage; default --batch_size", excludes=["batch_size"]
    )
    stage_learning_rates: list[float] | None = setting(
        None, "learning rate, of each stage; default --learning_rate", excludes=["learning_rate"]
    )
    data: list[str] = setting([], "parallel text: NAME.en-de.tsv, .csv or .jsonl, each also .gz", ["--parallel"])
    output_dir: str = setting("models/crosslingual", "the model folder to write")
    text_column: str = setting("english", "the column of the English side, in .csv and .jsonl")
    other_column: str = setting("other", "the column of the other side, in .csv and .jsonl")
    max_sentences: int | None = setting(
        None, "train on this many pairs, drawn equally of each language; default all", ["--max_pairs"]
    )
    held_out: int = setting(100, "pairs of each language kept out of the training, for the score")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of an English sentence encoder")
    assistant: str | None = setting(
        None,
        "a multilingual encoder to start from; default: made of the teacher",
        excludes=["vocabulary", "assistant_layers"],
    )
    vocabulary: int = setting(32_000, "tokens of the vocabulary of an assistant that is made")
    assistant_layers: list[int] | None = setting(None, "the teacher's layers in an assistant that is made; default all")
    keep_layers: int = setting(3, "the assistant's bottom layers that the student keeps")
    repeats: int = setting(2, "how often the student runs them")
    embedding_size: int = setting(128, "width of the student's narrow embedding table")
    weight: float = setting(
        1.0, "weight of the embeddings' MSE, in stage 4 beside the cosines'", off=lambda weight: False
    )
    stage_weights: list[float] | None = setting(
        None, "weight, of each stage (the second has none); default --weight", excludes=["weight"]
    )
    max_seq_length: int | None = setting(None, "tokens that the published model reads; default the teacher's")
    dropout: float = setting(0.0, "dropout in training")
    cache_dir: str | None = setting(None, "where the teachers' embeddings are kept")
    learning_rate: float = setting(16e-5, "peak learning rate of AdamW")
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises", needs=RISES)
    train_max_length: int = setting(128, "tokens of a sentence that training reads")
    eval_steps: int = setting(500, "steps between two scores of the held-out data, each with a checkpoint")


def check_values(settings: MultistageSettings) -> None:
    """Refuse, before anything is read or written, numbers out of their range and one column for both sides.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    for name, least in (("held_out", 1), ("vocabulary", 1), ("max_seq_length", 3)):
        value = getattr(settings, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value} is out of range; it must be {least} or more")
    if not 0 <= settings.dropout < 1:
        raise InputError(f"--dropout {settings.dropout} is out of range; it must be from 0 to below 1")
    for weight in [settings.weight, *(settings.stage_weights or [])]:
        if not 0 <= weight < math.inf:
            raise InputError(f"--weight {weight} is out of range; it must be 0 or more")
    if settings.text_column == settings.other_column:
        raise InputError(f"--other_column {settings.other_column} is the English one too; name the other side's")
