"""The versions and the machine that a result was measured with."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import distilface

#: What decides how fast an x86 processor computes in each precision, as Linux names it.
INSTRUCTIONS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
PACKAGES = ("sentence-transformers", "transformers", "torch", "mteb", "datasets", "huggingface-hub", "numpy")


def package_version(package: str) -> str | None:
    """Return the version of an installed package, or ``None``."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_info(key: str) -> str:
    """Return what Linux says of the first processor under a key, or nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == key), "")


def cpu() -> str:
    """Name the processor."""
    # Python's own platform.processor() says only the architecture on Linux.
    return _cpu_info("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """Name the processor with those of :data:`INSTRUCTIONS` that it has: two of one name can differ in them."""
    has = {*_cpu_info("flags").split()} & {*INSTRUCTIONS}
    return f"{cpu()} ({', '.join(name for name in INSTRUCTIONS if name in has)})" if has else cpu()


def cores() -> int:
    """Count the cores that this process may use; in a container they are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(*more: str) -> dict[str, Any]:
    """Return ``versions`` and ``machine``.

    The versions are those of Python, the libraries and ``more`` of them; ``None`` if one is not installed. The machine
    is its processor, the cores and torch threads that this process may use, its GPU or ``None`` and its platform;
    nothing names the computer or its user.
    """
    import torch  # slow, and not there where only models are run

    versions = {"python": platform.python_version(), "distilface": distilface.__version__}
    return {
        "versions": versions | {package: package_version(package) for package in (*PACKAGES, *more)},
        "machine": {
            "cpu": cpu(),
            "cores": cores(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "platform": f"{platform.system()} {platform.machine()}",
        },
    }


def stamp(*more: str) -> dict[str, Any]:
    """Return when and on what a result was measured: ``date``, in UTC, and :func:`environment`."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), **environment(*more)}
