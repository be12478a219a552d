"""Fresh processes, forked from one that has imported what takes long and reads no setting of a Hub.

The Hub's libraries fix their endpoint and their cache when they are imported, so a test of them needs a process of its
own. torch, scikit-learn, pandas and pyarrow take four fifths of the time of their import, and read none of that.
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

#: Seconds after which a process is killed.
LIMIT = 240
SERVER = """
import gc, importlib, json, os, signal, sys, time, traceback

def run(source, env, argv, cwd, stdout, stderr):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv, code = argv, 0
    try:
        exec(compile(source, "<string>", "exec"), sys.modules["__main__"].__dict__)
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        if isinstance(leave.code, str):
            print(leave.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

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
def _server(number: int) -> subprocess.Popen[str]:
    """Return a process that forks one at a time; it ends with this one."""
    command = [sys.executable, "-c", SERVER, *IMPORTS]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(server.kill)
    return server


def run_forked(
    source: str, *argv: str | Path, env: Mapping[str, str] = os.environ, cwd: str | Path = "."
) -> subprocess.CompletedProcess[str]:
    """Run Python source as ``python -c`` does, with an environment of its own; return what it printed."""
    return _run(source, ["-c", *argv], env, cwd)


def run_script(
    script: Path, *argv: str | Path, env: Mapping[str, str] = os.environ, cwd: str | Path = ".", number: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run a script as ``python SCRIPT`` does, with an environment of its own; return what it printed.

    Those of different numbers may run at once.
    """
    source = f"import runpy\nsys.path.insert(0, {str(script.parent)!r})\n"
    return _run(f"{source}runpy.run_path({str(script)!r}, run_name='__main__')", [script, *argv], env, cwd, number)


def _run(
    source: str, argv: Sequence[str | Path], env: Mapping[str, str], cwd: str | Path, number: int = 0
) -> subprocess.CompletedProcess[str]:
    server = _server(number)
    assert server.stdin is not None
    assert server.stdout is not None
    words = [str(word) for word in argv]
    with tempfile.TemporaryDirectory() as folder:
        out, errors = Path(folder, "stdout"), Path(folder, "stderr")
        job = {"source": source, "env": dict(env), "argv": words, "cwd": str(Path(cwd).resolve()), "limit": LIMIT}
        server.stdin.write(json.dumps(job | {"stdout": str(out), "stderr": str(errors)}) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return subprocess.CompletedProcess(words, code, out.read_text(), errors.read_text())
