"""The distillation of embeddings as a method: its student, its data, and how its pieces are put together."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface import processes
from distilface.compression.bits import BITS
from distilface.data.marked import MARK, marked
from distilface.data.texts import read_texts
from distilface.embedding.space import make_space
from distilface.embedding.teacher_cache import embed
from distilface.methods import relations
from distilface.methods.base import EncoderMethod, Paper, Task
from distilface.methods.embedding.loss import EmbeddingLoss, Metric, make_loss
from distilface.methods.embedding.settings import (
    FIRST,
    SIDE_BY_SIDE,
    DistillSettings,
    check_relations,
    check_teachers,
    joins,
)
from distilface.methods.embedding.table import begins_again, can_start, check_table, trained_table, wants_table
from distilface.methods.embedding.widths import check_joined, check_widths, joined_width, shorter_length
from distilface.methods.shaping import make_static
from distilface.model.pooling import is_normalized
from distilface.settings import InputError, check_known
from distilface.training.fitting import read_length
from distilface.training.settings import NEW, OWN
from distilface.training.student import make_student

logger = logging.getLogger(__name__)

PAPER = Paper(
    name="distillation of a teacher's embeddings",
    summary="the embedding of every sentence meets the teacher's",
    links={"embeddistill": "https://arxiv.org/abs/2301.12005"},
    bibtex="""
