"""Chunks of text on Ray Data: read on this machine, embedded by workers that each hold the model, in any order."""

import contextlib
import dataclasses
import logging
import os
import socket
import warnings
from collections.abc import Collection, Generator, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from distilface.console import quiet_logger
from distilface.data.text_file import Survey, TextFile
from distilface.embedding.worker import Done, Variant, Worker
from distilface.settings import InputError

#: How often a dead worker is restarted and its chunk computed again: without a limit, a chunk that kills its worker
#: would be tried for ever.
RESTARTS = 3
#: How long a cluster may take to answer.
CONNECT_SECONDS = 10
UNSET = "RAY_ADDRESS is {address}: start a cluster there, or unset it to use this machine alone"


def on_ray(
    variant: Variant, source: TextFile, survey: Survey, numbers: Collection[int], workers: int | None = None
) -> Generator[Done, None, None]:
    """Embed chunks on Ray Data, in the order in which they get done.

    A running cluster is used (``RAY_ADDRESS``), or one is started on this machine. The input is read on this machine
    alone; the folder must lie at the same path on every machine, and distilface be installed there.

    Args:
        variant: what each worker computes.
        source: the file of text.
        survey: of that file.
        numbers: of the chunks.
        workers: how many; ``None`` takes as many as the cluster has CPUs for.

    Raises:
        InputError: where no cluster answers at ``RAY_ADDRESS`` or it has no room for the workers, where a worker cannot
            load the model or ends again and again, or where the file was changed since the survey.
    """
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        # Its progress would mix with the bar of rows; errors are raised all the same.
        with _cluster(), quiet_logger("ray.data", logging.CRITICAL):
            count = _workers(ray.nodes(), variant, workers)
            embedded = _embedded_chunks(variant, source, survey, numbers, count)
            for table in embedded.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
                yield _done(table)
    except RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(str(error.cause).splitlines()[0]) from None  # Ray Data adds its advice
        raise
    except RayError as error:
        problem = str(error).strip().splitlines()[-1].removeprefix(f"{InputError.__module__}.InputError: ")
        place = f"; {variant.folder} must lie at that path on every machine" if isinstance(error, RayActorError) else ""
        raise InputError(
            f"Ray has ended before the work ({problem:.200}){place}; run the same command again to go on"
        ) from None


def _embedded_chunks(variant: Variant, source: TextFile, survey: Survey, numbers: Collection[int], count: int) -> Any:
    """Return a data set of Ray (``ray.data.Dataset``), computed as it is read, with a row for each chunk.

    A chunk is a block of the data set, so that Ray Data holds back the reading where the workers are behind; and one
    that was lost with its worker is computed anew by another.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext
    from ray.util.annotations import RayDeprecationWarning

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    there = dataclasses.replace(source, path=source.path.absolute())  # an actor works in a folder of its own
    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # one row a block
    context.execution_no_progress_timeout_s = -1  # a chunk may take as long as it takes
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of the limits, which 2.64 is to drop
        start = ray.data.from_arrow(pa.table({"start": [0]}))
        chunks = start.map_batches(
            _Reading,
            fn_constructor_args=(there, survey, numbers),
            compute=ActorPoolStrategy(size=1),
            batch_format="pyarrow",
            num_cpus=0,
            label_selector=here,
            max_restarts=0,
        )
        return chunks.map_batches(
            _Embedding,
            fn_constructor_args=(variant,),
            compute=ActorPoolStrategy(size=count),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=variant.threads,
            num_gpus=int(_needs_gpu(variant)),
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
        )


@contextlib.contextmanager
def _cluster() -> Iterator[None]:
    """Use the cluster that the program is connected to, or connect to one or start it for the time of the work."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    _check_address(address)
    logger = logging.getLogger("ray")
    level = logger.level
    chosen = "RAY_USAGE_STATS_ENABLED" in os.environ
    try:
        if not chosen:
            os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # by default Ray reports its use over the network
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, RayError) as error:
            problem = " ".join(str(error).split())
            remedy = UNSET.format(address=address) if address else "leave out --engine ray"
            raise InputError(f"Ray cannot be used ({problem:.200}); {remedy}") from None
        yield
    finally:
        ray.shutdown()
        logger.setLevel(level)
        if not chosen:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def _check_address(address: str) -> None:
    """Refuse a cluster that could not read the file, or that does not answer: Ray would try it for many minutes."""
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS is {address}, and the file must be read on a machine of the cluster; run the command there, "
            "with the address as HOST:PORT or auto"
        )
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"no cluster of Ray answers ({error}); {UNSET.format(address=address)}") from None


def _needs_gpu(variant: Variant) -> bool:
    return variant.device.startswith("cuda")


def _workers(nodes: list[dict[str, Any]], variant: Variant, workers: int | None) -> int:
    """Return how many workers to start; more than the machines have room for would wait for ever."""
    room = 0
    for resources in (node["Resources"] for node in nodes if node["Alive"]):
        fit = int(resources.get("CPU", 0)) // variant.threads
        room += min(fit, int(resources.get("GPU", 0))) if _needs_gpu(variant) else fit
    if (workers or 1) > room:
        gpu = " and a GPU" if _needs_gpu(variant) else ""
        raise InputError(
            f"Ray has room for {room} workers of {variant.threads} threads{gpu} each, and {workers or 1} are wanted; "
            "ask for fewer --workers or --threads"
        )
    return workers or room


class _Reading:
    """Reads the chunks, each a table of one row.

    An actor, though it is called once: Ray cancels a task when the work ends early, and Ray 2.60 can crash on that
    (in one of five runs; its pull request 54798 is about such a crash).
    """

    def __init__(self, source: TextFile, survey: Survey, numbers: Collection[int]) -> None:
        self.source, self.survey, self.numbers = source, survey, numbers

    def __call__(self, _: pa.Table) -> Iterator[pa.Table]:
        for number, texts in self.source.surveyed_chunks(self.survey, self.numbers):
            yield pa.table({"number": [number], "texts": pa.array([texts], pa.large_list(pa.large_string()))})


class _Embedding:
    """Embeds the chunk of a table of one row."""

    def __init__(self, variant: Variant) -> None:
        self.worker = Worker(variant)

    def __call__(self, table: pa.Table) -> pa.Table:
        done = self.worker.encode(table["number"][0].as_py(), table["texts"][0].as_py())
        flat = pa.array([done.embeddings.reshape(-1)], pa.large_list(pa.float32()))
        return table.append_column("embeddings", flat).append_column("truncated", pa.array([done.truncated]))


def _done(table: pa.Table) -> Done:
    row: dict[str, Any] = {name: table[name][0] for name in table.column_names}
    texts = row["texts"].as_py()
    embeddings = row["embeddings"].values.to_numpy().reshape(len(texts), -1)
    return Done(row["number"].as_py(), texts, np.asarray(embeddings, np.float32), row["truncated"].as_py())
