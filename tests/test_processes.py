"""Several processes that train together make what one process makes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from datasets import Dataset
from runs import Materials, train, weights
from tiny import on_one_thread
from together import ALONE, KINDS, free_port, train_all, train_together

from distilface import processes
from distilface.methods import find_method
from distilface.methods.embedding import DistillSettings
from distilface.run import read_run
from distilface.settings import InputError
from distilface.training.batches import LengthBatchSampler, check_batch
from distilface.training.checkpoints import last_whole

#: How much a weight may differ after ten steps, of sizes about 1: sums are taken in another order, and Adam makes much
#: of a small gradient. Four stages follow each other in one kind.
TOLERANCE = dict.fromkeys(KINDS, 5e-6) | {"multistage": 5e-3}


#: The kinds of the quick tests; the others take a minute more.
QUICK = ("embedding", "embedding on the grid")
SLOW = tuple(kind for kind in KINDS if kind not in QUICK)


def marked(*left_out: str) -> list[Any]:
    """Return the kinds as parameters, of which some are slow."""
    return [pytest.param(kind, marks=[pytest.mark.slow] * (kind in SLOW)) for kind in KINDS if kind not in left_out]


@pytest.fixture(scope="module")
def runs_of(materials: Materials, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Train the kinds that belong with a kind, once."""

    @cache
    def train_kinds(kinds: tuple[str, ...]) -> dict[str, Any]:
        return train_in_one_and_two(kinds, materials, tmp_path_factory.mktemp("together"))

    return lambda kind: train_kinds(SLOW if kind in SLOW else QUICK)


def train_in_one_and_two(kinds: tuple[str, ...], materials: Materials, folder: Path) -> dict[str, Any]:
    """Train each kind in one process, and in two; each has caches of its own."""

    def words(kind: str, place: str) -> list[str]:
        cache = [] if kind in ("mlm", "simcse", "simcse with a head", *ALONE) else ["--cache_dir", str(folder / place)]
        views = ["--scale", "1"] if "simcse" in kind else []  # equal views are told apart at once: the loss would be 0
        sizes = ["--embedding_size", "8", "--repeats", "2"] if kind == "multistage" else []
        return materials.words(kind, folder / place / kind, "--dropout", "0", *cache, *views, *sizes)

    (folder / "one").mkdir()
    (folder / "two").mkdir()
    together = train_together({kind: words(kind, "two") for kind in (*kinds, *ALONE)}, folder)
    with on_one_thread():
        alone = train_all({kind: words(kind, "one") for kind in kinds})
    return {"one": alone, "two": together[0], "second": together[1], "folder": folder}


@pytest.mark.parametrize("kind", marked("mlm"))  # whose masks are drawn for each part
def test_two_processes_make_what_one_makes(runs_of, kind):
    runs = runs_of(kind)
    one, two = (weights(runs["folder"] / place / kind) for place in ("one", "two"))
    assert one.keys() == two.keys()
    differences = {name: float((one[name].double() - two[name].double()).abs().max()) for name in one}
    assert max(differences.values()) < TOLERANCE[kind], differences
    ours, theirs = (np.array(runs[place][kind]["loss"]) for place in ("one", "two"))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("kind", marked())
def test_each_process_returns_the_run(runs_of, kind):
    runs = runs_of(kind)
    assert runs["second"][kind] == runs["two"][kind]
    assert runs["two"][kind]["steps"] == runs["one"][kind]["steps"]


@pytest.mark.parametrize("kind", ALONE)
def test_a_method_that_cannot_be_shared_says_why(runs_of, kind):
    assert f"{kind} trains in one process, not in 2: " in runs_of(kind)["two"][kind]


@pytest.mark.parametrize("kind", ["embedding", pytest.param("leaf", marks=pytest.mark.slow)])
def test_each_process_embeds_its_part_of_the_text(runs_of, kind):
    """The teacher's embeddings are the same bytes, whoever has computed them."""
    runs = runs_of(kind)
    one, two = (
        {file.relative_to(place): file for file in place.glob("*/*.arrow")}
        for place in (runs["folder"] / "one", runs["folder"] / "two")
    )
    both = one.keys() & two.keys()  # but for those of an assistant that each has trained
    assert len(both) > 2
    for name in both:
        np.testing.assert_array_equal(*(Dataset.from_file(str(files[name]))["label"][:] for files in (one, two)))


