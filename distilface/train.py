"""One way to train anything here: baseline first, best checkpoint, exact resume, a whole folder, a verdict."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from torch import nn
from transformers import set_seed
from transformers.trainer_utils import get_last_checkpoint

from distilface.atomic import put_in_place
from distilface.data import HUB_STSB, fingerprint, read_sts
from distilface.folder import load, save_folder
from distilface.record import environment
from distilface.settings import InputError, setting
from distilface.teacher import has_bf16
from distilface.trainer import (
    CollapseAlarm,
    DevEvaluator,
    EncoderTrainer,
    LengthBatchSampler,
    WholeCheckpoints,
    last_whole,
    stoppable,
    use_cpu_well,
)


@dataclass
class TrainSettings:
    """What every training here can be told."""

    data: list[str] = setting(
        [], "text: .txt (a sentence a line), .csv, .tsv, .jsonl, each also .gz; or folders of them"
    )
    output_dir: str = setting("models/distilface", "the model folder to write")
    text_column: str = setting("text", "the column of the text, in files with columns")
    max_sentences: int | None = setting(None, "train on this many sentences, drawn at random; default all")
    dev: str = setting(HUB_STSB, "scored pairs that choose the checkpoint: a file, a Hub data set, or 'sample'")
    epochs: float = setting(1.0, "passes over the data")
    steps: int = setting(-1, "optimiser steps; wins over --epochs when above 0")
    batch_size: int = setting(64, "sentences a step")
    learning_rate: float = setting(3e-5, "peak learning rate of AdamW")
    weight_decay: float = setting(0.0, "AdamW's weight decay")
    scheduler: str = setting("linear", "learning-rate schedule, as transformers names them")
    warmup: float = setting(0.0, "share of the steps in which the learning rate rises")
    train_max_length: int = setting(32, "tokens of a sentence that training reads; the model keeps its own limit")
    eval_steps: int = setting(125, "steps between two scores on the development set, each with a checkpoint")
    seed: int = setting(42, "seed of the initial weights, the dropout and the order of the data")
    bf16: str = setting("auto", "autocast to bf16: 'auto' (where the machine has it), 'yes' or 'no'")
    resume: bool = setting(False, "go on with the unfinished run of this output folder")
    overwrite: bool = setting(False, "replace the output folder, and drop an unfinished run of it")


@dataclass(frozen=True)
class Measure:
    """How one kind of model is scored, saved and loaded; a higher score is better, or a lower one."""

    name: str
    score: Callable[[Any], float]
    save: Callable[[Any, Path], Any]
    load: Callable[[Path], Any]
    key: str
    higher: bool = True
    margin: float = 1.0

    def gain(self, score: float, baseline: float) -> float:
        """Return by how much ``score`` is better than ``baseline``."""
        return score - baseline if self.higher else baseline - score


def work_folder(settings: TrainSettings) -> Path:
    """Return where an unfinished run keeps its checkpoints: beside the output folder."""
    output = Path(settings.output_dir)
    return output.with_name(output.name + ".unfinished")


def check_settings(settings: TrainSettings) -> None:
    """Refuse settings that cannot be run, before anything is read or written.

    Raises:
        InputError: on an output folder that is not empty, ``--resume`` with nothing to resume, an unfinished run
            in the way, or a number out of its range.
    """
    for name in ("batch_size", "eval_steps", "train_max_length", "learning_rate"):
        if getattr(settings, name) <= 0:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be above 0")
    if settings.steps <= 0 and settings.epochs <= 0:
        raise InputError(f"--epochs {settings.epochs} with --steps {settings.steps} trains nothing; raise one")
    if settings.bf16 not in ("auto", "yes", "no"):
        raise InputError(f"--bf16 {settings.bf16!r} must be auto, yes or no")
    output, work = Path(settings.output_dir), work_folder(settings)
    if not settings.overwrite and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty; name another --output-dir, or add --overwrite")
    if settings.resume and last_whole(work) is None:
        raise InputError(f"nothing to resume: {work} holds no whole checkpoint; start without --resume")
    if not settings.resume and not settings.overwrite and last_whole(work) is not None:
        raise InputError(f"{work} holds an unfinished run; go on with --resume, or add --overwrite to drop it")


def effective(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings that decide the result (a resumed run must have the same)."""
    return {name: value for name, value in asdict(settings).items() if name not in ("resume", "overwrite")}


