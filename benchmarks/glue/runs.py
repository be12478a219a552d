"""The trainings of one GLUE task: a teacher for each seed, and its students."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import DataCollatorWithPadding, set_seed

from benchmarks.glue.models import Classifier, TeacherOutputs, predict, run_teacher, tokenise
from benchmarks.glue.result import Result
from benchmarks.glue.tasks import TaskData
from benchmarks.glue.ways import BestEpoch, FineTuning, fine_tune, read_way
from distilface.compression.student import load_backbone
from distilface.methods.codir import CoDIRLoss, ContrastSettings, make_contrast
from distilface.model.precision import uses_bf16


def teachers_folder(output: str) -> Path:
    """Return the folder that holds fine-tuned teachers until the end, beside the result."""
    return Path(f"{output}.teachers")


class TaskRuns:
    """The trainings of one task; one that the result holds is skipped.

    Args:
        name: of the task.
        data: its rows.
        settings: of the benchmark.
        result: receives finished trainings.
    """

    def __init__(self, name: str, data: TaskData, settings: Any, result: Result) -> None:
        self.name, self.data, self.settings, self.result = name, data, settings, result
        student, tokenizer = load_backbone(settings.teacher, settings.layers)
        teacher, _ = load_backbone(settings.teacher)
        self.student_config, self.teacher_config = student.config, teacher.config
        for way in ["kd", *settings.ways]:  # a wrong layer is refused before the first training
            make_contrast(replace(settings, **read_way(way)[1]), student.config, teacher.config, 1, 0)
        self.collator = DataCollatorWithPadding(tokenizer)
        self.train, self.held_out, self.validation = (
            tokenise(rows, data.task.columns, tokenizer, settings.max_length)
            for rows in (data.train, data.held_out, data.validation)
        )

    def seed(self, seed: int) -> None:
        """Run the trainings of one seed that the result does not hold."""
        missing = [way for way in self.settings.ways if self.result.find(self.name, way, seed) is None]
        if missing or self.result.find(self.name, "teacher", seed) is None:
            teacher = self.teacher(seed)
            outputs: dict[Any, TeacherOutputs] = {}
            for way in missing:
                self.student(way, seed, teacher, outputs)

    def teacher(self, seed: int) -> Classifier:
        """Fine-tune the teacher of a seed, or load the one that a stopped run left; return it."""
        set_seed(seed)
        teacher = Classifier(load_backbone(self.settings.teacher)[0], self.data.task.classes)
        file = teachers_folder(self.settings.output) / f"{self.name}-{seed}.safetensors"
        if self.result.find(self.name, "teacher", seed) and file.is_file():
            teacher.load_state_dict(load_file(file))
            return teacher
        run = self._run("teacher", seed, FineTuning(teacher))
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(teacher.cpu().state_dict(), file)
        self.result.keep(run)
        return teacher

    def contrast(self, settings: ContrastSettings, seed: int) -> CoDIRLoss:
        """Return the summaries and the contrast of a student, for this task's examples."""
        configs = self.student_config, self.teacher_config
        return make_contrast(settings, *configs, len(self.train), seed, self.data.task.margin)

    def student(self, way: str, seed: int, teacher: Classifier, outputs: dict[Any, TeacherOutputs]) -> None:
        """Fine-tune a student in one way; all ways start from the same student, head included.

        Args:
            way: as :func:`benchmarks.glue.ways.read_way` reads it.
            seed: of the weights, the batches and the contrast.
            teacher: of that seed.
            outputs: the teacher's, by layers and pooling; new ones are added.
        """
        name, own = read_way(way)
        settings = replace(self.settings, **own)
        set_seed(seed)
        student = Classifier(load_backbone(settings.teacher, settings.layers)[0], self.data.task.classes)
        contrast = self.contrast(settings, seed)
        layers, pooling = sorted(set(contrast.teacher.layers)), contrast.teacher.pooling
        if name != "ce" and (key := (*layers, pooling)) not in outputs:
            outputs[key] = run_teacher(teacher, self.train, self.collator, layers, pooling, uses_bf16(settings.bf16))
        tuning = FineTuning(
            student,
            None if name == "ce" else outputs[key],
            contrast if name in ("kd+l2", "kd+codir") else None,
            l2=name == "kd+l2",
            beta=settings.beta,
            temperature=settings.kd_temperature,
            weight=settings.weight,
        )
        self.result.keep(self._run(way, seed, tuning))

    def _run(self, way: str, seed: int, tuning: FineTuning) -> dict[str, Any]:
        """Train, and score the validation set once, with the weights of the best epoch."""
        labels = {name: rows.with_format("numpy")["labels"][:] for name, rows in self._scored().items()}

        def scores(student: Classifier, split: str) -> dict[str, float]:
            return self.data.task.scores(predict(student, self._scored()[split], self.collator), labels[split])

        best = BestEpoch(lambda student: scores(student, "held_out")["score"], f"{self.name} {way} seed {seed}")
        began = time.monotonic()
        fine_tune(tuning, self.train, self.collator, best, self._arguments(seed))
        reported = scores(tuning.student, "validation" if self.settings.report else "held_out")
        return {
            "task": self.name,
            "way": way,
            "seed": seed,
            "scores": {name: round(value, 4) for name, value in reported.items()},
            "held_out": [round(value, 4) for value in best.curve],
            "best_epoch": best.curve.index(max(best.curve)) + 1,
            "parameters": sum(p.numel() for p in tuning.student.parameters()),
            "contrast": tuning.contrast.get_config_dict() if tuning.contrast else None,
            "seconds": round(time.monotonic() - began, 1),
        }

    def _scored(self) -> dict[str, Any]:
        return {"held_out": self.held_out, "validation": self.validation}

    def _arguments(self, seed: int) -> dict[str, Any]:
        settings = self.settings
        return {
            "num_train_epochs": settings.epochs,
            "per_device_train_batch_size": settings.batch_size,
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "warmup_steps": settings.warmup,
            "bf16": uses_bf16(settings.bf16),
            "seed": seed,
        }
