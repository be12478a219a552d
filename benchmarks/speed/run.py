"""Measure what small encoders cost on this machine: speed, latency, load time, memory and size, on each runtime.

    python benchmarks/run_speed.py --output benchmarks/results/speed.json

A three-layer student, all-MiniLM-L6-v2, and DistilBERT's and BERT-base's shapes in random weights, each in torch fp32
and bf16, ONNX fp32 and int8, and OpenVINO int8 (BERT-base in torch alone). A model on a runtime is a process of its
own, which imports what that runtime needs and no more; they take turns, round by round, so that a change of the
machine's speed meets all of them, and are told as medians (least to most). What others are compared with is what
people run today: all-MiniLM-L6-v2 through ``SentenceTransformer.encode``. The goal is a ratio of 8 for the int8
student. Beside it stands how much of the machine's own peak in matrix products each comes to. About fifteen minutes on
2 cores that do nothing else; the first round says how long the others take.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.speed.models import RUNTIMES, STUDENT, USUAL, Contender, contenders, model_folders, operations
from distilface.console import run_command
from distilface.data.samples import sts_sample
from distilface.environment import environment, stamp
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.model.folder import Folder
from distilface.settings import InputError, check_known, parse, setting
from distilface.storage import save_result
from distilface.training.teacher import load_teacher

GOAL = 8.0
WORKER = Path(__file__).parent / "worker.py"
#: Texts that are encoded one by one.
SINGLES = 120


@dataclass
class Settings:
    """What the benchmark can be told."""

    student: str | None = setting(None, "a model folder; default layers 0, 2 and 5 of --usual, as they are")
    usual: str = setting(DEFAULT_TEACHER, "a Hub id or folder: what the others are compared with, in torch fp32")
    runtimes: list[str] = setting(list(RUNTIMES), f"of {', '.join(RUNTIMES)}; torch fp32 is always there")
    short: int = setting(360, "short sentences a pass, of our own 180 pairs")
    of_128: int = setting(32, "texts of 128 tokens a pass")
    of_512: int = setting(8, "texts of 512 tokens a pass")
    seconds: float = setting(1.0, "passes over each set of texts take at least so long")
    matrix: int = setting(2048, "rows and columns of the matrices whose product shows the machine's peak")
    rounds: int = setting(5, "rounds; in each, every model on every runtime takes its turn")
    output: str | None = setting(None, "write the result to this JSON file")


def check(settings: Settings) -> None:
    """Refuse, before minutes of work, what would only fail after it."""
    check_known(settings.runtimes, list(RUNTIMES), "runtime")
    for name in ("short", "of_128", "of_512", "matrix", "rounds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name} {getattr(settings, name)} is out of range; it must be 1 or more")
    if settings.student is not None:
        Folder(Path(settings.student)).check()
    if settings.output and Path(settings.output).is_dir():
        raise InputError(f"{settings.output} is a folder; name a file to write")


def texts_of(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the sets of texts: those that are longer than their number of tokens are cut to it."""
    pairs = sts_sample()
    sentences = [*pairs["sentence1"], *pairs["sentence2"]]
    short = [sentences[row % len(sentences)] for row in range(settings.short)]
    work = {"short": {"texts": short, "length": 128}}
    for length, amount in ((128, settings.of_128), (512, settings.of_512)):
        texts = [" ".join(sentences[row:] + sentences[:row]) for row in range(amount)]
        work[str(length)] = {"texts": texts, "length": length}
    return work


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Start a worker, have it answer one request, and add how long it took to its first embedding.

    Raises:
        InputError: if it fails, with its last words.
    """
    began = time.monotonic()
    command = [sys.executable, str(WORKER)]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        what = f"{request.get('model')} on {request.get('runtime')}" if "model" in request else "the matrix products"
        raise InputError(f"{what} could not be measured: {last}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer | ({"load_s": answer.pop("ready") - began} if "ready" in answer else {})


def spread(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Tell values by their median, least and most."""
    return {name: round(of(values), digits) for name, of in (("median", statistics.median), ("min", min), ("max", max))}


def percentile(values: Sequence[float], share: int) -> float:
    """Return the value that ``share`` of a hundred do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def measured(
    contender: Contender, answers: list[dict[str, Any]], usual: list[dict[str, Any]], work: dict[str, Any], peak: float
) -> dict[str, Any]:
    """Put the rounds of one contender together.

    Args:
        contender: which.
        answers: its answer in each round.
        usual: those of what it is compared with, in the same rounds.
        work: the sets of texts, with the ``operations`` of each on this model.
        peak: 10^9 operations a second of the machine in its precision.
    """
    row: dict[str, Any] = {"model": contender.model, "runtime": contender.runtime, "megabytes": contender.megabytes}
    row["load_s"] = spread([answer["load_s"] for answer in answers])
    row["peak_mb"] = spread([answer["peak_mb"] for answer in answers], 0)
    singles = [[1000 * second for second in answer["singles"]] for answer in answers]
    row["latency_ms"] = {f"p{share}": spread([percentile(one, share) for one in singles]) for share in (50, 99)}
    row["texts"] = {}
    for name, amount in work.items():
        times = [statistics.median(answer["passes"][name]) for answer in answers]
        other = [statistics.median(answer["passes"][name]) for answer in usual]
        rate = spread([len(amount["texts"]) / second for second in times], 1)
        gops = amount["operations"][contender.model] / statistics.median(times) / 1e9
        row["texts"][name] = {
            "sentences_per_second": rate,
            "ratio": spread([theirs / ours for ours, theirs in zip(times, other, strict=True)]),
            "gops": round(gops, 1),
            "share_of_peak": round(gops / peak, 3),
        }
    return row


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print medians; the ratios are to the model that is usual, as people run it."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("")
    heads = (
        "MB",
        "load s",
        "peak MB",
        "p50 ms",
        "p99 ms",
        "short/s",
        "ratio",
        "128/s",
        "ratio",
        "512/s",
        "ratio",
        "of peak",
    )
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{row['megabytes']:.1f}", f"{row['load_s']['median']:.1f}", f"{row['peak_mb']['median']:.0f}"]
        cells += [f"{row['latency_ms'][share]['median']:.1f}" for share in ("p50", "p99")]
        for found in row["texts"].values():
            cells += [f"{found['sentences_per_second']['median']:,.0f}", f"{found['ratio']['median']:.2f}"]
        table.add_row(f"{row['model']}, {row['runtime']}", *cells, f"{row['texts']['short']['share_of_peak']:.0%}")
    console = Console(highlight=False, markup=False)
    (console if console.is_terminal else Console(width=140, highlight=False, markup=False)).print(table)


def run_rounds(
    found: list[Contender], work: dict[str, Any], settings: Settings, threads: int
) -> tuple[dict[Contender, list[dict[str, Any]]], list[dict[str, float]]]:
    """Have every contender take its turn in each round, each round beginning with another one."""
    answers: dict[Contender, list[dict[str, Any]]] = {contender: [] for contender in found}
    peaks: list[dict[str, float]] = []
    common = {"threads": threads, "least": settings.seconds}
    asked = {name: {"texts": one["texts"], "length": one["length"]} for name, one in work.items()}
    singles = {"texts": work["short"]["texts"][:SINGLES], "length": work["short"]["length"]}
    for number in range(settings.rounds):
        began = time.monotonic()
        peaks.append(ask({**common, "matrix": settings.matrix})["peaks"])
        first = number % len(found)
        for contender in found[first:] + found[:first]:
            answers[contender].append(ask({**common, **asdict(contender), "work": asked, "singles": singles}))
        took = time.monotonic() - began
        left = settings.rounds - number - 1
        print(f"round {number + 1}: {took:.0f} s; {left} more, about {left * took / 60:.0f} min", file=sys.stderr)
    return answers, peaks


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, print the table, write the JSON; return what stands in it."""
    settings = parse(Settings, argv, __doc__ or "")
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
        found = contenders(folders, runtimes, Path(temporary))
        print(f"{len(found)} models on runtimes, {settings.rounds} rounds", file=sys.stderr)
        answers, peaks = run_rounds(found, work, settings, environment()["machine"]["cores"])
    peak = {name: statistics.median(one[name] for one in peaks) for name in peaks[0]}
    usual = next(answers[one] for one in found if (one.model, one.runtime) == (USUAL, "torch fp32"))
    rows = [measured(one, answers[one], usual, work, peak[RUNTIMES[one.runtime]]) for one in found]
    print_table(rows)
    print("peak of matrix products:", ", ".join(f"{name} {value:,.0f}" for name, value in peak.items()), "10^9/s")
    best = max(
        (row for row in rows if row["model"] == STUDENT and row["runtime"].endswith("int8")),
        key=lambda row: row["texts"]["short"]["ratio"]["median"],
        default=None,
    )
    if best is not None:
        ratio = best["texts"]["short"]["ratio"]["median"]
        print(f"int8 student: {ratio} times {USUAL} in torch fp32, on {best['runtime']} (goal {GOAL})")
    result = {
        "rows": rows,
        "goal": GOAL,
        "peak_gops": {name: spread([one[name] for one in peaks], 1) for name in peak},
        "texts": {
            name: {"texts": len(found), "mean_tokens": round(statistics.mean(found), 1)}
            for name, found in tokens.items()
        },
        "student": settings.student or f"layers 0, 2, 5 of {settings.usual}",
        "usual": settings.usual,
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "matrix": settings.matrix,
        **stamp("onnxruntime", "openvino", "tokenizers"),
    }
    save_result(settings.output, result)
    return result


if __name__ == "__main__":
    run_command(main)