def _claim(work: Path, settings: TrainSettings, data: list[dict[str, Any]]) -> dict[str, Any]:
    """Open the work folder: a new one, or the one to resume if settings and data are the same."""
    state = work / "run.json"
    now = json.loads(json.dumps({"settings": effective(settings), "data": data}))
    if not settings.resume:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        return now
    before: dict[str, Any] = json.loads(state.read_text())
    for key, value in {**now["settings"], "data": now["data"]}.items():
        old = before["data"] if key == "data" else before["settings"].get(key)
        if old != value:
            raise InputError(
                f"--resume with changed settings: {key} was {old!r} and is {value!r}; "
                "set it back, or start over with --overwrite"
            )
    return before


def arguments(settings: TrainSettings, measure: Measure) -> dict[str, Any]:
    """Return the training arguments, by upstream's names, that both trainers share."""
    bf16 = has_bf16() if settings.bf16 == "auto" else settings.bf16 == "yes"
    return {
        "output_dir": str(work_folder(settings)),
        "per_device_train_batch_size": settings.batch_size,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.steps if settings.steps > 0 else -1,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "seed": settings.seed,
        "bf16": bf16,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": settings.eval_steps,
        "save_steps": settings.eval_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": measure.key,
        "greater_is_better": measure.higher,
        "logging_steps": min(50, settings.eval_steps),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def encoder_trainer(
    model: SentenceTransformer, loss: nn.Module, dataset: Dataset, dev: Dataset, settings: TrainSettings
) -> tuple[EncoderTrainer, Measure]:
    """Make the trainer of a sentence encoder and the measure that chooses its checkpoint.

    Args:
        model: the student.
        loss: a sentence-transformers loss on that student.
        dataset: the columns that loss asks for, texts first; a column named ``label`` is not tokenised.
        dev: scored pairs (:func:`distilface.data.read_sts`).
        settings: how to train.
    """
    evaluator = DevEvaluator(dev)
    measure = Measure(
        "stsb_dev",
        lambda m: evaluator(m)["spearman"],
        lambda m, folder: save_folder(m, folder),
        lambda folder: load(folder),
        key="eval_spearman",
    )
    trainer = EncoderTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            **arguments(settings, measure), batch_sampler=LengthBatchSampler, dataloader_drop_last=False
        ),
        train_dataset=dataset,
        loss=loss,
        evaluator=evaluator,
        callbacks=[CollapseAlarm(evaluator.mean_cosine(model))],
    )
    trainer.data_collator.max_length = settings.train_max_length
    return trainer, measure


def fit(
    trainer: WholeCheckpoints,
    measure: Measure,
    settings: TrainSettings,
    texts: Dataset,
    run: dict[str, Any],
    teacher_score: float | None = None,
) -> dict[str, Any]:
    """Train, keep the best checkpoint, write the folder, reload it, score it, and print the verdict.

    The folder appears in one move when all is done; until then everything is in ``<output>.unfinished``.

    Args:
        trainer: made by :func:`encoder_trainer` or by a method of its own.
        measure: how its model is scored, saved and loaded.
        settings: how to train; ``resume`` goes on from the last whole checkpoint.
        texts: the sentences, for their fingerprint.
        run: what the script knows of the run (method, teacher, baseline model), for ``run.json``.
        teacher_score: the teacher on the same measure, for the verdict.

    Returns:
        What stands in ``run.json``: settings, versions, data, parameters, times, scores, curve.

    Raises:
        InputError: on changed settings at a resume, a collapse, a NaN loss.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved and the words to go on.
    """
    work, output = work_folder(settings), Path(settings.output_dir)
    data = [{"source": source} for source in settings.data] + [{"rows": len(texts), "sha256": fingerprint(texts)}]
    state = _claim(work, settings, data)
    if "baseline" not in state:
        state |= {"baseline": measure.score(trainer.model), "seconds": 0.0}
        (work / "run.json").write_text(json.dumps(state))
    print(f"baseline: {measure.name} {state['baseline']:.2f}", file=sys.stderr)
    began = time.monotonic()
    try:
        _train(trainer, work, settings)
    finally:
        state["seconds"] += time.monotonic() - began
        (work / "run.json").write_text(json.dumps(state))
    record = _record(trainer, measure, state, run, teacher_score)
    return _finish(trainer.model, measure, work / "folder", output, record, settings.overwrite)


