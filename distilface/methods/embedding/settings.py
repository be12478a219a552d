"""The settings of the distillation of embeddings, and what its relations within a batch need of them."""

import math
from dataclasses import dataclass

from distilface.hub_ids import DEFAULT_TEACHER
from distilface.methods import relations
from distilface.settings import InputError, check_known, setting
from distilface.training.batches import check_processes
from distilface.training.settings import NEW, OWN, ImitationSettings

#: The values of ``--teacher_space``.
SIDE_BY_SIDE, FIRST = "side_by_side", "first"
#: What a student without a transformer does not have, or does not obey.
NO_LAYERS = [
    *("backbone", "layers", "best_layers", "pooling", "max_seq_length"),
    *("dropout", "train_max_length", "megabytes", "batch_tokens", "table_from", "average_with"),
    *("hidden_size", "table_rank", "layer_runs"),
]


@dataclass
class DistillSettings(ImitationSettings):
    """Options of the distillation of embeddings."""

    teacher: list[str] = setting(  # type: ignore[assignment]  # of the other methods one
        [DEFAULT_TEACHER],
        "one or several sentence encoders: Hub ids, folders, URL#MODEL of endpoints",
    )
    teacher_space: str = setting(
        SIDE_BY_SIDE,
        f"of several teachers: '{SIDE_BY_SIDE}', a space of its own, or '{FIRST}', the first teacher's, into which the "
        "others are turned: the student can search what the first has embedded",
    )
    search_data: list[str] = setting(
        [],
        "more text, of which the student learns the first teacher alone, to search its index: queries and passages "
        f"(--teacher_space {FIRST}); --max_sentences is not for it",
        excludes=["max_sentences"],
    )
    output_dir: str = setting("models/distilled", "the model folder to write")
    max_seq_length: int | None = setting(
        None, "tokens that the published model reads; default: the teacher's, if it can"
    )
    metric: str = setting("mse", "distance to the teacher: mse, cosine or l2")
    relation_weight: float = setting(
        0.0, "weight of how the sentences of a batch relate, beside the distance (--metric cosine): 0.6 is a start"
    )
    relation_temperature: float = setting(
        0.05, "temperature of these relations: a lower one looks at nearer neighbours", needs={"relation_weight": True}
    )
    relation_bank: int = setting(
        0,
        "the teacher's vectors of so many earlier texts stand beside the batch where the student searches an index of "
        "the teacher: 16384 is a start",
        needs={"relation_weight": True, "projection": False},
    )
    projection: bool = setting(False, "map the student's width to the teacher's (needed where they differ)")
    table_from: str | None = setting(
        None,
        "a static student's folder, whose token vectors the student starts with, for one or two layers; "
        f"'{NEW}' trains one first, OUTPUT.table, as minilm-static does, and '{OWN}' takes none; default: {NEW} where "
        "--megabytes chooses one layer of several",
    )
    static: bool = setting(
        False,
        "a student without a transformer: a vector for each piece, started from the teacher's",
        excludes=NO_LAYERS,
    )
    normalize: str = setting("auto", "end in unit length: 'auto' (as the teacher, if not projected), 'yes' or 'no'")
    rotate: bool = setting(
        False, "learn the teacher's space on its principal axes, so that the first numbers are the best"
    )

    def __post_init__(self) -> None:
        if isinstance(self.teacher, str):  # as a program gives one
            self.teacher = [self.teacher]
        if isinstance(self.search_data, str):
            self.search_data = [self.search_data]


def joins(settings: DistillSettings) -> bool:
    """Return whether the targets are made of the embeddings of several teachers, or of one's on other axes."""
    return len(settings.teacher) > 1 or settings.rotate


def check_teachers(settings: DistillSettings) -> None:
    """Refuse settings that do not fit to how many teachers there are, or to the space that is made of them.

    Raises:
        InputError: naming the setting and the remedy.
    """
    check_known([settings.teacher_space], [SIDE_BY_SIDE, FIRST], "value of --teacher_space")
    another = settings.rotate or settings.projection or settings.truncate_dim is not None
    if settings.teacher_space == FIRST and (len(settings.teacher) < 2 or another):
        raise InputError(
            f"--teacher_space {FIRST} turns other teachers into the first one's space as it is; name several "
            "teachers, without --rotate, --projection and --truncate_dim, or leave it out"
        )
    if settings.search_data and settings.teacher_space != FIRST:
        raise InputError(
            f"--search_data is text of which the first of several teachers is learned alone; add --teacher_space "
            f"{FIRST}, or name it with --data"
        )
    if joins(settings) and settings.table_from == NEW:
        raise InputError(
            f"--table_from {NEW} trains a static student on one teacher's own embeddings, and several or --rotate "
            "make others of them; set --table_from none"
        )
    if joins(settings) and settings.teacher_dtype not in (None, "float32"):
        raise InputError(
            f"--teacher_dtype {settings.teacher_dtype} keeps one teacher's own embeddings, and several or --rotate "
            "make others of them; leave it out"
        )


def check_relations(settings: DistillSettings) -> None:
    """Refuse what leaves the relations of a batch, or the distance beside them, without effect.

    Raises:
        InputError: on a value out of its range, several processes, the distance ``mse``, or batches of fewer texts than
            have relations.
    """
    if not 0 <= settings.relation_weight < math.inf:
        raise InputError(f"--relation_weight {settings.relation_weight} is out of range; it must be 0 or more")
    if not 0 < settings.relation_temperature < math.inf:
        raise InputError(f"--relation_temperature {settings.relation_temperature} is out of range; it must be above 0")
    if settings.relation_bank < 0:
        raise InputError(f"--relation_bank {settings.relation_bank} is out of range; it must be 0 or more")
    if not settings.relation_weight:
        return
    check_processes("--relation_weight", relations.ALONE)
    if settings.metric == "mse":
        raise InputError(
            "--relation_weight with --metric mse leaves the distance without effect: it is a mean over the dimensions "
            "too, hundreds of times smaller than cosine; add --metric cosine"
        )
    least = relations.LEAST_BATCH * settings.train_max_length
    if settings.batch_tokens is not None and settings.batch_tokens < least:
        raise InputError(
            f"--batch_tokens {settings.batch_tokens} is too small for --relation_weight: {relations.LEAST_BATCH} texts "
            f"of --train_max_length {settings.train_max_length} take {least}"
        )
