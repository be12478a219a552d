"""Every command that writes, killed at random moments: the same command again ends as if nothing had happened.

    python -m pytest -m slow tests/test_kills.py -s    # DISTILFACE_KILLS: kills of each command, 20

kills each command so often (default 20); ``DISTILFACE_SEED`` draws other moments, which are printed. Half of the time
the command that goes on after a kill is killed as well.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hub_writing import TOKEN, WritableHub
from runs import train
from tiny import sentences, tiny_model
from warm import Done, Warm

from distilface import cli
from distilface.exporters.onnx import to_onnx
from distilface.locks import discard, locked, scratch_folder, temporary_folder
from distilface.model.folder import load, save_folder
from distilface.settings import InputError

KILLS = int(os.environ.get("DISTILFACE_KILLS", "20"))
SEED = int(os.environ.get("DISTILFACE_SEED", "17"))
COMMAND = str(Path(cli.__file__))
#: What may be there after a kill, and never after the command has ended.
LEFTOVER = re.compile(r"\..+\.[0-9a-f]{8}\.(tmp|old)|\..+\.lock|.+\.(part|unfinished|shards)|temporary|data")
#: Keys of the records that say how long something took.
TIMES = {"train_seconds", "sentences_per_second", "date"}
TEACHER = """
from datasets import Dataset
from pathlib import Path

from distilface.embedding import teacher_cache
from distilface.training.teacher import load_teacher

teacher_cache.SHARD = 16
texts = Dataset.from_dict({"text": Path("../text.txt").read_text().splitlines()})
teacher_cache.embed(load_teacher("../teacher", device="cpu"), texts, "cache", batch_size=4, bf16=False)
"""
# A case has its own place for temporary files and data sets, so that what stays of them is seen. The graph of the
# model is made once: torch takes ten seconds to trace it, and writes nothing meanwhile.
BEFORE = """
import shutil, tempfile
from pathlib import Path

import datasets
from distilface.exporters import exporting

Path("temporary").mkdir(exist_ok=True)
tempfile.tempdir = str(Path("temporary").absolute())
datasets.config.HF_DATASETS_CACHE = Path("data").absolute()
exporting.to_onnx = lambda model, file: shutil.copyfile("../source.onnx", file)
"""


@dataclass
class Place:
    """What the commands work on: a warm interpreter, a Hub, and a folder with a model and text in it."""

    warm: Warm
    hub: WritableHub
    folder: Path

    def run(self, case: Path, words: list[str], kill_after: float | None = None) -> Done:
        """Run a verb, or the teacher's pass, in a case's folder."""
        script = str(self.folder / "teacher.py") if words == ["teacher"] else COMMAND
        return self.warm(script, *words, cwd=case, before=BEFORE, kill_after=kill_after)

    def content(self, case: Path) -> dict[str, Any]:
        """Read all that lies in a case's folder and its repository, records without their times; folders are None."""
        content_by_name: dict[str, Any] = {}
        for path in case.rglob("*"):
            name = path.relative_to(case).as_posix()
            if name.startswith("data/") and path.suffix == ".lock":  # of the data sets, named by its whole path
                continue
            content_by_name[name] = path.read_bytes() if path.is_file() else None
            if path.name in ("run.json", "export.json"):
                content_by_name[name] = timeless(json.loads(path.read_text()))
        repo = self.hub.repos.get(("models", f"org/{case.name}"))
        files = repo.files() if repo else []
        return content_by_name | {f"hub/{file}": (repo.folder / file).read_bytes() for file in files if repo}


