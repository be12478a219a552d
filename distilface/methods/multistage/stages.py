"""Multi-stage distillation put together: what each stage starts from, learns from, is scored by and writes."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import set_seed

from distilface.compression.recurrent import recurrent_student
from distilface.compression.student import load_student
from distilface.compression.vocabulary import make_assistant
from distilface.data.parallel import sentences
from distilface.data.texts import fingerprint
from distilface.methods.multistage import losses as multistage
from distilface.methods.multistage.evaluators import BottleneckEvaluator, CrossLingualEvaluator
from distilface.methods.multistage.settings import NAMES, MultistageSettings
from distilface.model import identity
from distilface.model.folder import Folder, save_folder
from distilface.model.pooling import is_normalized
from distilface.model.precision import uses_bf16
from distilface.training.fitting import count_steps, encoder_trainer, fit
from distilface.training.stages import finished, stage_folder, stage_settings


@dataclass(frozen=True)
class Materials:
    """What all the stages share.

    Attributes:
        settings: of the whole training.
        pairs: to train on, from :func:`distilface.data.parallel.held_out_split`.
        held_out: the others.
        dev: scored English pairs.
        teacher: the English teacher, frozen.
    """

    settings: MultistageSettings
    pairs: Dataset
    held_out: Dataset
    dev: Dataset
    teacher: SentenceTransformer

    def folder(self, number: int) -> Path:
        """Return where a stage writes."""
        return stage_folder(self.settings, number, NAMES)

    @property
    def length(self) -> int | None:
        """Tokens that the models made here read."""
        return self.settings.max_seq_length or self.teacher.max_seq_length

    def student(self, source: str | Path) -> SentenceTransformer:
        """Load an encoder as a student: mean pooling, of unit length where the teacher is."""
        normalize = is_normalized(self.teacher)
        made = load_student(str(source), normalize=normalize, dropout=self.settings.dropout)
        made.max_seq_length = min(filter(None, (made.max_seq_length, self.length)))
        return made

    @property
    def _start(self) -> Path:
        """Where the assistant is kept that is made of the teacher."""
        return self.folder(1).with_name("0-start")

    @property
    def assistant_source(self) -> str:
        """What stages 2 and 3 learn from: what stage 1 has written, or else the assistant that is given."""
        made = self.folder(1)
        given = self.settings.assistant
        return given if given and not Folder(made).is_valid() else str(made)

    def assistant(self) -> SentenceTransformer:
        """Load that assistant, frozen and in eval mode."""
        return self.student(self.assistant_source).requires_grad_(False).eval()

    def start(self) -> SentenceTransformer:
        """Return what stage 1 starts from: the assistant that is given, or one made of the teacher.

        The latter is kept beside the stages, so that a resumed training has the same vocabulary.
        """
        settings, folder = self.settings, self._start
        if settings.assistant:
            return self.student(settings.assistant)
        origin = {
            "teacher": identity.fingerprint(self.teacher),
            "pairs": fingerprint(sentences(self.pairs)),
            **{name: getattr(settings, name) for name in ("vocabulary", "assistant_layers", "seed")},
        }
        if not (Folder(folder).is_valid() and (run := Folder(folder).run) and run.origin == origin):
            made = make_assistant(
                settings.teacher,
                sentences(self.pairs),
                settings.vocabulary,
                settings.assistant_layers,
                seed=settings.seed,
            )
            save_folder(made, folder, {"method": "assistant", "origin": origin}, overwrite=True)
        return self.student(folder)

    def part(self, number: int) -> Dataset:
        """Return the pairs that a stage is given: all, or as many as it reads where that is less than half of them.

        A teacher embeds what a stage is given; of a short stage, most of it would never be read.
        """
        settings = stage_settings(self.settings, number, NAMES)
        count = settings.batch_size * count_steps(settings, len(self.pairs))
        if 2 * count >= len(self.pairs):
            return self.pairs
        chosen = np.random.default_rng(settings.seed).choice(len(self.pairs), count, replace=False)
        return self.pairs.select(np.sort(chosen))

    def loss(
        self, number: int, pairs: Dataset, student: SentenceTransformer, teacher: SentenceTransformer
    ) -> nn.Module:
        """Make the loss of a stage on its pairs."""
        own = stage_settings(self.settings, number, NAMES)
        weight, cache, bf16 = own.weight, own.cache_dir, uses_bf16(own.bf16)
        if number == 2:
            return multistage.BottleneckLoss(student, teacher)
        english = multistage.targets(pairs, teacher, "english", cache, bf16)
        if number == 4:
            return multistage.MultilingualContrastiveLoss(student, english, weight)
        other = english if number == 1 else multistage.targets(pairs, teacher, "other", cache, bf16)
        return multistage.MatchLoss(student, english, other, weight)

    def facts(self, number: int) -> dict[str, Any]:
        """Say what ``run.json`` shall know of a stage; the start of the second is no folder."""
        before = [self.settings.assistant or self._start, None, self.folder(2), self.folder(3)][number - 1]
        return {
            "method": "multistage",
            "stage": NAMES[number - 1],
            "baseline_model": None if before is None else str(before),
            "layers": None,
            "teacher": self.settings.teacher if number in (1, 4) else self.assistant_source,
            "held_out": {"rows": len(self.held_out), "sha256": fingerprint(sentences(self.held_out))},
        }


def run_stage(number: int, materials: Materials) -> dict[str, Any]:
    """Train one stage, go on with it, or find it finished; return its ``run.json``.

    Raises:
        InputError: as :func:`distilface.training.stages.finished` and :func:`distilface.training.fitting.fit`.
    """
    settings = stage_settings(materials.settings, number, NAMES)
    teacher = materials.teacher if number in (1, 4) else materials.assistant()
    student = {1: materials.start, 2: materials.assistant}.get(
        number, lambda: materials.student(materials.folder(number - 1))
    )()
    texts = sentences(materials.pairs)
    models = {"start": student, "teacher": teacher}
    origin = {name: identity.fingerprint(model)[:16] for name, model in models.items()} | {"pairs": fingerprint(texts)}
    if run := finished(settings, origin, materials.settings.resume):
        return run
    print(f"stage {number} of {len(NAMES)}: {NAMES[number - 1]}", file=sys.stderr)
    set_seed(settings.seed)
    evaluator: Any = CrossLingualEvaluator(materials.dev, materials.held_out)
    if number == 2:
        sizes = settings.keep_layers, settings.repeats, settings.embedding_size
        student = recurrent_student(student, *sizes, dropout=settings.dropout)
        evaluator = BottleneckEvaluator(materials.dev, materials.held_out, teacher)
    pairs = materials.part(number)
    loss: Any = materials.loss(number, pairs, student, teacher)
    rows = multistage.prepare(pairs)
    trainer, measure = encoder_trainer(student, loss, rows, materials.dev, settings, evaluator=evaluator)
    run = materials.facts(number) | {"origin": origin, "pairs": len(pairs), "loss_settings": loss.get_config_dict()}
    return fit(trainer, measure, settings, texts, run, None if number == 2 else measure.score(teacher))
