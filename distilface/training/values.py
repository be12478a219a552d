"""The ranges of a training's settings."""

import math
from typing import Any

from transformers import SchedulerType

from distilface import processes
from distilface.compression.bits import BITS, TABLE_BITS, WEIGHT_BITS
from distilface.embedding.rounding import DTYPES
from distilface.hub_ids import is_endpoint
from distilface.runtimes.endpoint_client import parse_address
from distilface.settings import InputError, check_known
from distilface.training.settings import ImitationSettings, TrainSettings, teacher_names

#: Schedules of transformers that need more than a name.
NOT_BY_NAME = ("cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay")


def check_endpoints(settings: Any) -> None:
    """Refuse an endpoint as the teacher where more than its embeddings is asked of it.

    Raises:
        InputError: if the method reads more of its teacher, or the student would have to be made of it.
    """
    names = teacher_names(settings)
    for name in filter(is_endpoint, names):
        parse_address(name)
        if not isinstance(settings, ImitationSettings):
            raise InputError(
                f"{name} is an endpoint, and this method reads more of its teacher than embeddings; "
                "name a folder or a Hub id, or train by distill or leaf"
            )
    if names and is_endpoint(names[0]) and settings.backbone is None:
        raise InputError(
            f"{names[0]} is an endpoint, of which no student can be made; name what it is made of with --backbone"
        )


def check_values(settings: TrainSettings) -> None:
    """Refuse a value out of its range.

    Raises:
        InputError: naming the setting, its value and the remedy.
    """
    for name in ("batch_size", "eval_steps", "train_max_length", "learning_rate"):
        if not 0 < getattr(settings, name) < math.inf:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be above 0")
    if settings.steps <= 0 and not 0 < settings.epochs < math.inf:
        raise InputError(f"--epochs {settings.epochs} with --steps {settings.steps} trains nothing; raise one")
    if not settings.weight_decay >= 0:
        raise InputError(f"--weight_decay {settings.weight_decay} is out of range; it must be 0 or more")
    if not 0 <= settings.warmup < 1:
        raise InputError(f"--warmup {settings.warmup} is out of range; it is a share of the steps, from 0 to below 1")
    if not 0 <= settings.seed < 2**32:
        raise InputError(f"--seed {settings.seed} is out of range; it must be from 0 to {2**32 - 1}")
    if settings.bf16 not in ("auto", "yes", "no"):
        raise InputError(f"--bf16 {settings.bf16!r} must be auto, yes or no")
    check_endpoints(settings)
    if (count := getattr(settings, "truncate_dim", None)) is not None and count < 1:
        raise InputError(f"--truncate_dim {count} is out of range; it must be above 0")
    if isinstance(settings, ImitationSettings) and 0 < settings.held_out < 3:
        raise InputError(f"--held_out {settings.held_out} is too few: neighbours need 3 texts or more")
    least = settings.train_max_length * processes.count()
    if (tokens := getattr(settings, "batch_tokens", None)) is not None and tokens < least:
        raise InputError(
            f"--batch_tokens {tokens} is too small: a text of --train_max_length {settings.train_max_length} "
            f"for each of {processes.count()} processes takes {least}"
        )
    if (bits := getattr(settings, "table_bits", BITS)) not in TABLE_BITS:
        raise InputError(f"--table_bits {bits} must be 4 or 2")
    for name in ("vocabulary", "megabytes"):
        if (value := getattr(settings, name, None)) is not None and not 0 < value < math.inf:
            raise InputError(f"--{name} {value} is out of range; it must be above 0")
    if (bits := getattr(settings, "bits", None)) not in (None, *WEIGHT_BITS):
        raise InputError(f"--bits {bits} must be 4, the grid of the 4-bit file; or leave it out, or give 2")
    if (dtype := getattr(settings, "teacher_dtype", None)) is not None:
        check_known([dtype], DTYPES, "value of --teacher_dtype")
    dropout = getattr(settings, "dropout", None)
    if dropout is not None and not 0 <= dropout < 1:
        raise InputError(f"--dropout {dropout} is out of range; it must be from 0 to below 1")
    check_known([settings.scheduler], [kind.value for kind in SchedulerType if kind not in NOT_BY_NAME], "scheduler")
