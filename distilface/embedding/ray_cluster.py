"""A cluster of Ray for the time of a work: connected to or started, with room for the workers."""

import contextlib
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from typing import Any

from distilface.console import quiet_logger
from distilface.embedding.worker import Variant
from distilface.settings import InputError

#: How often a dead worker is restarted and its work computed again: without a limit, a text that kills its worker would
#: be tried for ever.
RESTARTS = 3
#: How long a cluster may take to answer.
CONNECT_SECONDS = 10
UNSET = "RAY_ADDRESS is {address}: start a cluster there, or unset it to use this machine alone"
#: What Ray is started with where the user has not chosen: it would report its use over the network, and say of every
#: worker that may be restarted that its arguments lie in the object store.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}


@contextlib.contextmanager
def cluster_for(variant: Variant, workers: int | None) -> Iterator[int]:
    """Have a cluster for the block, and give the number of workers that it is to start.

    A running cluster is used (``RAY_ADDRESS``), or one is started on this machine. The model folder must lie at the
    same path on every machine, and distilface be installed there.

    Args:
        variant: what each worker computes.
        workers: how many; ``None`` takes as many as the cluster has CPUs for.

    Raises:
        InputError: where no cluster answers at ``RAY_ADDRESS`` or it has no room for the workers, where a worker cannot
            load the model or ends again and again, or what a worker raises.
    """
    import ray
    import ray.data  # its import sets the level of its logger
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        # Its progress would mix with the bar of rows; errors are raised all the same.
        with connected(), quiet_logger("ray.data", logging.CRITICAL):
            yield worker_count(ray.nodes(), variant, workers)
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


@contextlib.contextmanager
def ray_data() -> Iterator[Any]:
    """Give the module ``ray.data``, with blocks of one row and without progress for the data sets made in the block."""
    import ray.data
    from ray.data import DataContext
    from ray.util.annotations import RayDeprecationWarning

    context = DataContext.get_current().copy()
    context.target_max_block_size = 1  # one row a block
    context.execution_no_progress_timeout_s = -1  # a row may take as long as it takes
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context), warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # of the limits, which 2.64 is to drop
        yield ray.data


def each_row(rows: Any, function: type, argument: Any, variant: Variant, count: int) -> Any:
    """Return a data set of Ray (``ray.data.Dataset``), computed as it is read: what a function makes of each row.

    Args:
        rows: a data set with one row a block.
        function: a class, made once in each worker; an instance is called with a table of one row, and returns one.
        argument: what it is made with.
        variant: what each worker computes.
        count: of the workers.
    """
    from ray.data import ActorPoolStrategy

    return rows.map_batches(
        function,
        fn_constructor_args=(argument,),
        compute=ActorPoolStrategy(size=count),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=variant.threads,
        num_gpus=int(needs_gpu(variant)),
        max_restarts=RESTARTS,
        max_task_retries=RESTARTS,
    )


@contextlib.contextmanager
def connected() -> Iterator[None]:
    """Use the cluster that the program is connected to, or connect to one or start it for the time of the work."""
    import ray
    from ray.exceptions import RayError

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS", "")
    check_address(address)
    logger = logging.getLogger("ray")
    level = logger.level
    unset = {name: value for name, value in ENVIRONMENT.items() if name not in os.environ}
    try:
        os.environ.update(unset)
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
        for name in unset:
            del os.environ[name]


def check_address(address: str) -> None:
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


def needs_gpu(variant: Variant) -> bool:
    """Return whether each worker takes a GPU."""
    return variant.device.startswith("cuda")


def worker_count(nodes: list[dict[str, Any]], variant: Variant, workers: int | None) -> int:
    """Return how many workers to start; more than the machines have room for would wait for ever."""
    room = 0
    for resources in (node["Resources"] for node in nodes if node["Alive"]):
        fit = int(resources.get("CPU", 0)) // variant.threads
        room += min(fit, int(resources.get("GPU", 0))) if needs_gpu(variant) else fit
    if (workers or 1) > room:
        gpu = " and a GPU" if needs_gpu(variant) else ""
        raise InputError(
            f"Ray has room for {room} workers of {variant.threads} threads{gpu} each, and {workers or 1} are wanted; "
            "ask for fewer --workers or --threads"
        )
    return workers or room
