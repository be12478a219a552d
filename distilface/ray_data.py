"""Chunks of text on Ray Data: read on this machine, embedded by workers that each hold the model, in any order."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Collection, Generator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from distilface.chunks import Survey, TextFile
from distilface.engines import Done, Encoder, Variant
from distilface.extras import RAY
from distilface.settings import InputError


def on_ray(
    variant: Variant, source: TextFile, survey: Survey, wanted: Collection[int], workers: int | None = None
) -> Generator[Done, None, None]:
    """Embed chunks on Ray Data, in the order in which they get done.

    A running cluster is used (``RAY_ADDRESS``), or one of this machine is started. The input is read on this machine
    alone; the folder must lie at the same path on every machine, and distilface be installed there. A chunk is a
    block of the data set, so that Ray Data holds back the reading where the workers are behind; and one that was
    lost with its worker is computed anew by another.

    Args:
        variant: what each worker computes.
        source: the file of text.
        survey: what a look over it has found.
        wanted: the numbers of the chunks.
        workers: how many; ``None`` takes as many as the cluster has CPUs for.

    Raises:
        InputError: without Ray, where the cluster has no room for the workers, where a worker cannot load the model,
            or where the file was changed since the survey.
    """
    RAY.check()
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.exceptions import RayError, RayTaskError

    started = not ray.is_initialized()
    if started:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report its use over the network, unasked
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        count = _workers(int(ray.cluster_resources().get("CPU", 0)), variant.threads, workers)
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        there = dataclasses.replace(source, path=source.path.resolve())  # an actor has a working directory of its own
        context = DataContext.get_current().copy()
        context.target_max_block_size = 1  # one row a block
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        with DataContext.current(context):
            start = ray.data.from_arrow(pa.table({"start": [0]}))
            chunks = start.map_batches(
                _Reading,
                fn_constructor_args=(there, survey, frozenset(wanted)),
                compute=ActorPoolStrategy(size=1),
                batch_format="pyarrow",
                num_cpus=0,
                label_selector=here,
            )
            embedded = chunks.map_batches(
                _Embedding,
                fn_constructor_args=(variant,),
                compute=ActorPoolStrategy(size=count),
                batch_size=1,
                batch_format="pyarrow",
                num_cpus=variant.threads,
                num_gpus=int(variant.device.startswith("cuda")),
            )
        with _quiet():
            for table in embedded.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
                yield _done(table)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause).splitlines()[0]) from None  # Ray Data adds its advice
        raise
    except RayError as error:
        problem = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        raise InputError(
            f"a worker of Ray has ended ({problem:.200}); {variant.folder} must lie at that path on every machine; "
            "run the same command again to go on"
        ) from None
    finally:
        if started:
            ray.shutdown()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray Data from telling, around the bar of rows, how its own work goes; what fails is raised all the same."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _workers(cpus: int, threads: int, wanted: int | None) -> int:
    room = cpus // threads
    if (wanted or 1) > room:
        raise InputError(
            f"Ray has {cpus} CPUs, and {wanted or 1} workers of {threads} threads need {(wanted or 1) * threads}; "
            "ask for fewer --workers or --threads"
        )
    return wanted or room


class _Reading:
    """Reads the wanted chunks, each a table of one row.

    An actor, though for one call: where the work ends early a task would be cancelled, and with that Ray 2.60 can crash
    (one run in five that were tried; like its pull request 54798).
    """

    def __init__(self, source: TextFile, survey: Survey, wanted: frozenset[int]) -> None:
        self.source, self.survey, self.wanted = source, survey, wanted

    def __call__(self, _: pa.Table) -> Iterator[pa.Table]:
        for number, texts in self.source.known_chunks(self.survey, self.wanted):
            yield pa.table({"number": [number], "texts": pa.array([texts], pa.large_list(pa.large_string()))})


class _Embedding:
    """Embeds the chunk of a table of one row."""

    def __init__(self, variant: Variant) -> None:
        self.encoder = Encoder(variant)

    def __call__(self, table: pa.Table) -> pa.Table:
        done = self.encoder.encode(table["number"][0].as_py(), table["texts"][0].as_py())
        flat = pa.array([done.embeddings.reshape(-1)], pa.large_list(pa.float32()))
        return table.append_column("embeddings", flat).append_column("truncated", pa.array([done.truncated]))


def _done(table: pa.Table) -> Done:
    row: dict[str, Any] = {name: table[name][0] for name in table.column_names}
    texts = row["texts"].as_py()
    embeddings = row["embeddings"].values.to_numpy().reshape(len(texts), -1)
    return Done(row["number"].as_py(), texts, np.asarray(embeddings, np.float32), row["truncated"].as_py())