@article{kim2023embeddistill,
    title={EmbedDistill: A Geometric Knowledge Distillation for Information Retrieval},
    author={Kim, Seungyeon and Rawat, Ankit Singh and Zaheer, Manzil and Jayasumana, Sadeep and Sadhanala,
        Veeranjaneyulu and Jitkrittum, Wittawat and Menon, Aditya Krishna and Fergus, Rob and Kumar, Sanjiv},
    year={2023},
    eprint={2301.12005},
    archivePrefix={arXiv},
    primaryClass={cs.IR}
}
""",
    limits=("It imitates its teacher, and can be expected to share the teacher's errors and biases.",),
)


def prepare(
    texts: Dataset,
    teacher: SentenceTransformer,
    cache_dir: str | Path | None = None,
    batch_size: int = 128,
    dtype: str | None = None,
) -> Dataset:
    """Put the teacher's embedding beside every sentence: columns ``text`` and ``label`` (on disk, as ``dtype``).

    A batch is read as tensors: as lists of Python floats, its labels take 8 ms more of every step.
    """
    return embed(teacher, texts, cache_dir, batch_size=batch_size, dtype=dtype or "float32").with_format("torch")


class Distillation(EncoderMethod):
    """Distil a teacher's sentence embeddings into a small student.

        distilface train distill --config minilm-l3 --data TEXT.txt

    makes a 3-layer student of all-MiniLM-L6-v2: 300,000 short sentences take about 20 minutes on 2 cores. Another
    teacher, another student:

        distilface train distill --teacher ID_OR_FOLDER --backbone ID_OR_FOLDER --data TEXT.txt --output-dir DIR

    A student of 4 bits that fills a budget, file and tokenizer; distilface shape lists the candidates:

        distilface train distill --config minilm --megabytes 5 --data TEXT.txt

    A student without a transformer, of a vector for each piece of the vocabulary:

        distilface train distill --config minilm-static --data TEXT.txt

    One layer over the token vectors of such a student, which is trained first, in 2.5 MB:

        distilface train distill --config minilm-2mb --data TEXT.txt

    Of several teachers side by side, or of one on its principal axes, so that the first numbers are the best ones:

        distilface train distill --teacher A B --backbone ID_OR_FOLDER --data TEXT.txt
        distilface train distill --config minilm-l3 --rotate true --data TEXT.txt

    Of several teachers in the space of the first, whose index the student can then search:

        distilface train distill --teacher A B --teacher_space first --data TEXT.txt --search_data QUERIES.txt

    With the nearest neighbours within a batch learned beside the distance (docs/train.md has what that gave):

        distilface train distill --config minilm --megabytes 5 --data TEXT.txt --relation_weight 0.6

    The teacher's embeddings are computed once and kept on disk; their size is reported first.
    """

    name = "embedding"
    aliases = ("distill",)
    paper = PAPER
    Settings = DistillSettings
    imitates = True
    trains_table = True

    def cites(self, settings: Mapping[str, Any]) -> list[Paper]:
        """Return the paper, and that of the relations where they have a weight."""
        return [PAPER, relations.PAPER] if settings.get("relation_weight") else [PAPER]

    def compares(self, settings: Any) -> int:
        """Return how many texts of a batch the loss compares: none without the relations."""
        return relations.LEAST_BATCH if settings.relation_weight else self.least_batch

    def check(self, settings: Any) -> None:
        """Refuse an unknown distance or way to end, and relations that cannot be learned."""
        super().check(replace(settings, resume=False) if begins_again(settings) else settings)
        check_known([settings.metric], get_args(Metric), "metric")
        check_known([settings.normalize], ["auto", "yes", "no"], "value of --normalize")
        if not settings.teacher:
            raise InputError("--teacher none leaves nothing to learn from; name one or several")
        if settings.static and settings.bits not in (None, BITS):
            raise InputError(
                f"--bits {settings.bits} is of linear maps, of which a static student has none; "
                f"set --bits {BITS} --table_bits {settings.bits}"
            )
        check_teachers(settings)
        check_relations(settings)

    def read(self, settings: Any, texts: Dataset | None) -> Dataset:
        """Return the text, with a column :data:`~distilface.data.marked.MARK` where some of it is to search with."""
        texts = super().read(settings, texts)
        if not settings.search_data:
            return texts
        more = processes.first_then_others(lambda: read_texts(settings.search_data, None, settings.text_column))
        return processes.first_then_others(lambda: marked(texts, more))

    def starts_static(self, task: Task) -> bool:
        """Return whether one layer, if a budget chooses it, starts over a static student's table."""
        return can_start(task)

    def student(self, task: Task) -> SentenceTransformer:
        """Return the student: of unit length and of the teachers' maximum length unless the settings say otherwise."""
        settings, teachers = task.settings, task.teachers
        as_teacher = (len(teachers) > 1 or is_normalized(teachers[0])) and not settings.projection
        normalize = as_teacher if settings.normalize == "auto" else settings.normalize == "yes"
        if settings.static:
            return make_static(task, normalize)
        if wants_table(task):
            settings = replace(settings, table_from=self._table(task))
        elif settings.table_from in (NEW, OWN):
            if settings.table_from == NEW:
                logger.warning(
                    f"--table_from {NEW} has no effect: --megabytes does not choose one layer of this teacher"
                )
            settings = replace(settings, table_from=None)
        student = make_student(
            settings, task.source, task.texts, task.compression, counted=task.counted_texts, normalize=normalize
        )
        if settings.max_seq_length is None:
            student.max_seq_length = min(shorter_length(student, teacher) for teacher in teachers)
        task.width = student.get_embedding_dimension()
        if joins(settings) and settings.teacher_space == SIDE_BY_SIDE:
            check_joined(student, teachers, settings.projection)
        else:
            check_widths(student, teachers[0], settings.projection)
        return student

    def _table(self, task: Task) -> str:
        """Return the folder of the static student that this one starts from, trained on the texts of the task."""
        steps = ("table_from", "hidden_size", "feed_forward", "table_rank", "layer_runs")
        settings = replace(task.settings, **dict.fromkeys(steps))
        plain = make_student(settings, task.source, task.texts, counted=task.counted_texts)
        check_table(plain, task.teacher, task.teacher_names[0])
        if self.compares(settings) > 1:  # now, for the teacher embeds the texts of both at once
            length = min(read_length(settings, plain), settings.max_seq_length or shorter_length(plain, task.teacher))
            task.drop_alike(plain, length)
        return trained_table(task, self.train)

    def prepare(self, task: Task) -> Dataset:
        """Put the teacher's embedding beside every sentence, or that of the space of several."""
        settings = task.settings
        if not joins(settings):
            return prepare(task.texts, task.teacher, settings.cache_dir, dtype=settings.teacher_dtype)
        if settings.teacher_space == FIRST:
            alone = np.asarray(task.texts[MARK][:], bool) if settings.search_data else None
            places = (task.teachers, task.texts, None, settings.cache_dir)
            data, task.space = make_space(*places, of_the_first=True, alone=alone)
        else:
            wide = joined_width(task.teachers)
            width = wide if settings.projection else min(wide, task.width or wide)
            axes = width if settings.rotate or width < wide else None
            data, task.space = make_space(task.teachers, task.texts, axes, settings.cache_dir)
        logger.info(f"the space to learn is {task.space}")
        return data.with_format("torch")

    def loss(self, student: SentenceTransformer, task: Task) -> EmbeddingLoss:
        """Return the distance to the teacher, with the relations beside it if they have a weight."""
        settings = task.settings
        return make_loss(
            student,
            task.data,
            settings.metric,
            settings.projection,
            settings.relation_weight,
            settings.relation_temperature,
            0 if settings.projection or not settings.relation_weight else settings.relation_bank,
        )
