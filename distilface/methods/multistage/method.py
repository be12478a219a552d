"""Multi-stage distillation as a method: what it refuses, and how its stages follow each other."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from transformers import set_seed

from distilface import processes
from distilface.compression.recurrent import check_recurrent
from distilface.compression.student import load_backbone
from distilface.data.fingerprints import fingerprint
from distilface.data.parallel import held_out_split, read_parallel, sentences
from distilface.data.texts import numbered
from distilface.hub_ids import resolve
from distilface.methods.base import Method
from distilface.methods.multistage.evaluators import CrossLingualEvaluator
from distilface.methods.multistage.losses import PAPER
from distilface.methods.multistage.settings import EACH, MultistageSettings, check_values
from distilface.methods.multistage.stages import STAGES, Assistant, ParallelTask, Stage
from distilface.model.folder import Folder
from distilface.run import Run
from distilface.settings import InputError, warn_unused
from distilface.training.batches import check_batch
from distilface.training.fitting import encoder_trainer, fit
from distilface.training.history import history_of
from distilface.training.run_folder import check_settings, claimed, drop_finished, is_taken
from distilface.training.settings import other_settings, warn_unread
from distilface.training.trainer import EncoderTrainer
from distilface.training.verdict import Measure, verdict_lines

logger = logging.getLogger(__name__)


def _chosen(settings: MultistageSettings) -> list[type[Stage]]:
    return [stage for stage in STAGES if stage.number in settings.stages]


def _check_stages(settings: MultistageSettings) -> None:
    """Refuse stages that do not exist, lists without one value a stage, and what each stage would refuse."""
    for number in settings.stages:
        if not 1 <= number <= len(STAGES):
            raise InputError(f"there is no stage {number}; name stages from 1 to {len(STAGES)}")
    for several in EACH:
        values = getattr(settings, several)
        if values is not None and len(values) != len(STAGES):
            raise InputError(f"--{several} has {len(values)} values; give {len(STAGES)}, one a stage")
    check_settings(replace(settings, resume=False, overwrite=True))
    for kind in _chosen(settings):
        own = kind.own_settings(settings)
        check_batch(own.batch_size, kind.least_batch, f"stage {kind.number}")
        if own.weight == 0 and kind.number in (1, 3):
            raise InputError(f"--weight 0 trains nothing in stage {kind.number}, whose loss is that term; raise it")
    stages = [stage.own_settings(settings) for stage in _chosen(settings)]
    missing = [stage for stage in stages if not Folder(Path(stage.output_dir)).run_file.is_file()]
    if settings.resume and missing == stages and not any(stage.resume for stage in stages):
        check_settings(replace(stages[0], resume=True))
    for stage in stages:
        if stage.overwrite or stage in missing:
            check_settings(stage)


def _check_sources(settings: MultistageSettings) -> None:
    """Refuse a stage without the folder that it needs, or on one of another shape."""
    for stage in (chosen := _chosen(settings)):
        for needed in stage.needs:
            folder, is_first = needed.folder(settings.output_dir), needed is Assistant
            why = f"stage {stage.number} needs what stage {needed.number} makes, and {folder.path}"
            if needed in chosen or (is_first and settings.assistant and not folder.is_valid()):
                continue
            if not folder.is_valid():
                remedy = f"add {needed.number} to --stages" + (" or give --assistant" if is_first else "")
                raise InputError(f"{why} is not there; {remedy}")
            known = folder.run.settings if folder.run else {}
            for name in needed.shape:
                if (old := known.get(name)) != (now := getattr(settings, name)):
                    raise InputError(
                        f"{why} was made with {name} {old!r}, not {now!r}; set it back, or add {needed.number} to "
                        "--stages with --overwrite"
                    )


def _check_models(settings: MultistageSettings, teacher: SentenceTransformer) -> None:
    """Refuse, before the first stage is trained, an assistant that a later stage would refuse."""
    if settings.assistant and (more := _beside_the_mean(settings.assistant)):
        what = f"{settings.assistant} ends in {' and '.join(more)}, and only its encoder is used, under the mean over"
        if Assistant not in _chosen(settings):
            raise InputError(f"{what} the tokens: it cannot be the assistant as it is; add 1 to --stages")
        logger.info(f"{what} the tokens; stage 1 trains it so")
    length = settings.max_seq_length or teacher.max_seq_length
    if length and length > settings.train_max_length:
        logger.warning(
            f"the model will read {length} tokens and training reads {settings.train_max_length}: no position "
            "after that is trained, and the narrow table fits those badly; set --max_seq_length nearer"
        )
    layers = None if settings.assistant else settings.assistant_layers
    encoder, _ = load_backbone(settings.assistant or settings.teacher, layers)
    check_recurrent(encoder.config, settings.keep_layers, settings.repeats, settings.embedding_size)
    width, teacher_width = encoder.config.hidden_size, teacher.get_embedding_dimension()
    if width != teacher_width:
        raise InputError(
            f"the teacher's embeddings have {teacher_width} dimensions and the assistant's {width}; they must fit"
        )


def _drop_finished(settings: MultistageSettings) -> None:
    """Drop the work folders of stages that were killed after their model folder got its place."""
    for stage in STAGES:
        drop_finished(replace(settings, output_dir=str(stage.folder(settings.output_dir).path)))


def _beside_the_mean(assistant: str) -> list[str]:
    """Name what turns an encoder's states into an embedding, where that is not the mean over the tokens alone."""
    folder = resolve(assistant)
    if not (Path(folder) / "modules.json").is_file():
        return []
    modules: list[Any] = [m for m in SentenceTransformer(folder, device="cpu") if not isinstance(m, Normalize)]
    return [type(m).__name__ for m in modules[1:] if m.get_config_dict().get("pooling_mode") != "mean"]


