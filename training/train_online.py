"""Train a sentence encoder by SimCSE with teachers beside it (DistillCSE), or with its own past (on the fly).

    python training/train_online.py --config training/recipes/minilm-online.yaml --data TEXT.txt

is SimCSE that becomes its own teacher every 250 steps: 1,000 steps, about 20 minutes on 2 cores. With other encoders
as teachers (one, or several whose cosines are averaged), unsupervised ones if the student is to be so too:

    python training/train_online.py --config training/recipes/minilm-distillcse.yaml --data TEXT.txt --teachers DIR

With --teachers and --switch_every both, the student's past takes over from them. A teacher reads each batch once, and
only forward: benchmarks/run_teacher_cost.py says what that costs. ``run.json`` tells the generations.
"""

from dataclasses import dataclass
from typing import Any

from transformers import set_seed

from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.texts import read_texts
from distilface.hub_ids import DEFAULT_BACKBONE
from distilface.methods.online import generations
from distilface.methods.online import loss as online
from distilface.model.precision import uses_bf16
from distilface.settings import parse, setting
from distilface.training.fitting import count_steps, encoder_trainer, fit, make_student
from distilface.training.run_folder import check_settings
from distilface.training.settings import StudentSettings
from distilface.training.teacher import load_teacher

OF_THE_LOSS = ("scale", "mlp_head", "weight", "student_temperature", "teacher_temperature", "group_p", "seed")


@dataclass
class Settings(StudentSettings):
    """What DistillCSE and distillation on the fly can be told."""

    output_dir: str = setting("models/online", "the model folder to write")
    backbone: str = setting(DEFAULT_BACKBONE, "a Hub id or folder of a masked-LM backbone")
    dropout: float | None = setting(None, "the backbone's dropout, which makes the two views; default its own")
    scale: float = setting(20.0, "1 / temperature of SimCSE")
    mlp_head: bool = setting(False, "a linear layer and tanh on the embeddings, in training only")
    teachers: list[str] = setting([], "Hub ids or folders of sentence encoders; their cosines are averaged")
    teacher_max_length: int | None = setting(None, "tokens that a teacher reads; default: as many as training reads")
    weight: float = setting(1.0, "weight of the teachers' relations beside SimCSE's loss")
    student_temperature: float = setting(0.02, "temperature of the student's relations")
    teacher_temperature: float = setting(0.01, "temperature of the teachers' relations")
    group_p: float = setting(0.1, "probability in one group of Group-P shuffling; 0 for none")
    switch_every: int = setting(0, "steps after which the student's past becomes the teacher; 0 for never")
    max_switches: int = setting(3, "how often it does so at most")
    teacher_from: str = setting("last", "which past: 'last', or 'best_dev', the best on the development set so far")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Train and write the folder; return what stands in ``run.json``."""
    settings = parse(Settings, argv, __doc__ or "")
    check_settings(settings)
    names, every, limit, keep = settings.teachers, settings.switch_every, settings.max_switches, settings.teacher_from
    generations.check_plan(names, every, limit, keep, settings.eval_steps)
    set_seed(settings.seed)
    texts = read_texts(settings.data, settings.max_sentences, settings.text_column)
    generations.check_length(names, every, count_steps(settings, len(texts)))
    dev = read_sts(settings.dev)
    teachers = [load_teacher(name) for name in names]
    switches, length = bool(every and limit), settings.teacher_max_length
    loss = online.DistillCSELoss(
        make_student(settings, settings.backbone),
        teachers,
        texts,
        **{name: getattr(settings, name) for name in OF_THE_LOSS},
        teacher_max_length=settings.train_max_length if length is None else length,
        bf16=uses_bf16(settings.bf16),
        keep=keep if switches else None,  # type: ignore[arg-type]
    )
    callbacks = [generations.Generations(loss, every, limit)] if switches else []
    trainer, measure = encoder_trainer(loss.model, loss, online.prepare(texts), dev, settings, callbacks)
    scores = [measure.score(teacher) for teacher in teachers]
    run = {
        "method": "online",
        "baseline_model": settings.backbone,
        "layers": settings.layers,
        "teacher": names[0] if len(names) == 1 else names or None,
        "teacher_scores": dict(zip(names, scores, strict=True)),
        "loss_settings": loss.get_config_dict(),
    }

    def outcome() -> dict[str, Any]:
        """Tell the generations, once they are over."""
        return {"generations": generations.generations(trainer.state.log_history, measure.key, every, limit, keep)}

    return fit(trainer, measure, settings, texts, run, max(scores, default=None), outcome)


if __name__ == "__main__":
    run_command(main)
