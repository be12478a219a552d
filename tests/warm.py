"""A warm interpreter: it imports everything once, and forks a process of its own for every script that is run.

So a script costs what it does and not its imports, and a test can look at its exit code, at what it prints, and
can have it killed.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

TRAINING = Path(__file__).parents[1] / "training"
SERVER = """
import importlib
import gc, json, os, runpy, signal, sys, time, traceback

def run(argv, cwd, before, stdout, stderr):
    for stream, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(cwd)
    sys.argv, code = argv, 0
    try:
        exec(before, {})
        runpy.run_path(argv[0], run_name="__main__")
    except SystemExit as leave:
        code = leave.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

import accelerate, torch, distilface.cli
from distilface.methods import methods
methods()
for name in sys.argv[1:]:
    importlib.import_module(name)
torch.set_num_threads(1)
gc.freeze()  # a collection in a fork would copy every page of what is imported
for line in sys.stdin:
    job = json.loads(line)
    kill_after, began = job.pop("kill_after"), time.monotonic()
    child = os.fork()
    if not child:
        run(**job)
    if kill_after is not None:
        os.setpgid(child, child)
    ended, status = os.waitpid(child, 0 if kill_after is None else os.WNOHANG)
    while not ended:
        if time.monotonic() - began >= kill_after:
            os.killpg(child, signal.SIGKILL)
            ended, status = os.waitpid(child, 0)
        else:
            time.sleep(0.001)
            ended, status = os.waitpid(child, os.WNOHANG)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)
"""
KILL = """
import os, pkgutil, signal

owner, _, name = {where!r}.rpartition(".")
owner = pkgutil.resolve_name(owner)
real, calls = getattr(owner, name), []

def dying(*arguments, **options):
    calls.append(name)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

setattr(owner, name, dying)
"""


def kill_at(where: str, call: int = 1) -> str:
    """Give the source that has a process killed where it calls a function for the n-th time."""
    return KILL.format(where=where, call=call)


@dataclass(frozen=True)
class Done:
    """How a process ended, and after how many seconds; a negative code is the signal that killed it."""

    code: int
    stdout: str
    stderr: str
    seconds: float


class Warm:
    """The interpreter; a context manager.

    Args:
        env: its whole environment.
        folder: a place of its own.
        imports: modules that it imports beside the package's own.
    """

    def __init__(self, env: dict[str, str], folder: Path, imports: Sequence[str] = ()) -> None:
        threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self.env, self.folder, self.imports = env | threads, folder, imports

    def __enter__(self) -> "Warm":
        command: list[Any] = [sys.executable, "-c", SERVER, *self.imports]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=self.env, **pipes)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, script: str, *words: str, cwd: Path, before: str = "", kill_after: float | None = None) -> Done:
        """Run a script of ``training/`` in ``cwd``, after the source ``before`` in the same process.

        With ``kill_after`` its whole process group is killed after so many seconds, if it has not ended.
        """
        files = [self.folder / "stdout", self.folder / "stderr"]
        job = {"argv": [str(TRAINING / script), *words], "cwd": str(cwd), "before": before, "kill_after": kill_after}
        job |= dict(zip(("stdout", "stderr"), map(str, files), strict=True))
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + os.linesep)
        self.process.stdin.flush()
        code, seconds = self.process.stdout.readline().split()
        return Done(int(code), *(file.read_text() for file in files), float(seconds))
