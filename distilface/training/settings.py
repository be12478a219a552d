"""The settings of a training."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distilface.compression.bits import BITS
from distilface.data.lines import suffix_of
from distilface.hub_ids import DEFAULT_BACKBONE, DEFAULT_TEACHER, HUB_STSB, HUB_TEXTS
from distilface.run import Run
from distilface.settings import is_default, setting

logger = logging.getLogger(__name__)

#: Settings that say where things lie, and do not decide the weights.
PLACES = ("output_dir", "cache_dir", "untrained_dir")
#: Schedules of transformers without a warm-up.
NO_WARMUP = ("constant", "reduce_lr_on_plateau", "greedy")
#: Where a warm-up has an effect.
RISES = {"scheduler": lambda name: name not in NO_WARMUP}


#: Where it matters on which text the pieces of a vocabulary are counted.
PRUNED = {"vocabulary": lambda size: size is not None}


#: Of ``table_from``, of a method that can train a static student first: to do so, or to keep the teacher's own table.
NEW, OWN = "new", "own"
#: What a budget in megabytes chooses.
SHAPE = ["layers", "vocabulary", "feed_forward", "bits", "table_bits"]


@dataclass
class TrainSettings:
    """Options of every training."""

    data: list[str] = setting(
        [], "text: .txt (a sentence a line), .csv, .tsv, .jsonl (each also .gz), .parquet; folders of them; or URLs"
    )
    output_dir: str = setting("models/distilface", "the model folder to write")
    text_column: str = setting("text", "the column of the text, in files with columns")
    max_sentences: int | None = setting(None, "train on this many sentences, drawn at random; default all")
    dev: str | None = setting(HUB_STSB, "scored pairs that choose the checkpoint: a file, a Hub data set, or 'sample'")
    epochs: float = setting(1.0, "passes over the data")
    steps: int = setting(-1, "optimiser steps, in place of --epochs when above 0", excludes=["epochs"])
    batch_size: int = setting(64, "sentences a step")
    learning_rate: float = setting(3e-5, "peak learning rate of AdamW")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    scheduler: str = setting("linear", "learning-rate schedule, as transformers names them")
    warmup: float = setting(0.0, "share of the steps in which the learning rate rises", needs=RISES)
    train_max_length: int = setting(32, "tokens of a sentence that training reads; the model keeps its own limit")
    eval_steps: int = setting(125, "steps between two scores on the development set, each with a checkpoint")
    seed: int = setting(42, "seed of the initial weights, the dropout and the order of the data")
    bf16: str = setting(
        "auto", "autocast to bf16: 'auto' (where the machine has it; else to fp16 on a GPU), 'yes' or 'no'"
    )
    compile: bool = setting(False, "compile the model (torch.compile), which takes minutes: for long trainings on GPUs")
    resume: bool = setting(False, "go on with the unfinished run of this output folder")
    overwrite: bool = setting(False, "replace the output folder, and drop an unfinished run of it")


@dataclass
class StudentSettings(TrainSettings):
    """Options of the training of a sentence encoder: those of its student, and all of the above."""

    backbone: str | None = setting(DEFAULT_BACKBONE, "a Hub id or folder the student is made of")
    layers: list[int] | None = setting(None, "cut these layers, counted from 0, into a DistilBERT")
    pooling: str = setting("mean", "mean, cls or last4; lasttoken for a decoder")
    max_seq_length: int | None = setting(
        None, "tokens that the published model reads; default: all it has positions for"
    )
    dropout: float | None = setting(None, "the student's dropout in training; default its own")
    untrained_dir: str | None = setting(None, "also write the student as it was before its first step, as this folder")


@dataclass
class TeacherSettings(StudentSettings):
    """Options of a training whose student is made of, or learns from, one teacher's embeddings."""

    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder")
    backbone: str | None = setting(None, "a Hub id or folder the student is made of; default: the teacher")
    dropout: float | None = setting(0.0, "the student's dropout in training")
    cache_dir: str | None = setting(None, "where the teacher's embeddings are kept")
    vocabulary: int | None = setting(None, "keep this many pieces of the vocabulary, those that the text uses most")
    vocabulary_data: list[str] = setting([], "text that the pieces are counted on; default --data", needs=PRUNED)
    megabytes: float | None = setting(
        None, "fill this many megabytes, file and tokenizer: chooses layers, pieces and bits", chooses=SHAPE
    )
    best_layers: int | None = setting(
        None,
        "keep so many layers: the cut that is nearest to the whole encoder before any training, which is searched for",
        excludes=["megabytes"],
        chooses=["layers"],
    )
    bits: int | None = setting(None, "bits of a weight, 4 or 2: trains the student on the grid of its 4-bit file")
    table_bits: int = setting(
        BITS,
        "bits of the token table, 4 or 2",
        needs={"bits": lambda bits: bits is not None},
        off=lambda bits: bits == BITS,
    )
    feed_forward: int | None = setting(None, "narrow the feed-forward maps of every layer to this width")
    hidden_size: int | None = setting(
        None, "channels of a narrower hidden state; a Dense gives the width back", excludes=["megabytes"]
    )
    table_rank: int | None = setting(
        None, "numbers of a piece in the token table: makes the student an Electra", excludes=["megabytes"]
    )
    layer_runs: int | None = setting(
        None, "run every layer so many times in a row: makes the student an Albert", excludes=["megabytes"]
    )
    table_from: str | None = setting(
        None, "a static student's folder, whose token vectors the student starts with: for one or two layers"
    )
    average_with: list[str] = setting(
        [],
        "other students of the backbone's shape: the training starts from the mean of all their weights",
        excludes=["layers", "best_layers", "megabytes"],
    )
    batch_size: int = setting(128, "sentences a step")
    learning_rate: float = setting(3e-4, "peak learning rate of AdamW")
    train_max_length: int = setting(64, "tokens of a sentence that training reads")
    eval_steps: int = setting(250, "steps between two scores on the development set, each with a checkpoint")