def be_second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process the second of three, as far as it reads its environment."""
    for name, value in {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(("rows", "left_out"), [(90, 0), (85, 1), (92, 2), (93, 0)])
def test_the_batches_of_one_are_dealt_out(rows, left_out, monkeypatch):
    data = Dataset.from_dict({"text": ["x" * (number % 11) for number in range(rows)]})
    alone = [set(batch) for batch in LengthBatchSampler(data, 30, drop_last=False, seed=3)]
    be_second_of_three(monkeypatch)
    parts = list(LengthBatchSampler(data, 10, drop_last=False, seed=3))
    together = [{*parts[start], *parts[start + 1], *parts[start + 2]} for start in range(0, len(parts), 3)]
    assert len({*map(len, parts[0:3])}) == 1
    assert sum(map(len, together)) == rows - left_out
    assert all(any(batch <= whole for whole in alone) for batch in together)


def test_a_batch_that_cannot_be_dealt_out_is_refused(monkeypatch):
    be_second_of_three(monkeypatch)
    check_batch(12, 2, "simcse")
    with pytest.raises(
        InputError, match=r"--batch_size 32 of simcse cannot be dealt out evenly to 3 processes; give a"
    ):
        check_batch(32, 2, "simcse")


def test_relations_are_not_learned_by_several(monkeypatch):
    be_second_of_three(monkeypatch)
    settings = DistillSettings(data=["python"], batch_size=12, dev=None, relation_weight=0.5)
    with pytest.raises(InputError, match=r"^--relation_weight trains in one process, not in 3: it compares the sent"):
        find_method("distill").check(settings)


def test_the_environment_says_which_process_this_is(monkeypatch):
    be_second_of_three(monkeypatch)
    assert (processes.count(), processes.index(), processes.is_first()) == (3, 1, False)


def test_without_a_launcher_there_is_one(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")  # of a cluster's own, without a rank
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (processes.count(), processes.is_first()) == (1, True)
    value = torch.tensor([1.0, 2.0])
    assert processes.mean(value) is value
    assert processes.from_first(lambda: 3) == processes.first_then_others(lambda: 3) == 3
    assert not processes.in_any(False)


def launched(words: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a training by torch's own launcher."""
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_port",
        str(free_port()),
    ]
    return subprocess.Popen(
        [*launcher, "-m", "distilface", "train", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


@pytest.mark.slow
def test_a_killed_process_ends_the_training_and_it_can_go_on(materials, tmp_path):
    """The other process says so in one sentence, and a resume makes what an undisturbed run makes."""
    words = ["--steps", "400", "--dropout", "0", "--eval_steps", "20"]
    common = materials.words("embedding", tmp_path / "two")
    with on_one_thread():
        train("embedding", [*materials.words("embedding", tmp_path / "one"), *words])
    running = launched(["embedding", *common, *words])
    work = tmp_path / "two.unfinished"
    wait_for(lambda: last_whole(work) is not None, 120)
    children = psutil.Process(running.pid).children(recursive=True)
    [second] = [child for child in children if child.environ().get("RANK") == "1"]
    second.kill()
    output, _ = running.communicate(timeout=120)
    assert running.returncode != 0
    sentences = [line for line in output.splitlines() if line.startswith("error: ")]
    assert sentences == ["error: another process of this training has ended; start them all again, with --resume"]
    assert not (tmp_path / "two").exists()
    again = launched(["embedding", *common, *words, "--resume"])
    output, _ = again.communicate(timeout=240)
    assert again.returncode == 0, output
    assert output.count("VERDICT") == 1
    # not the weights: a score that is nearly the same at two steps may choose either
    one, two = (np.array(read_run(tmp_path / place / "run.json").loss) for place in ("one", "two"))
    np.testing.assert_allclose(two, one, atol=5e-4)


@pytest.mark.slow
def test_ctrl_c_stops_all_after_the_same_step(materials, tmp_path):
    words = [*materials.words("simcse", tmp_path / "two"), "--steps", "100000", "--eval_steps", "1000"]
    running = launched(["simcse", *words], start_new_session=True)
    wait_for(lambda: (tmp_path / "two.unfinished" / "run.json").is_file(), 120)
    time.sleep(5)
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=120)
    assert output.count("stopped. saved at step ") == 1
    assert "go on with: torchrun --nproc_per_node 2 -m distilface train simcse" in output
    assert last_whole(tmp_path / "two.unfinished") is not None


def wait_for(happens: Callable[[], bool], seconds: float) -> None:
    """Wait until something has happened, at most so many seconds."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.1)
