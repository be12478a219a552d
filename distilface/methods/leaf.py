"""LEAF (arXiv 2509.12539): a student in its teacher's own space, by the plain distance to cached teacher embeddings."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.losses import EmbedDistillLoss
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from distilface.embedding.rounding import restored
from distilface.methods import embedding
from distilface.methods.base import EncoderMethod, Paper, Task
from distilface.model.pooling import is_normalized
from distilface.settings import InputError, setting
from distilface.training.fitting import count_steps
from distilface.training.settings import ImitationSettings
from distilface.training.student import make_student
from distilface.training.trainer import EncoderTrainer
from distilface.training.verdict import Measure

PAPER = Paper(
    name="LEAF, distillation into the teacher's own space",
    summary="the embedding of every text, mapped to the teacher's width, meets the teacher's: no labels, no negatives",
    links={"leaf": "https://arxiv.org/abs/2509.12539"},
    bibtex="""
@article{leaf2025,
    title = {{LEAF}: Knowledge Distillation of Text Embedding Models with Teacher-Aligned Representations},
    journal = {arXiv preprint arXiv:2509.12539},
    year = {2025}
}
""",
    limits=("It imitates its teacher, and can be expected to share the teacher's errors and biases.",),
)


@dataclass
class LeafSettings(ImitationSettings):
    """Options of LEAF; the defaults are the paper's."""

    output_dir: str = setting("models/leaf", "the model folder to write")
    epochs: float = setting(30.0, "passes over the data, in all cycles together")
    scheduler: str = setting("linear", unused="--cycles decides the learning rate")
    warmup: float = setting(0.0, unused="--cycles decides the learning rate")
    cycles: int = setting(3, "cycles of the learning rate, each from its peak down")
    learning_rate: float = setting(1e-4, "peak learning rate of AdamW, at the start of each cycle")
    last_rate: float = setting(0.1, "learning rate at the end of a cycle, as a share of the peak")
    batch_size: int = setting(32, "sentences a step; in the paper, small batches do best")


class LeafLoss(EmbedDistillLoss):
    """The mean over the batch of ||s - t||^2, s the student's embedding in the teacher's width, t the teacher's.

    Upstream's ``mse`` is the mean over the dimensions too, hundreds of times smaller for unit vectors.
    """

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None) -> Tensor:
        """Return the loss; the teacher's embeddings may be rounded."""
        return super().forward(sentence_features, None if labels is None else restored(labels))

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], teacher_embeddings: list[Tensor]) -> Tensor:
        """Return the loss: one embedding and one target, each of shape (B, width)."""
        return super().compute_loss_from_embeddings(embeddings, teacher_embeddings) * embeddings[0].shape[1]


def rate_at(step: int, steps: int, cycles: int, last: float) -> float:
    """Return the share of the peak learning rate at a step: from 1 down to ``last``, linear in each cycle.

    >>> [round(rate_at(step, 8, 2, 0.1), 3) for step in range(8)]
    [1.0, 0.775, 0.55, 0.325, 1.0, 0.775, 0.55, 0.325]
    """
    place = step * cycles / steps % 1
    return 1 - place * (1 - last)


class Leaf(EncoderMethod):
    """Distil a teacher into a small student that shares its space, so that one can query the other's index (LEAF).

        distilface train leaf --config minilm-l3-leaf --data TEXT.txt

    The linear map to the teacher's width stays in the published model. The teacher's embeddings are computed once: an
    API can be the teacher. Give queries and passages both: in the paper, queries alone lose a quarter of the retrieval.
    """

    name = "leaf"
    paper = PAPER
    Settings = LeafSettings
    imitates = True

    def check(self, settings: Any) -> None:
        """Refuse cycles that there cannot be."""
        super().check(settings)
        if settings.cycles < 1:
            raise InputError(f"--cycles {settings.cycles} is out of range; it must be 1 or more")
        if not 0 <= settings.last_rate <= 1:
            raise InputError(f"--last_rate {settings.last_rate} is out of range; it is a share, from 0 to 1")

    def student(self, task: Task) -> SentenceTransformer:
        """Return the student: pooling, the map to the teacher's width, and unit length where the teacher has it."""
        teacher = task.teacher
        pooled = make_student(task.settings, task.source, task.texts, task.compression, counted=task.counted_texts)
        if task.settings.max_seq_length is None:
            pooled.max_seq_length = embedding.shorter_length(pooled, teacher)
        width, wide = (int(model.get_embedding_dimension() or 0) for model in (pooled, teacher))
        end = [Normalize()] if is_normalized(teacher) else []
        modules = list(pooled.children())
        if width != wide or not isinstance(modules[-1], Dense):  # a narrower hidden state has its map already
            modules.append(Dense(width, wide, activation_function=nn.Identity()))
        modules += end
        return SentenceTransformer(modules=modules, device=str(pooled.device))

    def prepare(self, task: Task) -> Dataset:
        """Put the teacher's embedding beside every text."""
        settings = task.settings
        return embedding.prepare(task.texts, task.teacher, settings.cache_dir, dtype=settings.teacher_dtype)

    def loss(self, student: SentenceTransformer, task: Task) -> LeafLoss:
        """Return the squared distance to the teacher's embedding."""
        return LeafLoss(student, distance_metric="mse")

    def trainer(self, task: Task) -> tuple[EncoderTrainer, Measure]:
        """Return the trainer under cycles of the learning rate, which transformers has only as half cosines."""
        trainer, measure = super().trainer(task)
        settings, steps = task.settings, count_steps(task.settings, len(task.data), trainer.batches)
        trainer.lr_scheduler = LambdaLR(
            trainer.create_optimizer(), lambda step: rate_at(step, steps, settings.cycles, settings.last_rate)
        )
        return trainer, measure
