"""Multi-stage distillation, planned: its settings, and what is refused before anything is read or trained."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling

from distilface.compression.recurrent import check_recurrent
from distilface.compression.student import load_backbone
from distilface.hub_ids import DEFAULT_TEACHER, resolve
from distilface.methods.multistage.losses import check_width
from distilface.model.folder import Folder
from distilface.settings import InputError, setting
from distilface.training.stages import StagedSettings, stage_folder

NAMES = ["assistant", "bottleneck", "recurrent", "contrastive"]
#: The stages whose folders a stage reads.
NEEDS = {1: [], 2: [1], 3: [1, 2], 4: [3]}
#: The settings that decide the shape of a model and its vocabulary, by the stage that reads them.
SHAPES = {
    1: ["teacher", "assistant", "vocabulary", "assistant_layers", "seed"],
    2: ["keep_layers", "repeats", "embedding_size"],
}


@dataclass
class MultistageSettings(StagedSettings):
    """What multi-stage distillation can be told."""

    data: list[str] = setting([], "parallel text: NAME.en-de.tsv, .csv or .jsonl, each also .gz", ["--parallel"])
    output_dir: str = setting("models/crosslingual", "the model folder to write")
    text_column: str = setting("english", "the column of the English side, in .csv and .jsonl")
    other_column: str = setting("other", "the column of the other side, in .csv and .jsonl")
    max_sentences: int | None = setting(
        None, "train on this many pairs, drawn equally of each language; default all", ["--max_pairs"]
    )
    held_out: int = setting(100, "pairs of each language kept out of the training, for the score")
    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of an English sentence encoder")
    assistant: str | None = setting(None, "a multilingual encoder to start from; default: made of the teacher")
    vocabulary: int = setting(32_000, "tokens of the vocabulary of an assistant that is made")
    assistant_layers: list[int] | None = setting(None, "the teacher's layers in an assistant that is made; default all")
    keep_layers: int = setting(3, "the assistant's bottom layers that the student keeps")
    repeats: int = setting(2, "how often the student runs them")
    embedding_size: int = setting(128, "width of the student's narrow embedding table")
    weight: float = setting(1.0, "weight of the embeddings' MSE, in stage 4 beside the cosines'")
    stage_weights: list[float] | None = setting(None, "weight, of each stage (the second has none); default --weight")
    max_seq_length: int | None = setting(None, "tokens that the published model reads; default the teacher's")
    dropout: float = setting(0.0, "dropout in training")
    cache_dir: str | None = setting(None, "where the teachers' embeddings are kept")
    learning_rate: float = setting(16e-5, "peak learning rate of AdamW")
    warmup: float = setting(0.1, "share of the steps in which the learning rate rises")
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


def check_sources(settings: MultistageSettings) -> None:
    """Refuse, before anything is read or written, a stage without the one that it needs, or on one of another shape.

    Raises:
        InputError: naming the folder that is not there, or the setting that it was made with.
    """
    for number in sorted(settings.stages):
        for needed in NEEDS[number]:
            folder = Folder(stage_folder(settings, needed, NAMES))
            given = needed == 1 and settings.assistant
            if needed in settings.stages:
                continue
            if folder.is_valid():
                _check_shape(settings, number, needed, folder)
            elif not given:
                remedy = f"add {needed} to --stages" + (" or give --assistant" if needed == 1 else "")
                raise InputError(
                    f"stage {number} needs what stage {needed} makes, and {folder.path} is not there; {remedy}"
                )


def _check_shape(settings: MultistageSettings, number: int, needed: int, folder: Folder) -> None:
    """Refuse a stage that lies there already and was made with other settings of what decides its shape."""
    known = folder.run.settings if folder.run else {}
    for name in SHAPES[1] if needed == 1 else [*SHAPES[1], *SHAPES[2]]:
        if (old := known.get(name)) != (now := getattr(settings, name)):
            raise InputError(
                f"stage {number} needs what stage {needed} makes, and {folder.path} was made with {name} {old!r}, not "
                f"{now!r}; set it back, or add {needed} to --stages with --overwrite"
            )


def check_models(settings: MultistageSettings, teacher: SentenceTransformer) -> None:
    """Refuse, before the first stage is trained, what the second or the last would refuse.

    Raises:
        InputError: if the assistant's encoder cannot be made recurrent, is of another width than the teacher, or is
            learned from as it is (without stage 1) and does not end in mean pooling.
    """
    given = settings.assistant
    if given and (more := _beside_the_mean(given)):
        _tell_of(given, more, trained=1 in settings.stages)
    _say_of_length(settings, teacher)
    encoder, _ = load_backbone(given or settings.teacher, None if given else settings.assistant_layers)
    check_recurrent(encoder.config, settings.keep_layers, settings.repeats, settings.embedding_size)
    check_width(encoder.config.hidden_size, teacher)


def _beside_the_mean(assistant: str) -> list[str]:
    """Name what turns an encoder's states into an embedding, where that is not the mean over the tokens alone."""
    folder = Path(resolve(assistant))
    if not (folder / "modules.json").is_file():
        return []
    modules: list[Any] = list(SentenceTransformer(str(folder), device="cpu"))[1:]
    names = [type(module).__name__ for module in modules]
    means = [
        isinstance(module, Pooling) and module.get_config_dict().get("pooling_mode") == "mean" for module in modules
    ]
    return [name for name, mean in zip(names, means, strict=True) if not mean and name != "Normalize"]


def _tell_of(assistant: str, more: list[str], trained: bool) -> None:
    what = f"{assistant} ends in {' and '.join(more)}, and only its encoder is used, under the mean over the tokens"
    if not trained:
        raise InputError(f"{what}: it is no assistant as it is; add 1 to --stages")
    print(f"{what}; stage 1 trains it so", file=sys.stderr)


def _say_of_length(settings: MultistageSettings, teacher: SentenceTransformer) -> None:
    length = settings.max_seq_length or teacher.max_seq_length
    if length and length > settings.train_max_length:
        print(
            f"warning: the model will read {length} tokens and training reads {settings.train_max_length}: no position "
            "after that is trained, and the narrow table fits those badly; set --max_seq_length nearer",
            file=sys.stderr,
        )
