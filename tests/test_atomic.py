"""A folder is at any moment the old one or the new one, whatever fails or is killed."""

import errno

import numpy as np
import pytest
from five import contents, make
from forks import run_forked
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distilface import storage
from distilface.model import folder
from distilface.model.folder import load, save_folder
from distilface.run import Run
from distilface.settings import InputError
from distilface.storage import check_output, put_in_place

FAILURES = {
    "an error": (RuntimeError("broken"), RuntimeError),
    "Ctrl-C": (KeyboardInterrupt(), KeyboardInterrupt),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), OSError),
    "a full disk met by safetensors": (
        SafetensorError("I/O error: No space left on device (os error 28)"),
        OSError,
    ),
}
KILLED = """
import os, signal, sys
from distilface import storage
from distilface.model import folder

def kill(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)

model = folder.load(sys.argv[1])
places = {"writing": (folder, "card"), "moving": (storage, "_exchange"), "removing": (storage.shutil, "rmtree")}
for step, (module, name) in places.items():
    if not os.fork():
        setattr(module, name, kill)
        folder.save_folder(model, os.path.join(sys.argv[2], step), run={"seed": 2}, overwrite=True)
    assert os.WIFSIGNALED(os.wait()[1])
"""

pytestmark = pytest.mark.usefixtures("one_thread")


def raising(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("step", ["make_portable", "card"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_the_old_folder_and_nothing_else(failure, step, tmp_path, monkeypatch):
    error, seen = FAILURES[failure]
    saved = save_folder(make("mean"), tmp_path / "m", run={"seed": 1})
    before = contents(tmp_path)
    monkeypatch.setattr(folder, step, raising(error))
    for name in ("m", "new"):
        with pytest.raises(seen) as raised:
            save_folder(make("cls"), tmp_path / name, overwrite=True)
        if seen is OSError:
            assert raised.value.errno == errno.ENOSPC
        assert contents(tmp_path) == before
        assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert saved.is_valid()


@pytest.mark.parametrize("one_step", [True, False])
def test_an_old_folder_is_replaced_whole(one_step, tmp_path, monkeypatch):
    if not one_step:
        monkeypatch.setattr(storage, "_exchange", lambda *names: False)
    save_folder(make("last4"), tmp_path / "m", run={"seed": 1})
    saved = save_folder(make("cls"), tmp_path / "m", overwrite=True)
    other = save_folder(make("cls"), tmp_path / "other", name="m")
    assert contents(saved.path) == contents(other.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "other"]


def test_the_old_folder_keeps_a_name_that_cannot_be_taken(tmp_path, monkeypatch):
    save_folder(make("mean"), tmp_path / "m")
    before = contents(tmp_path)
    monkeypatch.setattr(storage, "_exchange", lambda *names: False)
    rename = storage.Path.rename

    def fails_for_new(self, target):
        if self.suffix == ".tmp":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(storage.Path, "rename", fails_for_new)
    with pytest.raises(OSError, match="Input/output error"):
        save_folder(make("cls"), tmp_path / "m", overwrite=True)
    assert contents(tmp_path) == before


def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path):
    new = save_folder(make("cls"), tmp_path / "source")
    names = ("writing", "moving", "removing")
    steps = {step: save_folder(make("mean"), tmp_path / step, run={"seed": 1}) for step in names}
    before = contents(steps["writing"].path)
    before["README.md"] = b""
    done = run_forked(KILLED, new.path, tmp_path)
    assert done.returncode == 0, done.stderr
    for step in ("writing", "moving"):
        assert contents(steps[step].path) | {"README.md": b""} == before
    assert steps["removing"].run == Run(seed=2)
    assert steps["removing"].fingerprint == new.fingerprint
    for step, old in steps.items():
        assert len(list(tmp_path.glob(f".{step}.*.tmp"))) == 1
        save_folder(load(new.path), old.path, run={"seed": 3}, overwrite=True)
        assert old.run == Run(seed=3)


def test_only_a_model_that_may_be_replaced_is_not_kept(tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    saved = save_folder(make("mean"), tmp_path / "m")
    before = contents(tmp_path)
    cases = [
        ("m", False, "is not empty; name another folder or remove it"),
        ("notes", False, "is not empty"),
        ("notes", True, "is not empty and no model, so it is not replaced"),
        ("m/config.json", True, "is a file; name a folder"),
        ("m/config.json/deep", True, "cannot be written to"),
    ]
    for name, overwrite, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            check_output(tmp_path / name, overwrite)
        with pytest.raises(InputError, match=sentence):
            save_folder(make("mean"), tmp_path / name, overwrite=overwrite)
        with pytest.raises(InputError, match=sentence):
            put_in_place(saved.path, tmp_path / name, overwrite)
    assert contents(tmp_path) == before


def test_a_model_without_a_transformer_may_be_replaced(tmp_path):
    """It has no config.json at its root."""
    vectors = np.ones((2, 4), np.float32)
    static = StaticEmbedding(Tokenizer(WordLevel({"a": 0, "b": 1}, unk_token="a")), embedding_weights=vectors)
    for number in (1, 2):
        saved = save_folder(SentenceTransformer(modules=[static]), tmp_path / "m", {"seed": number}, overwrite=True)
        assert saved.run == Run(seed=number)


def test_an_empty_directory_a_new_path_and_a_link_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert save_folder(make("mean"), tmp_path / "link").is_valid()
    assert (tmp_path / "link").is_symlink()
    assert save_folder(make("mean"), tmp_path / "deep" / "er").is_valid()
    put_in_place(tmp_path / "deep" / "er", tmp_path / "empty", overwrite=True)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == []
