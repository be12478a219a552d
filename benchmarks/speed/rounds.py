"""The rounds of the speed benchmark: a worker process for each model on a runtime, and the row of its rounds."""

import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.speed.models import Contender
from benchmarks.spread import median_and_range
from distilface.settings import InputError

logger = logging.getLogger("distilface.benchmarks.speed")

WORKER = Path(__file__).parent / "worker.py"
#: Texts that are encoded one by one.
SINGLES = 120


def run_worker(request: dict[str, Any]) -> dict[str, Any]:
    """Start a worker on one request, and return its reply, with the time to its first embedding as ``load_s``.

    Raises:
        InputError: if it fails, with its last line of stderr.
    """
    began = time.monotonic()
    command = [sys.executable, "-P", str(WORKER)]  # -P: the folder's own modules hide no library of the same name
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        what = f"{request.get('model')} on {request.get('runtime')}" if "model" in request else "the matrix products"
        raise InputError(f"{what} could not be measured: {last}")
    reply: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return reply | ({"load_s": reply.pop("ready") - began} if "ready" in reply else {})


def run_rounds(
    measured: list[Contender], work: dict[str, Any], threads: int, *, rounds: int, seconds: float, matrix: int
) -> tuple[dict[Contender, list[dict[str, Any]]], list[dict[str, float]]]:
    """Run every contender once in each round, and each round from another one on; return replies and peaks.

    Args:
        measured: the contenders.
        work: the sets of texts.
        threads: of each worker.
        rounds: their number.
        seconds: the passes over a set of texts take at least this long.
        matrix: rows and columns of the matrices whose product measures the machine's peak.
    """
    replies: dict[Contender, list[dict[str, Any]]] = {contender: [] for contender in measured}
    peaks: list[dict[str, float]] = []
    common = {"threads": threads, "least": seconds}
    texts = {name: {"texts": one["texts"], "length": one["length"]} for name, one in work.items()}
    singles = {"texts": work["short"]["texts"][:SINGLES], "length": work["short"]["length"]}
    for number in range(rounds):
        began = time.monotonic()
        peaks.append(run_worker({**common, "matrix": matrix})["peaks"])
        first = number % len(measured)
        for contender in measured[first:] + measured[:first]:
            replies[contender].append(run_worker({**common, **asdict(contender), "work": texts, "singles": singles}))
        took = time.monotonic() - began
        left = rounds - number - 1
        logger.info("round %d: %.0f s; %d more, about %.0f min", number + 1, took, left, left * took / 60)
    return replies, peaks


def percentile(values: Sequence[float], share: int) -> float:
    """Return the value that ``share`` percent of the values do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def row_of(
    contender: Contender, replies: list[dict[str, Any]], usual: list[dict[str, Any]], work: dict[str, Any], peak: float
) -> dict[str, Any]:
    """Summarise the rounds of one contender as a row of the result.

    Args:
        contender: the model on its runtime.
        replies: its worker's, one a round.
        usual: those of the model that it is compared with, in the same rounds.
        work: the sets of texts, with the ``operations`` of each on this model.
        peak: 10^9 operations a second of the machine in its precision.
    """
    row: dict[str, Any] = {"model": contender.model, "runtime": contender.runtime, "megabytes": contender.megabytes}
    row["load_s"] = median_and_range([reply["load_s"] for reply in replies])
    row["peak_mb"] = median_and_range([reply["peak_mb"] for reply in replies], 0)
    singles = [[1000 * second for second in reply["singles"]] for reply in replies]
    row["latency_ms"] = {
        f"p{share}": median_and_range([percentile(one, share) for one in singles]) for share in (50, 99)
    }
    row["texts"] = {}
    for name, amount in work.items():
        times = [statistics.median(reply["passes"][name]) for reply in replies]
        usual_times = [statistics.median(reply["passes"][name]) for reply in usual]
        rate = median_and_range([len(amount["texts"]) / second for second in times], 1)
        gops = amount["operations"][contender.model] / statistics.median(times) / 1e9
        row["texts"][name] = {
            "sentences_per_second": rate,
            "ratio": median_and_range([theirs / ours for ours, theirs in zip(times, usual_times, strict=True)]),
            "gops": round(gops, 1),
            "share_of_peak": round(gops / peak, 3),
        }
    return row
