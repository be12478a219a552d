"""A folder of .parquet files to a folder of embeddings by workers of Ray, which read and write the parts: local and S3.

Needs ray (the extra 'ray'); what is about S3 needs s3fs and moto's server beside it, which answers on loopback.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parts import PARTS, SMALL, TEXTS, content, embed_files, expected, run, save_model
from refusals import refusal
from tiny import sentences

from distilface import cli
from distilface.embedding.part_writer import PartWriter

ray = pytest.importorskip("ray", reason="needs ray (the extra 'ray')")
pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
RAY = ("--engine", "ray", "--workers", "2")
SECRET = "not-to-be-printed"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def endpoint():
    """Start S3 on loopback and set the environment for it; give its URL, or nothing where it is not installed."""
    try:
        import s3fs  # noqa: F401
        from moto.server import ThreadedMotoServer
    except ImportError:
        yield None
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{host}:{port}", "NO_PROXY": host}.items():
            patch.setenv(name, value)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def ray_of_two(endpoint):
    """Start Ray with two CPUs; its workers have the environment of the store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture
def bucket(endpoint, whole):
    """Return a store with an empty bucket but for the folder of text."""
    if endpoint is None:
        pytest.skip("needs s3fs and moto[server]")
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    if store.exists("bucket"):
        store.rm("bucket", recursive=True)
    store.mkdir("bucket")
    store.put(f"{whole[0]}/", "bucket/texts/", recursive=True)
    return store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Embed the folder without Ray: the input, and what is made of it."""
    return embed_files(model, tmp_path_factory.mktemp("whole"))


def parts_of(store, folder: str) -> dict[str, bytes]:
    """Return the bytes of the parts in a bucket."""
    store.invalidate_cache()
    return {path.rpartition("/")[2]: store.cat_file(path) for path in sorted(store.glob(f"{folder}/part-*"))}


@pytest.mark.usefixtures("ray_of_two")
def test_two_workers_give_the_same_bytes_and_go_on(model, whole, tmp_path, monkeypatch):
    """Nothing is read or written by this process but the ends of the files and what the folder says of itself."""
    monkeypatch.setattr(PartWriter, "write", lambda *args: pytest.fail("written here"))
    output = tmp_path / "out"
    report = run(model, whole[0], output, "--keep-text", *RAY)
    assert (report.rows, report.computed, report.empty, report.truncated) == (48, 48, 2, 1)
    assert content(output) == content(whole[1])
    (output / PARTS[1]).unlink()
    (output / PARTS[3]).write_bytes(b"PAR1")
    assert run(model, whole[0], output, "--keep-text", *RAY).computed == 25
    assert content(output) == content(whole[1])
    said = refusal(run, model, whole[0], output, "--variant", "bf16", "--keep-text", *RAY)
    assert "holds another encoding (--variant was fp32 and is bf16)" in said


@pytest.mark.usefixtures("ray_of_two")
def test_a_mistake_that_a_worker_meets_is_one_sentence(model, whole, tmp_path, capfd):
    shutil.copytree(whole[0], tmp_path / "in")
    pq.write_table(pa.table({"text": ["a dog", None]}), tmp_path / "in" / "d.parquet")
    said = refusal(run, model, tmp_path / "in", tmp_path / "out", *RAY)
    assert said.startswith(f"{tmp_path / 'in'}/d.parquet, row 2: nothing in column 'text'")
    assert "Traceback" not in capfd.readouterr().err
    assert not list((tmp_path / "out").glob(".part-*"))


@pytest.mark.usefixtures("ray_of_two")
def test_from_s3_to_s3_on_the_workers(model, bucket):
    words = ("s3://bucket/texts", "s3://bucket/vectors", "--keep-text")
    assert run(model, *words, *RAY).computed == 48
    made = parts_of(bucket, "bucket/vectors")
    assert list(made) == PARTS
    table = pa.concat_tables(pq.read_table(pa.BufferReader(part)) for part in made.values())
    assert (table["row"].to_pylist(), table["text"].to_pylist()) == (list(range(48)), TEXTS)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist(), np.float32), expected(model), atol=1e-5)
    assert run(model, words[0], "s3://bucket/alone", "--keep-text").computed == 48
    assert parts_of(bucket, "bucket/alone") == made, "without Ray"
    bucket.rm(f"bucket/vectors/{PARTS[2]}")
    assert run(model, *words, *RAY).computed == 14
    assert parts_of(bucket, "bucket/vectors") == made
    said = refusal(run, model, *words[:2], *RAY)
    assert "s3://bucket/vectors holds another encoding (--keep_text was True and is False)" in said


def test_a_damaged_file_of_s3_and_a_bucket_that_is_not_there_are_named(model, bucket):
    bucket.pipe_file("bucket/texts/d.parquet", b"PAR1 not the end of one")
    said = refusal(run, model, "s3://bucket/texts", "s3://bucket/vectors", *RAY)
    assert said.startswith("s3://bucket/texts/d.parquet cannot be read as Parquet (")
    bucket.rm("bucket/texts/d.parquet")
    said = refusal(run, model, "s3://none/texts", "s3://bucket/vectors")
    assert said.startswith("s3://none/texts cannot be listed (FileNotFoundError: The specified bucket does not exist)")
    said = refusal(run, model, "s3://bucket/texts", "s3://none/vectors")
    assert said.startswith("s3://none/vectors cannot be listed (")
    assert SECRET not in said


@pytest.mark.timeout(900)  # two starts of Ray
def test_a_command_that_is_killed_goes_on(model, bucket, endpoint, tmp_path):
    """The whole command, with a Ray of its own and the endpoint by fsspec's own variable; no secret is printed."""
    for number in range(40):
        table = pa.table({"text": sentences(20, seed=number)})
        with bucket.open(f"bucket/many/{number:02d}.parquet", "wb") as file:
            pq.write_table(table, file)
    words = [str(model), "s3://bucket/many", "s3://bucket/killed", *SMALL, "--engine", "ray"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_ENDPOINT"))}
    environment |= {"RAY_ADDRESS": "local", "FSSPEC_S3_ENDPOINT_URL": endpoint}
    environment["PYTHONPATH"] = str(Path(cli.__file__).parents[1])
    command = [sys.executable, "-m", "distilface.cli", "encode", *words]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL) as process:
        started = psutil.Process(process.pid)
        while not (made := parts_of(bucket, "bucket/killed")) and process.poll() is None:
            time.sleep(0.02)
        children = started.children(recursive=True) if process.poll() is None else []
        process.kill()
    assert process.returncode == -9
    psutil.wait_procs(children, timeout=60)
    kept = parts_of(bucket, "bucket/killed")
    assert 0 < len(made) <= len(kept) < 40
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("s3://bucket/killed: 800 rows of 32 numbers")
    assert f"{800 - 20 * len(kept)} of 800 rows to compute, {20 * len(kept)} are there" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    run(model, "s3://bucket/many", "s3://bucket/alone")
    assert parts_of(bucket, "bucket/killed") == parts_of(bucket, "bucket/alone")
    assert kept.items() <= parts_of(bucket, "bucket/alone").items()
