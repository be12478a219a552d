"""Measure every model on every runtime, print the table."""

import logging
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import speed
from benchmarks.checks import check_counts, check_file
from benchmarks.files import save_result
from benchmarks.speed.models import RUNTIMES, STUDENT, USUAL, contenders, model_folders, operations
from benchmarks.speed.rounds import row_of, run_rounds
from benchmarks.spread import median_and_range
from distilface.data.samples import sts_sample
from distilface.environment import environment, stamp
from distilface.evaluation.tables import console, number_table
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import Folder
from distilface.settings import check_known, parse, setting
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.benchmarks.speed")

GOAL = 8.0


@dataclass
class Settings:
    """Options of the benchmark."""

    student: str | None = setting(None, "a model folder; default layers 0, 2 and 5 of --usual, as they are")
    usual: str = setting(DEFAULT_TEACHER, "a Hub id or folder: the others are compared with it, in torch fp32")
    runtimes: list[str] = setting(list(RUNTIMES), f"of {', '.join(RUNTIMES)}; torch fp32 is always one")
    short: int = setting(360, "short sentences a pass, of our own 180 pairs")
    of_128: int = setting(32, "texts of 128 tokens a pass")
    of_512: int = setting(8, "texts of 512 tokens a pass")
    seconds: float = setting(1.0, "the passes over a set of texts take at least this long")
    matrix: int = setting(2048, "rows and columns of the matrices whose product measures the machine's peak")
    rounds: int = setting(5, "rounds; in each, every model on every runtime takes its turn")
    output: str | None = setting(None, "write the result to this JSON file")


def check(settings: Settings) -> None:
    """Refuse, before minutes of work, what would fail after it."""
    check_known(settings.runtimes, list(RUNTIMES), "runtime")
    check_counts(settings, "short", "of_128", "of_512", "matrix", "rounds")
    if settings.student is not None:
        Folder(Path(settings.student)).check()
    check_file(settings.output)


def texts_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the sets of texts by name, each with the number of tokens to which longer texts are cut."""
    pairs = sts_sample()
    sentences = [*pairs["sentence1"], *pairs["sentence2"]]
    short = [sentences[row % len(sentences)] for row in range(settings.short)]
    work = {"short": {"texts": short, "length": 128}}
    for length, amount in ((128, settings.of_128), (512, settings.of_512)):
        texts = [" ".join(sentences[row:] + sentences[:row]) for row in range(amount)]
        work[str(length)] = {"texts": texts, "length": length}
    return work


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print medians; the ratios are to the usual model, as people run it."""
    costs = ("MB", "load s", "peak MB", "p50 ms", "p99 ms")
    speeds = (head for name in rows[0]["texts"] for head in (f"{name}/s", "ratio"))
    table = number_table(*costs, *speeds, "of peak")
    for row in rows:
        cells = [f"{row['megabytes']:.1f}", f"{row['load_s']['median']:.1f}", f"{row['peak_mb']['median']:.0f}"]
        cells += [f"{row['latency_ms'][share]['median']:.1f}" for share in ("p50", "p99")]
        for texts in row["texts"].values():
            cells += [f"{texts['sentences_per_second']['median']:,.0f}", f"{texts['ratio']['median']:.2f}"]
        table.add_row(f"{row['model']}, {row['runtime']}", *cells, f"{row['texts']['short']['share_of_peak']:.0%}")
    console(width=140).print(table)


def print_summary(rows: list[dict[str, Any]], peak: dict[str, float]) -> None:
    """Print the machine's peak, and the best int8 ratio of the student beside its goal."""
    print("peak of matrix products:", ", ".join(f"{name} {value:,.0f}" for name, value in peak.items()), "10^9/s")
    own = [row for row in rows if row["model"] == STUDENT and row["runtime"].endswith("int8")]
    if own:
        best = max(own, key=lambda row: row["texts"]["short"]["ratio"]["median"])
        ratio = best["texts"]["short"]["ratio"]["median"]
        print(f"int8 student: {ratio} times {USUAL} in torch fp32, on {best['runtime']} (goal {GOAL})")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the JSON; return its content."""
    settings = parse(Settings, argv, speed.__doc__ or "")
    check(settings)
    runtimes = [runtime for runtime in RUNTIMES if runtime in {"torch fp32", *settings.runtimes}]
    work = texts_of(settings)
    tokenizer = load_teacher(settings.usual).tokenizer
    tokens = {
        name: [len(ids) for ids in tokenizer(one["texts"], truncation=True, max_length=one["length"])["input_ids"]]
        for name, one in work.items()
    }
    with tempfile.TemporaryDirectory() as temporary:
        folders = model_folders(settings.student, settings.usual, Path(temporary))
        for name, one in work.items():
            one["operations"] = {model: operations(folder, tokens[name]) for model, folder in folders.items()}
        measured = contenders(folders, runtimes, Path(temporary))
        logger.info("%d models on runtimes, %d rounds", len(measured), settings.rounds)
        amounts: dict[str, Any] = {"rounds": settings.rounds, "seconds": settings.seconds, "matrix": settings.matrix}
        replies, peaks = run_rounds(measured, work, environment()["machine"]["cores"], **amounts)
    peak = {name: statistics.median(one[name] for one in peaks) for name in peaks[0]}
    usual = next(replies[one] for one in measured if (one.model, one.runtime) == (USUAL, "torch fp32"))
    rows = [row_of(one, replies[one], usual, work, peak[RUNTIMES[one.runtime]]) for one in measured]
    print_table(rows)
    print_summary(rows, peak)
    result = {
        "rows": rows,
        "goal": GOAL,
        "peak_gops": {name: median_and_range([one[name] for one in peaks], 1) for name in peak},
        "texts": {
            name: {"texts": len(lengths), "mean_tokens": round(statistics.mean(lengths), 1)}
            for name, lengths in tokens.items()
        },
        "student": settings.student or f"layers 0, 2, 5 of {settings.usual}",
        "usual": settings.usual,
        **amounts,
        **stamp("onnxruntime", "openvino", "tokenizers"),
    }
    save_result(settings.output, result)
    return result
