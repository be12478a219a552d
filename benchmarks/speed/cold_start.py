"""Measure the start of a small model: a new process from its first import to its first vector, and what follows it.

    python -m benchmarks.speed.cold_start --output benchmarks/results/cold-start.json

The model that the package ships on the light encoder, its file as it is and as ``auto`` runs it for texts that come one
by one, and all-MiniLM-L6-v2 through SentenceTransformer.encode, in turns, each in a process of its own with as many
threads as it takes. The files are in the system's cache, and what ``auto`` measures and makes is kept, from a first
turn, which is not counted. Medians. Seconds on the clock are those that a user waits; where something else runs on the
machine, the seconds of the processor say what the start itself takes. The output keeps what other processors gave. Some
minutes.
"""

import inspect
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.checks import check_counts, check_file
from benchmarks.files import add_result
from distilface.console import run_command
from distilface.environment import processor, stamp
from distilface.hub_ids import DEFAULT_TEACHER, resolve
from distilface.json_files import read_json
from distilface.light.files import SHIPPED
from distilface.settings import parse, setting

#: Both processes: a part is what was done since the last mark, in seconds of the clock and of the processor.
MARKS = """
import json, sys, time

parts, last = {}, (time.perf_counter(), time.process_time())

def mark(part):
    global last
    now = time.perf_counter(), time.process_time()
    known = parts.get(part, (0, 0))
    parts[part] = [more + after - before for more, before, after in zip(known, last, now)]
    last = now

def finish(encode):
    encode(TEXT)
    mark("first vector")
    times = []
    for _ in range(int(sys.argv[2])):
        began = time.perf_counter(), time.process_time()
        encode(TEXT)
        times.append([time.perf_counter() - began[0], time.process_time() - began[1]])
    print(json.dumps({"parts": parts, "times": times}))

TEXT = "When does the next tram leave?"
"""
LIGHT = """
import numpy
mark("import numpy")
import onnxruntime
mark("import onnxruntime")
import tokenizers
mark("import tokenizers")
import distilface
from distilface.light import LightEncoder, ways
distilface.load
mark("import distilface")
opened = ways.Way.open

def open_way(*arguments):
    mark("settings and tokenizer")
    session = opened(*arguments)
    mark("session")
    return session

ways.Way.open = open_way
model = LightEncoder(sys.argv[1] or None, **CHOICE)
mark("settings and tokenizer")
assert not {"torch", "transformers", "datasets", "yaml"} & {*sys.modules}
finish(model.encode)
"""
#: The light encoder's own ways to be opened, by the names of their rows.
CHOICES = {"light": "CHOICE = {}", "auto": "CHOICE = {'variant': 'auto', 'one_by_one': True}"}
USUAL = """
from sentence_transformers import SentenceTransformer
mark("import sentence_transformers")
model = SentenceTransformer(sys.argv[1], device="cpu")
mark("load")
finish(model.encode)
"""


@dataclass
class ColdSettings:
    """Options of ``cold_start``."""

    model: str = setting("", "a model folder with onnx/; default the model that the package ships")
    usual: str = setting(DEFAULT_TEACHER, "a Hub id or folder that sentence-transformers loads")
    turns: int = setting(11, "processes of each; the median counts")
    sentences: int = setting(50, "times that one sentence is embedded after the first")
    output: str | None = setting(None, "add the result to this JSON file")


def start(source: str, model: str, sentences: int) -> dict[str, Any]:
    """Start a process, and return the parts of its start and the times of one sentence after it."""
    own = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", MARKS + source, model, str(sentences)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=own)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summary(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of some starts: milliseconds of the clock and of the processor, in all and of each part."""
    result: dict[str, Any] = {}
    for which, name in enumerate(("clock", "processor")):
        totals = [1000 * sum(part[which] for part in turn["parts"].values()) for turn in turns]
        parts = {part: [1000 * turn["parts"][part][which] for turn in turns] for part in turns[0]["parts"]}
        result[f"{name}_ms"] = {
            "first_vector": round(statistics.median(totals)),
            "least": round(min(totals)),
            "parts": {part: round(statistics.median(times)) for part, times in parts.items()},
            "one_sentence": round(1000 * statistics.median(time[which] for turn in turns for time in turn["times"]), 2),
        }
    return result


def run(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, add to the JSON; return what this processor gave."""
    settings = parse(ColdSettings, argv, inspect.getdoc(ColdSettings) or "")
    check_counts(settings, "turns", "sentences")
    check_file(settings.output)
    rows = {name: (choice + LIGHT, settings.model) for name, choice in CHOICES.items()}
    rows |= {"usual": (USUAL, resolve(settings.usual))}
    taken: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for _ in range(settings.turns + 1):
        for name, (source, model) in rows.items():
            taken[name].append(start(source, model, settings.sentences))
    result: dict[str, Any] = {name: summary(turns[1:]) for name, turns in taken.items()}
    pairs = list(zip(taken["light"][1:], taken["usual"][1:], strict=True))
    for which, clock in enumerate(("clock", "processor")):
        ratios = [
            sum(part[which] for part in usual["parts"].values()) / sum(part[which] for part in light["parts"].values())
            for light, usual in pairs
        ]
        result[f"times_faster_by_{clock}"] = round(statistics.median(ratios), 1)
    for name in rows:
        for clock in ("clock", "processor"):
            row = result[name][f"{clock}_ms"]
            print(f"{name:6} {clock:10} first vector {row['first_vector']:6} ms, then {row['one_sentence']:6.2f} ms")
    for part, time in result["light"]["processor_ms"]["parts"].items():
        print(f"       {part:24} {time:5} ms of the processor")
    model = settings.model or f"the shipped model, {read_json(SHIPPED / 'run.json')['settings']['output_dir']}"
    more = {"model": model, "turns": settings.turns, **stamp("onnxruntime", "tokenizers")}
    add_result(settings.output, processor(), {**result, **more})
    return result


if __name__ == "__main__":
    run_command(run)