def _train(trainer: WholeCheckpoints, work: Path, settings: TrainSettings) -> None:
    """Run the trainer to its end, or to Ctrl-C: then the checkpoint is saved and the way on is said."""
    set_seed(settings.seed)
    use_cpu_well(trainer.model)
    with stoppable(trainer) as stop:
        resume_from = last_whole(work) if settings.resume else None
        _drop_partial(work, resume_from)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        words = [word for word in sys.argv if word not in ("--resume", "--overwrite")]
        raise KeyboardInterrupt(
            f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}; "
            f"go on with: python {shlex.join(words)} --resume"
        )


def _drop_partial(work: Path, whole: Path | None) -> None:
    """Delete checkpoints later than the one that is resumed: they were cut off while being written."""
    while whole is not None and (last := get_last_checkpoint(str(work))) is not None and Path(last) != whole:
        shutil.rmtree(last)


def _record(
    trainer: WholeCheckpoints,
    measure: Measure,
    state: dict[str, Any],
    run: dict[str, Any],
    teacher_score: float | None,
) -> dict[str, Any]:
    """Put together what is known of a finished training, but for its final score."""
    history = trainer.state.log_history
    return {
        **run,
        "settings": state["settings"],
        "data": state["data"],
        "seed": state["settings"]["seed"],
        "steps": trainer.state.global_step,
        "best_step": trainer.state.best_global_step,
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "train_seconds": round(state["seconds"], 1),
        "bf16": trainer.args.bf16,
        "curve": [[row["step"], round(row[measure.key], 4)] for row in history if measure.key in row],
        "loss": [[row["step"], round(row["loss"], 4)] for row in history if "loss" in row],
        "scores": {f"baseline_{measure.name}": state["baseline"], f"teacher_{measure.name}": teacher_score},
        **environment(),
    }


def _finish(
    model: Any, measure: Measure, staging: Path, output: Path, record: dict[str, Any], overwrite: bool
) -> dict[str, Any]:
    """Write the folder aside, score it as reloaded from disk, move it into place, print the verdict."""
    shutil.rmtree(staging, ignore_errors=True)
    measure.save(model, staging)
    score = measure.score(measure.load(staging))
    record["scores"][measure.name] = score
    baseline, teacher = (
        record["scores"][f"baseline_{measure.name}"],
        record["scores"][f"teacher_{measure.name}"],
    )
    gain = measure.gain(score, baseline)
    record["verdict"] = "WIN" if gain >= measure.margin else "MARGINAL" if gain > 0 else "REGRESSION"
    (staging / "run.json").write_text(json.dumps(record, indent=2) + "\n")
    put_in_place(staging, output, overwrite=overwrite)
    shutil.rmtree(staging.parent, ignore_errors=True)
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    print(f"folder: {output} ({size / 1e6:.1f} MB), {record['parameters']:,} parameters")
    shown = "none" if teacher is None else f"{teacher:.2f}"
    print(
        f"VERDICT: {record['verdict']} score={score:.2f} baseline={baseline:.2f} teacher={shown} delta={gain:+.2f}",
        flush=True,
    )
    return record


def development_set(settings: TrainSettings) -> Dataset:
    """Read the development pairs that the settings name."""
    return read_sts(settings.dev)