@dataclass
class ImitationSettings(TeacherSettings):
    """Options of a training whose student is to have its teacher's own embeddings."""

    dev: str | None = setting(
        HUB_STSB, "scored pairs that choose the checkpoint, as above; none: the agreement with the teacher chooses"
    )
    teacher: str = setting(DEFAULT_TEACHER, "a sentence encoder: a Hub id, a folder, or URL#MODEL of an endpoint")
    batch_tokens: int | None = setting(
        None,
        "as many sentences a step as fit this many padded tokens, so that long ones cost no more memory",
        excludes=["batch_size"],
    )
    teacher_dtype: str | None = setting(
        None, "keep the teacher's embeddings as float32 (the default), float16 or int8 (a scale a row)"
    )
    held_out: int = setting(0, "texts held out of the training, to measure the agreement with the teacher on them")
    truncate_dim: int | None = setting(None, "numbers of a vector that the published model gives, the first ones")


def teacher_names(settings: Any) -> list[str]:
    """Return the ids, folders or endpoints of the teachers: none, one, or several."""
    names = getattr(settings, "teachers", None) or getattr(settings, "teacher", None) or []
    return [names] if isinstance(names, str) else list(names)


def text_sources(settings: TrainSettings) -> list[str]:
    """Return what the text of a training is read from."""
    return [*settings.data, *getattr(settings, "search_data", [])]


def effective(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that decide the result (a resumed run must have the same); one teacher is not a list."""
    values = {name: value for name, value in asdict(settings).items() if name not in ("resume", "overwrite")}
    if isinstance(names := values.get("teacher"), list) and len(names) == 1:
        values["teacher"] = names[0]
    return values


def comparable(old: Mapping[str, Any], settings: TrainSettings) -> list[str]:
    """Name the settings to compare with an earlier run's: one that an older version did not know had no effect then."""
    return [key for key in effective(settings) if key in old or not is_default(settings, key)]


def other_settings(run: Run, settings: TrainSettings) -> list[str]:
    """Name the settings, of those that decide the weights, that a finished training has otherwise or not at all."""
    now = json.loads(json.dumps(effective(settings)))
    known = [key for key in comparable(run.settings, settings) if key not in PLACES]
    return [key for key in known if run.settings.get(key) != now[key]]


def warn_unread(settings: TrainSettings, in_memory: bool, plain: str = ".txt", *columns: str) -> None:
    """Log a warning for each setting of the reading of text that this text leaves without effect.

    Args:
        settings: how to train.
        in_memory: whether the text is given, and not read.
        plain: the suffix of files without named columns.
        columns: the settings that name a column.
    """
    read = getattr(settings, "search_data", []) if in_memory else text_sources(settings)
    no_columns = all(suffix_of(Path(source)) == plain or source in HUB_TEXTS or source == "python" for source in read)
    why = "the text is given, not read from files" if in_memory else f"{plain} files have no named columns"
    for name in [*(columns if no_columns else []), *(["max_sentences"] if in_memory else [])]:
        if not is_default(settings, name):
            logger.warning(f"--{name} {getattr(settings, name)} has no effect: {why}")
