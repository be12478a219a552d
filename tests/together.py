"""Trainings by two processes at once, as a launcher starts them: one pair of interpreters for many trainings."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

#: Of a training without dropout, as one process and several draw other masks. The two views of SimCSE are then equal,
#: and its loss is one all the same.
KINDS = (
    "embedding",
    "embedding on the grid",
    "embedding by tokens",
    "leaf",
    "simcse",
    "simcse with a head",
    "multistage",
    "mlm",
)
ALONE = ("codir", "online")


def train_all(cases: dict[str, list[str]]) -> dict[str, Any]:
    """Train each kind by its words; return what stands in the ``run.json`` of each, or what refused it."""
    from runs import train

    from distilface.embedding import teacher_cache
    from distilface.methods import simcse
    from distilface.settings import InputError

    done: dict[str, Any] = {}
    with patch.object(simcse, "dropouts_of", lambda model: {0.1}), patch.object(teacher_cache, "SHARD", 8):
        for kind, words in cases.items():
            try:
                done[kind] = train(kind, words)
            except InputError as error:
                done[kind] = str(error)
    return done


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train_together(cases: dict[str, list[str]], folder: Path, processes: int = 2) -> list[dict[str, Any]]:
    """Train each kind in processes that a launcher has started; return what each process has returned."""
    (folder / "cases.json").write_text(json.dumps(cases))
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{rank}.log").open("w"),
        )
        for rank in range(processes)
    ]
    codes = [process.wait(timeout=300) for process in running]
    assert codes == [0] * processes, "\n".join((folder / f"{rank}.log").read_text() for rank in range(processes))
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


if __name__ == "__main__":
    place = Path(sys.argv[1])
    results = train_all(json.loads((place / "cases.json").read_text()))
    (place / f"{os.environ['RANK']}.json").write_text(json.dumps(results, default=str))