def _finished(stage: Stage) -> dict[str, Any] | None:
    """Return ``run.json`` of a finished stage with the same settings, models and text; ``None`` if it must be trained.

    ``overwrite`` trains every stage again; together with ``resume``, only those that differ.
    """
    output, overwrite = stage.settings.output_dir, stage.settings.overwrite
    run = Folder(Path(output)).run
    if run is None or (overwrite and not stage.task.settings.resume):
        return None
    changed = other_settings(run, stage.settings)
    changed += [] if run.origin == stage.origin else ["what it is made of"]
    return run.as_dict() if is_taken(Path(output), changed, overwrite) else None


class Multistage(Method):
    """Distil an English teacher into a small student of many languages, in four stages (arXiv 2209.05869).

        distilface train multistage --config xx-minilm-small --parallel FILE.en-de.tsv

    makes an assistant of the teacher's layers with a vocabulary trained on the parallel text, a factorised embedding
    layer, a recurrent student, and gives it the teacher's cosines: hours on 2 cores. With the Hub, the paper's own:

        distilface train multistage --config xx-minilm --parallel FILE.en-de.tsv

    Some stages alone: ``--stages 2 3``. Stages 1 to 3 are kept in ``<output>.stages``; one that is there with the same
    settings is not trained again, and ``--resume`` goes on in the middle of one. Each ends in a verdict of its own.
    """

    name = "multistage"
    paper = PAPER
    Settings = MultistageSettings

    def check(self, settings: Any) -> None:
        """Refuse stages that cannot be run, values out of their range, and a stage without the one that it needs."""
        _check_stages(settings)
        check_values(settings)
        _check_sources(settings)

    def train(self, settings: Any, texts: Dataset | None = None) -> dict[str, Any]:
        """Run the stages, each with a folder of its own; return what stands in the ``run.json`` of the last one.

        Args:
            settings: of :attr:`Settings`.
            texts: pairs in columns ``english``, ``other`` and ``language``; ``None`` reads ``settings.data``.

        Raises:
            InputError: as every method does, and on a stage that is there with other settings.
            KeyboardInterrupt: after Ctrl-C, with the checkpoint saved and the words to go on.
        """
        with claimed(settings):
            processes.from_first(lambda: _drop_finished(settings))
            return self._train_alone(settings, texts)

    def _train_alone(self, settings: Any, texts: Dataset | None) -> dict[str, Any]:
        processes.from_first(lambda: self.check(settings))
        warn_unused(settings)
        warn_unread(settings, texts is not None, ".tsv", "text_column", "other_column")
        if texts is None:
            columns = settings.text_column, settings.other_column
            texts = processes.first_then_others(lambda: read_parallel(settings.data, settings.max_sentences, columns))
        if missing := {"english", "other", "language"} - {*texts.column_names}:
            raise InputError(f"the data has no column {min(missing)!r}; give parallel text, as NAME.en-de.tsv")
        pairs, held_out = held_out_split(texts, settings.held_out)
        task = ParallelTask(settings, sentences(pairs), pairs, held_out)
        CrossLingualEvaluator(task.dev, held_out)  # made here to refuse bad pairs before the first stage is trained
        _check_models(settings, task.teacher)
        runs = [(stage, self._train(stage(task))) for stage in _chosen(settings)]
        for stage, run in runs:
            scores = " ".join(f"{name}={score:.2f}" for name, score in run["scores"].items() if score is not None)
            logger.info(f"stage {stage.number} ({stage.name}): {run['parameters']:,} parameters, {scores}")
        return runs[-1][1]

    def _train(self, stage: Stage) -> dict[str, Any]:
        """Train one stage, go on with it, or find it finished; return its ``run.json``."""
        if run := _finished(stage):
            return run
        logger.info(f"stage {stage.number} of {len(STAGES)}: {stage.name}")
        set_seed(stage.settings.seed)
        trainer, measure = self.trainer(stage)
        held_out = stage.task.held_out
        run = {
            "method": self.name,
            "stage": stage.name,
            "baseline_model": stage.source,
            "layers": None,
            "history": history_of(stage.source),
            "teacher": stage.teacher_name,
            "held_out": {"rows": len(held_out), "sha256": fingerprint(sentences(held_out))},
            "origin": stage.origin,
            "pairs": len(stage.pairs),
            "loss_settings": trainer.loss.get_config_dict(),
        }
        score = processes.from_first(lambda: measure.score(stage.teacher)) if stage.teacher_scored else None
        finished = fit(trainer, measure, stage.settings, stage.task.texts, run, score)
        if stage.number != max(stage.task.settings.stages):  # the verdict of the last one is the training's
            for line in verdict_lines(Run.from_dict(finished), Path(stage.settings.output_dir)):
                logger.info(line)
        return finished

    def trainer(self, task: Any) -> tuple[EncoderTrainer, Measure]:
        """Return the trainer of a stage, which is the task here, and the measure that chooses its checkpoint."""
        stage: Stage = task
        student, rows = stage.student(), numbered(stage.pairs.select_columns(["english", "other"]))
        loss, dev = stage.loss(student), stage.task.dev
        return encoder_trainer(student, loss, rows, dev, stage.settings, evaluator=stage.evaluator())