def timeless(value: Any) -> Any:
    """Leave the times out of a record."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if key not in TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Kind:
    """A command, what it needs, and its refusals after a kill.

    Attributes:
        words: the command.
        student: whether it changes the student, which it then gets a copy of.
        again: what a refusal says, and the word that it asks for; ``None`` where the result is there.
        folder: which appears with all its files or not at all.
        commits: that it makes on the Hub.
    """

    words: str
    student: bool = False
    again: tuple[tuple[str, str | None], ...] = ()
    folder: str = ""
    commits: int = 0

    def case(self, place: Place, name: str) -> tuple[Path, list[str]]:
        """Make a folder to run in; return it with the command."""
        case = place.folder / name
        case.mkdir()
        if self.student:
            shutil.copytree(place.folder / "student", case / "student")
        return case, self.words.format(case=name).split()

    def finish(self, place: Place, case: Path, words: list[str]) -> Done:
        """Run the command to its end, and once more as a refusal says."""
        done = place.run(case, words)
        for sentence, more in self.again:
            if done.code == 2 and sentence in done.stderr:
                done = place.run(case, [*words, more]) if more else Done(0, "", done.stderr, done.seconds)
        return done


KINDS = {
    "train": Kind(
        "train simcse --backbone ../backbone --data ../text.txt --dev ../pairs.jsonl --output_dir model --steps 10 "
        "--batch_size 8 --eval_steps 3 --learning_rate 1e-3 --bf16 no --pooling mean --mlp_head",
        again=(("go on with --resume", "--resume"), ("model is not empty; name another --output-dir", None)),
        folder="model/",
    ),
    "teacher": Kind("teacher"),
    "encode": Kind(
        "encode ../student ../text.txt vectors.parquet --chunk_rows 8 --keep_text --threads 1",
        again=(("vectors.parquet exists; name another file", None),),
    ),
    "export": Kind("export student --dev ../pairs.jsonl --formats onnx int8 openvino", student=True),
    "push": Kind("push ../student --repo-id org/{case} --yes", commits=1),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, materials: Any) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("kills")
    save_folder(tiny_model(folder / "made"), folder / "student", run={"seed": 1})
    (folder / "student" / "README.md").write_text("---\nlicense: mit\n---\n\n# student\n")
    to_onnx(load(folder / "student"), folder / "source.onnx")
    (folder / "text.txt").write_text("\n".join(sentences(200)) + "\n")
    for name in ("teacher", "backbone", "pairs"):
        model = getattr(materials, name)
        (folder / model.name).symlink_to(model)
    (folder / "teacher.py").write_text(TEACHER)
    with WritableHub(folder / "hub") as hub:
        env = hub.env(folder / "cache") | {"HF_TOKEN": TOKEN}
        with Warm(env, folder, ["onnx", "onnxruntime.quantization.shape_inference", "openvino"]) as warm:
            yield Place(warm, hub, folder)


def half_written(left: dict[str, Any], whole: dict[str, Any], kind: Kind) -> list[str]:
    """Name what has the name of a result after a kill, and is not that result."""
    results = {n: v for n, v in left.items() if v is not None and not any(map(LEFTOVER.fullmatch, n.split("/")))}
    if "student/export.json" in results:  # a row is written when its file is in its place
        rows, all_rows = (each["student/export.json"]["files"] for each in (left, whole))
        wrong = [name for name, row in rows.items() if row != all_rows[name] or f"student/{name}" not in results]
        results["student/export.json"] = whole["student/export.json"]
    else:
        wrong = []
    lacking = [name for name in whole if kind.folder and name.startswith(kind.folder) and name not in left]
    begun = any(name.startswith(kind.folder) for name in results) if kind.folder else False
    return wrong + [n for n, v in results.items() if whole.get(n, b"") != v] + (lacking if begun else [])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", KINDS)
def test_killed_at_any_moment_it_ends_as_if_never(name: str, place: Place) -> None:
    """A half-written file that is taken for a result would be wrong vectors, published, and nobody would see it."""
    kind, draw, faults = KINDS[name], random.Random(f"{SEED} {name}"), []
    case, words = kind.case(place, f"{name}-whole")
    undisturbed = place.run(case, words)
    assert undisturbed.code == 0, undisturbed
    whole, kills, number = place.content(case), 0, 0
    print(f"{name}: {undisturbed.seconds:.2f} s undisturbed, seed {SEED}")
    while kills < KILLS:
        number += 1
        case, words = kind.case(place, f"{name}-{number}")
        commits, moments, problems = len(place.hub.commits), [], []
        while kills < KILLS and (not moments or draw.random() < 0.5):
            moments.append(round(draw.uniform(0, undisturbed.seconds), 3))
            more = ["--resume"] if list(case.glob("model.unfinished/*/whole.json")) else []
            kills += place.run(case, [*words, *more], moments[-1]).code == -9
            left = place.content(case)
            problems += [f"half written: {each}" for each in half_written(left, whole, kind)]
        done, after = kind.finish(place, case, words), place.content(case)
        problems += [f"ended with {done.code}: {done.stderr[-500:]}"] if done.code else []
        problems += [f"differs: {each}" for each in {*whole, *after} if whole.get(each, 0) != after.get(each, 0)]
        problems += [f"{added} commits"] if (added := len(place.hub.commits) - commits) != kind.commits else []
        print(f"{name}: killed after {moments}: {problems or 'as if never'}; before the end: {sorted(left)}"[:1000])
        faults += [(moments, each) for each in problems]
    assert not faults


def test_a_lock_is_one_process_and_stays_nowhere(tmp_path: Path, materials: Any) -> None:
    """Two that write one folder would mix their files; and a lock that a push publishes is not a part of a model."""
    output, hidden = tmp_path / "deep" / "model", tmp_path / "deep" / ".model.lock"
    with locked(output):
        assert hidden.is_file()
        for work in (
            lambda: train("simcse", materials.words("simcse", output)),
            lambda: save_folder(tiny_model(tmp_path / "made"), output),
        ):
            with pytest.raises(InputError, match=r"another process is writing to .*model; wait for it to end, or name"):
                work()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
    hidden.parent.mkdir()
    hidden.touch()  # of a killed process
    with locked(output):
        pass
    assert not any(hidden.parent.iterdir())


def test_an_export_has_its_folder_alone(tmp_path: Path) -> None:
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "model")
    words = ["export", str(tmp_path / "model"), "--formats", "onnx"]
    with FileLock(tmp_path / ".model.lock"), pytest.raises(InputError, match=r"another process is writing to .*model"):
        cli.run(words)
    assert not (tmp_path / "model" / "onnx").exists()


def test_leftovers_of_a_kill_are_cleared_away(tmp_path: Path) -> None:
    """Only those of this folder: another may be one that a process is writing just now."""
    others = [".other.deadbeef.tmp", ".m.v2.deadbeef.tmp", ".m.tmp", "m.deadbeef.tmp", ".m.v2.lock"]
    for name in (".m.0123abcd.tmp", ".m.deadbeef.tmp", ".m.00000000.old", *others):
        (tmp_path / name).mkdir()
    (tmp_path / ".m.00000000.old" / "config.json").write_text("{}")
    with locked(tmp_path / "m"), temporary_folder(tmp_path / "m") as temporary:
        left = {path.name for path in tmp_path.iterdir()} - {".m.lock", temporary.name}
        assert left == {*others, "m"}  # the only model that there is gets its name back
    (tmp_path / ".m.00000000.old").mkdir()
    with locked(tmp_path / "m"):
        assert not (tmp_path / ".m.00000000.old").exists()
        assert (tmp_path / "m" / "config.json").read_text() == "{}"
    discard(tmp_path / ".other.deadbeef.tmp", tmp_path / "m")
    assert {path.name for path in tmp_path.iterdir()} == {*others[1:], "m"}


def test_temporary_files_of_a_kill_are_cleared_away(tmp_path: Path, monkeypatch: Any) -> None:
    """Each has the size of a model. That of a process which lives is left alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "distilface-dead").mkdir()
    (tmp_path / "distilface-dead" / "model.safetensors").touch()
    (tmp_path / "distilface-dead.lock").touch()
    with scratch_folder() as first, scratch_folder() as second:
        assert Path(first).is_dir()
        assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {Path(first).name, Path(second).name}
    assert not any(tmp_path.iterdir())


def test_the_work_of_a_finished_training_does_not_stay(tmp_path: Path, materials: Any, monkeypatch: Any) -> None:
    """Killed between the move of the folder and the end, it would stay for ever, and be offered to a resume."""
    words = materials.words("simcse", tmp_path / "model")
    with monkeypatch.context() as patch:
        patch.setattr("distilface.training.verdict.discard", lambda *folders: None)
        train("simcse", words)
    assert (tmp_path / "model.unfinished").is_dir()
    for more in ([], ["--resume"]):
        with pytest.raises(InputError, match="model is not empty; name another --output-dir"):
            train("simcse", [*words, *more])
        assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_empty_store_does_not_stay(tmp_path: Path) -> None:
    """Killed before its very last step, an encoding leaves the folder of its shards with the lock in it."""
    shards = tmp_path / "v.npy.shards"
    shards.mkdir()
    (shards / "lock").touch()
    (tmp_path / "v.npy").touch()
    with pytest.raises(InputError, match=r"v\.npy exists; name another file"):
        cli.run(["encode", str(tmp_path), str(tmp_path / "text.txt"), str(tmp_path / "v.npy")])
    assert not shards.exists()
