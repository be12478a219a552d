"""One way to train anything here: baseline first, best checkpoint, exact resume, a whole folder, a verdict."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainingArguments
from torch import nn
from transformers import TrainerCallback, set_seed

from distilface import processes
from distilface.data.fingerprints import fingerprint
from distilface.model.folder import load, save_folder
from distilface.model.precision import uses_bf16, uses_fp16
from distilface.training.batches import LengthBatchSampler
from distilface.training.checkpoints import WholeCheckpoints, drop_partial, last_whole, stoppable
from distilface.training.evaluators import AgreementEvaluator, CollapseAlarm, DevEvaluator
from distilface.training.run_folder import claim, keep, work_folder
from distilface.training.settings import TrainSettings, text_sources
from distilface.training.trainer import EncoderTrainer, use_cpu_well
from distilface.training.verdict import Measure, finish, finished_run, keep_untrained

logger = logging.getLogger(__name__)

#: In what a training returns: Ctrl-C came in its last step.
STOPPED = "stopped"


def count_steps(settings: TrainSettings, rows: int, batches: int | None = None) -> int:
    """Return how many optimiser steps a training makes.

    Args:
        settings: how to train.
        rows: of the data.
        batches: of an epoch, where they are not the rows divided by the batch size.
    """
    batches = -(-rows // settings.batch_size) if batches is None else batches
    return settings.steps if settings.steps > 0 else math.ceil(settings.epochs * batches)


def arguments(settings: TrainSettings, measure: Measure) -> dict[str, Any]:
    """Return the training arguments, by upstream's names, that both trainers share."""
    return {
        "output_dir": str(work_folder(settings)),
        "per_device_train_batch_size": max(settings.batch_size // processes.count(), 1),
        "num_train_epochs": settings.epochs,
        "max_steps": settings.steps if settings.steps > 0 else -1,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "lr_scheduler_type": settings.scheduler,
        "warmup_steps": settings.warmup,
        "seed": settings.seed,
        "bf16": uses_bf16(settings.bf16),
        "fp16": uses_fp16(settings.bf16),
        "torch_compile": settings.compile,
        "use_cpu": not torch.cuda.is_available(),
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": settings.eval_steps,
        "save_steps": settings.eval_steps,
        "save_total_limit": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": measure.chooses or measure.key,
        "greater_is_better": measure.higher,
        "logging_steps": min(50, settings.eval_steps),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def read_length(settings: TrainSettings, model: SentenceTransformer) -> int:
    """Return the tokens of a text that a training reads: those asked for, if the model reads as many."""
    return min(settings.train_max_length, model.max_seq_length or settings.train_max_length)


def encoder_trainer(
    model: SentenceTransformer,
    loss: nn.Module,
    dataset: Dataset,
    dev: Dataset | None,
    settings: TrainSettings,
    callbacks: Sequence[TrainerCallback] = (),
    evaluator: DevEvaluator | AgreementEvaluator | None = None,
) -> tuple[EncoderTrainer, Measure]:
    """Make the trainer of a sentence encoder and the measure that chooses its checkpoint.

    Args:
        model: the student.
        loss: a sentence-transformers loss on that student.
        dataset: the columns that loss asks for, texts first; a column named ``label`` is not tokenised.
        dev: scored pairs (:func:`distilface.data.pairs.read_sts`); ``None`` with an ``evaluator`` that needs none.
        settings: how to train.
        callbacks: what a method does between steps; one that must outlive a stop keeps its state in the loss.
        evaluator: what chooses the checkpoint; default the Spearman correlation on ``dev``.
    """
    judge: Any = evaluator or DevEvaluator(dev)
    measure = Measure(
        judge.measured,
        judge.score,
        lambda m, folder: save_folder(m, folder, name=Path(settings.output_dir).name),
        lambda folder: load(folder),
        key=f"eval_{judge.key}",
        chooses=judge.chooses and f"eval_{judge.chooses}",
        data={} if dev is None else {"dev": settings.dev, "rows": len(dev), "sha256": _fingerprint(dev)},
    )
    together = processes.count() > 1
    args = SentenceTransformerTrainingArguments(
        **arguments(settings, measure), batch_sampler=LengthBatchSampler, dataloader_drop_last=together
    )
    # upstream insists on it for several processes, which an uneven batch would make wait for each other: ours is even
    args.dataloader_drop_last = False
    trainer = EncoderTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        loss=loss,
        evaluator=judge,
        callbacks=[CollapseAlarm(judge.mean_cosine(model)), *callbacks],
        batch_tokens=getattr(settings, "batch_tokens", None),
    )
    trainer.data_collator.max_length = read_length(settings, model)
    return trainer, measure


def fit(
    trainer: WholeCheckpoints,
    measure: Measure,
    settings: TrainSettings,
    texts: Dataset,
    run: dict[str, Any],
    teacher_score: float | None = None,
    outcome: Callable[[], dict[str, Any]] = dict,
) -> dict[str, Any]:
    """Train, keep the best checkpoint, write the folder, reload it, score it, and print the verdict.

    The folder appears in one move when all is done; until then everything is in ``<output>.unfinished``.

    Args:
        trainer: made by :func:`encoder_trainer` or by a method of its own.
        measure: how its model is scored, saved and loaded.
        settings: how to train; ``resume`` goes on from the last whole checkpoint.
        texts: the sentences, for their fingerprint.
        run: what the script knows of the run (method, teacher, baseline model), for ``run.json``; its ``origin``, if
            it has one, must be the same at a resume.
        teacher_score: the teacher on the same measure, for the verdict.
        outcome: asked when the training is over for what only then is known, for ``run.json``.

    Returns:
        What stands in ``run.json``: settings, versions, data, parameters, times, scores, curve; and :data:`STOPPED`,
        if Ctrl-C came in the last step, for who would go on with another training.

    Raises:
        InputError: on changed settings at a resume, a collapse, a NaN loss.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved and the words to go on.
    """
    work, output = work_folder(settings), Path(settings.output_dir)
    data = [{"source": source} for source in text_sources(settings)] + [
        {"rows": len(texts), "sha256": fingerprint(texts)}
    ]
    data += [measure.data] if measure.data else []

    def begin() -> dict[str, Any]:
        """Open the work folder, and score the student that is to be trained."""
        start = claim(settings, data, run.get("origin"))
        if "baseline" not in start:
            _score_untrained(trainer.model, measure, settings, start)
            keep(settings, start)
        return start

    def end() -> dict[str, Any]:
        """Write the folder, and score it."""
        finished = finished_run(trainer, measure, start, {**run, **outcome()}, teacher_score)
        return finish(trainer.model, measure, work / "folder", output, finished, settings.overwrite)

    start = processes.from_first(begin)
    logger.info(f"baseline: {measure.name} {start['baseline']:.2f}; {_cost(trainer, settings)}")
    asked = _train(trainer, work, settings)
    finished = processes.from_first(end)
    return finished | {STOPPED: True} if asked else finished


def _score_untrained(model: Any, measure: Measure, settings: TrainSettings, start: dict[str, Any]) -> None:
    """Note in ``start`` how an untrained student scores; write its folder, if one is asked for."""
    start["baseline"] = measure.score(model)
    if measure.agreement is not None:
        before = measure.agreement(model)
        start["agreement"] = {"texts": before.pop("texts"), "before": before}
    if place := getattr(settings, "untrained_dir", None):
        keep_untrained(model, measure, Path(place), settings.overwrite)


def _cost(trainer: WholeCheckpoints, settings: TrainSettings) -> str:
    """Say what is to be done: sentences, steps, batch, processes."""
    dataset: Any = trainer.train_dataset
    rows, together = len(dataset), processes.count()
    by = f", {together} processes" if together > 1 else ""
    batches = getattr(trainer, "batches", None)
    each = settings.batch_size if batches is None else f"at most {getattr(settings, 'batch_tokens', 0):,} tokens"
    return f"{rows:,} sentences, {count_steps(settings, rows, batches):,} steps of {each}{by}"


def _train(trainer: WholeCheckpoints, work: Path, settings: TrainSettings) -> bool:
    """Run the trainer to its end, or to Ctrl-C: then the checkpoint is saved and the way on is said.

    Returns:
        Whether Ctrl-C came in the last step, which ends the training as it would have ended.
    """
    set_seed(settings.seed + processes.index())  # of dropout: each process has texts of its own
    use_cpu_well(trainer.model)
    whole = processes.from_first(lambda: _checkpoint(work)) if settings.resume else None
    if whole is not None:
        logger.info(f"going on from {whole}")
    with stoppable(trainer) as stop:
        trainer.train(None if whole is None else str(whole))
    if stop.asked and trainer.state.global_step < trainer.state.max_steps:
        raise KeyboardInterrupt(f"saved at step {trainer.state.global_step} of {trainer.state.max_steps}")
    return stop.asked


def _checkpoint(work: Path) -> Path | None:
    """Return the checkpoint to go on from, and delete those that were cut off while being written."""
    whole = last_whole(work)
    if whole is not None:
        drop_partial(work, whole)
    return whole


def _fingerprint(pairs: Dataset) -> str:
    return hashlib.sha256(json.dumps(pairs.to_list()).encode()).hexdigest()[:16]
