"""Which of several files is fastest on this processor: measured for about a second, and remembered."""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilface.environment import cores, package_version, processor
from distilface.light.expanding import VERSION
from distilface.light.files import digest
from distilface.light.ways import Way, agree, home, runs_here

logger = logging.getLogger(__name__)

#: What embeds texts.
Encode = Callable[[Sequence[str]], Any]
#: Seconds that a measurement takes, beside the first pass of each file, and the turns that each has at least.
SECONDS, LEAST_TURNS = 1.0, 3
_TEXT = "the search shows what somebody wrote long ago about the weather in the north and how the boats came home"
#: What is embedded in a turn: 32 short texts, of 4 to 19 words.
TEXTS = [" ".join(_TEXT.split()[: 4 + number % 16]) for number in range(32)]


@dataclass(frozen=True)
class Choice:
    """A measurement.

    Attributes:
        name: of the fastest.
        rates: short texts a second of each, the median of its turns.
        processor: that it was measured on.
        one_by_one: whether the texts came one at a time, and not in a batch.
    """

    name: str
    rates: dict[str, float]
    processor: str
    one_by_one: bool = False

    def __str__(self) -> str:
        others = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.rates.items() if name != self.name)
        return (
            f"{self.name} is the fastest here ({self.processor}): {self.rates[self.name]:,.0f} short texts a second"
            + (", one by one" if self.one_by_one else "")
            + (f"; {others}" if others else "")
        )


def measure(encoders: Mapping[str, Encode], one_by_one: bool = False) -> Choice:
    """Have encoders embed :data:`TEXTS` in turns, for :data:`SECONDS`; return which was the fastest.

    They take turns, so that what else the machine does falls on all of them alike.

    Args:
        encoders: by their names.
        one_by_one: give them a text at a time, and not all in a batch.
    """
    batches = [[text] for text in TEXTS] if one_by_one else [TEXTS]
    for encode in encoders.values():
        for batch in batches:
            encode(batch)  # at first a runtime allocates and compiles
    turns: dict[str, list[float]] = {name: [] for name in encoders}
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(next(iter(turns.values()))) < LEAST_TURNS:
        for name, encode in encoders.items():
            began = time.perf_counter()
            for batch in batches:
                encode(batch)
            turns[name].append(len(TEXTS) / (time.perf_counter() - began))
    rates = {name: round(float(np.median(taken)), 1) for name, taken in turns.items()}
    return Choice(max(rates, key=rates.__getitem__), rates, processor(), one_by_one)


def fastest(
    files: Mapping[str, Iterable[Path]],
    threads: int,
    opened: Callable[[], Mapping[str, Encode]],
    one_by_one: bool = False,
) -> Choice:
    """Return which of some files is the fastest, as it was measured on this processor; if it was not, measure it.

    Args:
        files: the parts of each, by its name.
        threads: of the computation; 0 for the runtime's own number.
        opened: opens the files for a measurement: by their names, what embeds texts.
        one_by_one: at texts that come one at a time, and not in batches.
    """
    key = _key(files, threads, one_by_one)
    if known := _read(key):
        return known
    choice = measure(opened(), one_by_one)
    logger.info(str(choice))
    from distilface.storage import write_whole  # its import takes a while

    _place(key).parent.mkdir(parents=True, exist_ok=True)
    write_whole(_place(key), asdict(choice))
    return choice


def agreeing(ways: Mapping[str, Way], opened: Callable[[Way], Encode]) -> dict[str, Encode]:
    """Return what embeds texts in each way that can run here and gives the vectors of the first.

    Args:
        ways: by their names.
        opened: opens a way, and returns what embeds texts.
    """
    encoders, vectors = {}, {}
    for name, way in ways.items():
        try:
            if runs_here(way):
                encoders[name] = opened(way)
                vectors[name] = encoders[name](TEXTS)
        except Exception as error:  # another exporter's file, a full disk: each has errors of its own
            if not vectors:
                raise
            logger.info("%s cannot be run as %s: %s", way.file, name, " ".join(str(error).split())[:200])
    first = next(iter(vectors.values()))
    return {name: encoders[name] for name, each in vectors.items() if agree(each, first)}


def remembered(files: Mapping[str, Iterable[Path]], threads: int, one_by_one: bool = False) -> Choice | None:
    """Return what was measured of some files on this processor, or ``None``; nothing is measured."""
    return _read(_key(files, threads, one_by_one))


def _key(files: Mapping[str, Iterable[Path]], threads: int, one_by_one: bool = False) -> str:
    """Return what the measurement depends on, as one word: processor, threads, runtimes, the files' content."""
    paths = {name: list(parts) for name, parts in files.items()}
    distinct = {part for parts in paths.values() for part in parts}  # several ways may run one file
    digests = {part: digest(part) for part in distinct}
    content = {name: [digests[part] for part in parts] for name, parts in paths.items()}
    versions = [package_version(name) for name in ("onnxruntime", "openvino")]
    all_of_it = [
        processor(),
        cores(),
        threads,
        versions,
        VERSION,
        content,
        "one by one" if one_by_one else "batch per thread",
    ]
    return hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()[:16]


def _place(key: str) -> Path:
    return home() / "fastest" / f"{key}.json"


def _read(key: str) -> Choice | None:
    try:
        return Choice(**json.loads(_place(key).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # not there, or not whole: then it is measured again
        return None
