"""Fresh processes, forked from one that has imported what takes long and reads no setting of a Hub.

The Hub's libraries fix their endpoint and their cache when they are imported, so a test of them needs a process of its
own. torch, scikit-learn, pandas and pyarrow take four fifths of the time of their import, and read none of that. Where
the settings of a Hub do not matter, :mod:`warm` has imported all of it.

What differs from a new interpreter: those modules are imported, torch has one thread, the seeds of hashes and of numpy
are the same in all of them, and of what an interpreter reads at its start only ``PYTHONPATH`` counts.
"""

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

#: Seconds after which a process is killed: its code is then -9.
LIMIT = 240
SERVER = """
import gc, importlib, json, os, signal, sys, time, traceback, types

def run(source, env, argv, cwd, first, stdout, stderr):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv, sys.path[:] = argv, [first, *paths, *(path for path in sys.path if path)]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        exec(compile(source, "<string>", "exec"), main.__dict__)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)

for name in sys.argv[1:]:
    importlib.import_module(name)
gc.freeze()  # a collection in a fork would copy every page of what is imported
for line in sys.stdin:
    job = json.loads(line)
    limit = time.monotonic() + job.pop("limit")
    child = os.fork()
    if not child:
        run(**job)
    ended = 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and time.monotonic() > limit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
IMPORTS = ("torch._dynamo", "torch.distributed.tensor", "sklearn.metrics", "scipy.stats", "pandas", "pyarrow.parquet")


@cache
def _server() -> subprocess.Popen[str]:
    """Return a process that forks one at a time; it ends with this one."""
    command, env = [sys.executable, "-c", SERVER, *IMPORTS], {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    return server


def run_forked(
    source: str, *argv: str | Path, env: Mapping[str, str] = os.environ, cwd: str | Path = "."
) -> subprocess.CompletedProcess[str]:
    """Run Python source as ``python -c`` does, with an environment of its own; return what it printed."""
    return _run(source, ["-c", *argv], "", env, cwd)


def run_script(
    script: Path, *argv: str | Path, env: Mapping[str, str] = os.environ, cwd: str | Path = "."
) -> subprocess.CompletedProcess[str]:
    """Run a script as ``python SCRIPT`` does, with an environment of its own; return what it printed."""
    source = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    return _run(source, [script, *argv], str(script.parent), env, cwd)


def _run(
    source: str, argv: Sequence[str | Path], first: str, env: Mapping[str, str], cwd: str | Path
) -> subprocess.CompletedProcess[str]:
    """Have a server run source; ``first`` stands first on the path of imports."""
    server, words = _server(), [str(word) for word in argv]
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "stdout"), Path(folder, "stderr")
        job = {"source": source, "env": dict(env), "argv": words, "cwd": str(Path(cwd).resolve()), "first": first}
        job |= {"stdout": str(out), "stderr": str(errors), "limit": LIMIT}
        try:
            server.stdin.write(json.dumps(job) + "\n")
            server.stdin.flush()
            code = int(server.stdout.readline())
        except BaseException:  # what it still answers would be taken for the answer to the next job
            server.kill()
            _server.cache_clear()
            raise
        return subprocess.CompletedProcess(words, code, out.read_text(), errors.read_text())
