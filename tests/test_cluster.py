"""examples/cluster/: the scripts are run with stand-ins for the cluster's programs, and every setting must exist."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from distilface.embedding.settings import EncodeSettings
from distilface.methods import find_method
from distilface.settings import parse

FOLDER = Path(__file__).parents[1] / "examples" / "cluster"
SCRIPTS = ("encode.sh", "train.sbatch")
#: A program that writes its words, as JSON, and one that starts another.
STAND_IN = """#!/usr/bin/env python3
import json, sys
print(json.dumps(sys.argv[1:]))
"""
STARTER = """#!/bin/sh
exec "$@"
"""
SLURM = {"SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "4"}


@pytest.fixture
def programs(tmp_path):
    """Return the environment of a cluster without any of its programs."""
    scontrol = "#!/bin/sh\nprintf 'a1\\na2\\n'\n"
    for name, script in {"ray": STAND_IN, "torchrun": STAND_IN, "srun": STARTER, "scontrol": scontrol}.items():
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "FSSPEC_"))}
    return {**kept, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


def start(name, env, *words) -> subprocess.CompletedProcess[str]:
    command = ["bash", str(FOLDER / name), *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_is_bash_and_says_what_is_missing(name, programs):
    assert subprocess.run(["bash", "-n", str(FOLDER / name)], check=False).returncode == 0
    done = start(name, programs)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: set ")


@pytest.mark.parametrize("endpoint", [{}, {"FSSPEC_S3_ENDPOINT_URL": "http://store:9000"}])
def test_the_job_of_ray_is_a_command_that_exists(programs, endpoint):
    words = ("/shared/m", "s3://bucket/texts", "s3://bucket/vectors", "--keep_text")
    done = start("encode.sh", {**programs, **endpoint, "RAY_ADDRESS": "http://head:8265"}, *words)
    assert done.returncode == 0, done.stderr
    submitted = json.loads(done.stdout)
    at = submitted.index("--")
    options, command = submitted[:at], submitted[at + 1 :]
    assert options[:2] == ["job", "submit"]
    assert options[2:] == (["--runtime-env-json", json.dumps({"env_vars": endpoint})] if endpoint else [])
    assert command[:5] == ["distilface", "encode", *words[:3]]
    settings = parse(EncodeSettings, command[5:], "")
    assert (settings.engine, settings.threads, settings.keep_text) == ("ray", 4, True)


@pytest.mark.parametrize("stopped", [False, True])
def test_the_training_is_a_command_that_exists(programs, tmp_path, stopped):
    """After a stop it resumes."""
    if stopped:
        (tmp_path / "mine.unfinished").mkdir()
    env = {**programs, **SLURM, "TEXT": "TEXT.txt", "OUTPUT": str(tmp_path / "mine")}
    done = start("train.sbatch", env, "--steps", "50")
    assert done.returncode == 0, done.stderr
    launched = get_args_parser().parse_args(json.loads(done.stdout))
    assert (launched.nnodes, launched.nproc_per_node, launched.rdzv_endpoint) == ("2", "4", "a1:29500")
    assert launched.module
    verb, method, *words = launched.training_script_args
    assert (launched.training_script, verb) == ("distilface", "train")
    settings = parse(find_method(method).Settings, words, "")
    assert (settings.data, settings.steps, settings.resume) == (["TEXT.txt"], 50, stopped)
    assert settings.batch_size % (2 * 4) == 0
