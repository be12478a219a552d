"""DistillCSE and distillation on the fly as a method: its settings, and how its pieces are put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import TrainerCallback

from distilface.hub_ids import DEFAULT_BACKBONE
from distilface.methods.base import EncoderMethod, Task
from distilface.methods.online.generations import Generations, check_generations, check_length, generations
from distilface.methods.online.loss import PAPER, DistillCSELoss, prepare
from distilface.methods.relations import ALONE, LEAST_BATCH
from distilface.model.precision import uses_bf16
from distilface.settings import setting
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.fitting import count_steps
from distilface.training.settings import StudentSettings

#: Settings that the loss takes as they are.
_OF_THE_LOSS = ("scale", "mlp_head", "weight", "student_temperature", "teacher_temperature", "group_p", "seed")
#: Where an option of the teachers' relations has an effect.
_WEIGHED = {"weight": True}


@dataclass
class OnlineSettings(StudentSettings):
    """Options of DistillCSE and of distillation on the fly."""

    output_dir: str = setting("models/online", "the model folder to write")
    backbone: str = setting(DEFAULT_BACKBONE, "a Hub id or folder of a masked-LM backbone")
    dropout: float | None = setting(None, "the backbone's dropout, which makes the two views; default its own")
    scale: float = setting(20.0, "1 / temperature of SimCSE")
    mlp_head: bool = setting(False, "a linear layer and tanh on the embeddings, in training only")
    teachers: list[str] = setting(
        [], "Hub ids or folders of sentence encoders; their cosines are averaged", needs=_WEIGHED
    )
    teacher_max_length: int | None = setting(
        None, "tokens that a teacher reads; default: as many as training reads", needs={"teachers": True}
    )
    weight: float = setting(1.0, "weight of the teachers' relations beside SimCSE's loss")
    student_temperature: float = setting(0.02, "temperature of the student's relations", needs=_WEIGHED)
    teacher_temperature: float = setting(0.01, "temperature of the teachers' relations", needs=_WEIGHED)
    group_p: float = setting(0.1, "probability in one group of Group-P shuffling; 0 for none", needs=_WEIGHED)
    switch_every: int = setting(0, "steps after which the student's past becomes the teacher; 0 for never")
    max_switches: int = setting(3, "how often it does so at most", needs={"switch_every": True})
    teacher_from: str = setting(
        "last",
        "which past: 'last', or 'best_dev', the best on the development set so far",
        needs={"switch_every": True, "max_switches": True},
    )

    @property
    def switches(self) -> bool:
        """Whether the student's past ever becomes the teacher."""
        return bool(self.switch_every and self.max_switches)


class Online(EncoderMethod):
    """Train a sentence encoder by SimCSE with teachers beside it (DistillCSE), or with its own past (on the fly).

        distilface train online --config minilm-online --data TEXT.txt

    is SimCSE that becomes its own teacher every 250 steps: 1,000 steps, about 20 minutes on 2 cores. With other
    encoders as teachers (one, or several whose cosines are averaged), unsupervised ones if the student is to be so too:

        distilface train online --config minilm-distillcse --data TEXT.txt --teachers DIR

    With --teachers and --switch_every both, the student's past takes over from them. A teacher reads each batch once,
    and only forward: benchmarks/run_teacher_cost.py measures what that costs. ``run.json`` holds the generations.
    """

    name = "online"
    aliases = ("distillcse",)
    paper = PAPER
    Settings = OnlineSettings
    alone = ALONE
    least_batch = LEAST_BATCH

    def check(self, settings: Any) -> None:
        """Refuse a switch that could not happen, and a training in which nothing ever teaches."""
        super().check(settings)
        keep = settings.teacher_from
        check_generations(settings.teachers, settings.switch_every, settings.max_switches, keep, settings.eval_steps)

    def student(self, task: Task) -> SentenceTransformer:
        """Return the student, once it is known that the training reaches its first switch."""
        settings = task.settings
        check_length(settings.teachers, settings.switch_every, count_steps(settings, len(task.texts)))
        return super().student(task)

    def prepare(self, task: Task) -> Dataset:
        """Pair every sentence with itself, with its row beside it."""
        return prepare(task.texts)

    def loss(self, student: SentenceTransformer, task: Task) -> DistillCSELoss:
        """Return SimCSE beside the relations that the teachers see."""
        settings = task.settings
        length = settings.teacher_max_length
        return DistillCSELoss(
            student,
            task.teachers,
            task.texts,
            **{name: getattr(settings, name) for name in _OF_THE_LOSS},
            teacher_max_length=settings.train_max_length if length is None else length,
            bf16=uses_bf16(settings.bf16),
            keep=settings.teacher_from if settings.switches else None,
        )

    def callbacks(self, loss: nn.Module, task: Task) -> Sequence[TrainerCallback]:
        """Switch to the student's past where that is asked for."""
        settings: Any = task.settings
        switch: Any = loss
        return [Generations(switch, settings.switch_every, settings.max_switches)] if settings.switches else []

    def outcome(self, trainer: WholeCheckpoints, task: Task) -> dict[str, Any]:
        """Report the generations."""
        settings = task.settings
        key = trainer.args.metric_for_best_model
        numbers = settings.switch_every, settings.max_switches
        return {"generations": generations(trainer.state.log_history, key, *numbers, settings.teacher_from)}
