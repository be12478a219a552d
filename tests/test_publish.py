"""Publishing to a Hub on loopback: the round trip, what is refused before anything is sent, and every failure."""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from forks import run_script
from hub_writing import TOKEN, Fault, WritableHub
from huggingface_hub.utils import close_session
from refusals import refusal
from sentence_transformers import SentenceTransformer
from tiny import sentences, tiny_model
from transformers import AutoModel

from distilface import cli
from distilface.cards.card import write_card
from distilface.hub import publishing as publish
from distilface.hub.checks import local_paths, without_places
from distilface.model.folder import load, save_folder

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "model_card" / "push_to_hub.py"
ID = "org/distilface"
CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n\n# distilface\n\nIt embeds text.\n"
SCORE = publish.score_again
WEIGHTS = "model.safetensors"


def make_folder(place: Path, seed: int = 0) -> Path:
    save_folder(tiny_model(place.with_name(f"{place.name}-made"), seed=seed), place, run={"seed": seed})
    (place / "README.md").write_text(CARD)
    return place


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("made")
    return make_folder(place / "first"), make_folder(place / "second", seed=1)


@pytest.fixture
def folder(models, tmp_path) -> Path:
    return shutil.copytree(models[0], tmp_path / "model")


@pytest.fixture
def hub(tmp_path):
    with WritableHub(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    """Wait for nothing, and note for how long."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def client(hub, monkeypatch) -> None:
    """Have the libraries of this process ask the Hub on loopback."""
    constants = {"ENDPOINT": hub.url, "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}
    constants["HUGGINGFACE_CO_URL_TEMPLATE"] = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()


@pytest.fixture
def push(client, folder, waits, monkeypatch):
    """Run the verb in this process; the score has tests of its own."""
    monkeypatch.setattr(publish, "score_again", lambda folder: 50.0)

    def run(*words: str, path: Path = folder, yes: bool = True) -> dict:
        return cli.run(["push", "--folder", str(path), "--repo-id", ID, *(["--yes"] if yes else []), *words])

    return run


def contents(hub: WritableHub, rev: str = "main") -> dict[str, bytes]:
    repo = hub.repos["models", ID] if rev == "main" else hub.refs["models", ID, rev]
    return {name: (repo.folder / name).read_bytes() for name in repo.files()}


def holds(hub: WritableHub, folder: Path, rev: str = "main") -> bool:
    """Return whether a revision has the weights of a folder."""
    return contents(hub, rev)[WEIGHTS] == (folder / WEIGHTS).read_bytes()


def refused(push, *words: str, **options) -> str:
    """Have a push refused, and give its sentence."""
    sentence = refusal(push, *words, **options)
    assert TOKEN not in sentence
    return sentence


def test_a_pushed_folder_gives_the_same_vectors_by_its_id(folder, hub, client, tmp_path):
    """The script as a user runs it, then the libraries, which have nothing of the folder but its id."""
    run = {"settings": {"dev": "sample", "data": ["/home/somebody/my text/a.txt"], "output_dir": str(folder)}}
    score = SCORE(publish.Folder(folder))
    (folder / "run.json").write_text(json.dumps(run | {"scores": {"stsb_dev": score, "teacher_stsb_dev": None}}))
    words = ["--folder", str(folder), "--repo-id", ID, "--tag", "v1", "--yes"]
    done = run_script(SCRIPT, *words, env=hub.env(tmp_path / "pusher") | {"HF_TOKEN": TOKEN})
    assert done.returncode == 0, done.stderr
    vectors = SentenceTransformer(ID, device="cpu", cache_folder=str(tmp_path / "reader")).encode(sentences(5))
    np.testing.assert_array_equal(vectors, load(folder).encode(sentences(5)))
    assert AutoModel.from_pretrained(ID, cache_dir=tmp_path / "reader").config.model_type == "distilbert"
    assert TOKEN not in done.stdout + done.stderr
    assert f"score: {score:.2f} on our own 180 pairs, now; run.json: stsb_dev {score:.2f} on sample" in done.stderr
    assert "license: apache-2.0" in done.stderr
    commit = hub.repos["models", ID].sha
    assert f"published: {hub.url}/{ID}/commit/{commit}" in done.stdout
    assert hub.refs["models", ID, "v1"].sha == commit
    published = json.loads(contents(hub)["run.json"])
    assert published["settings"] == {"dev": "sample", "data": ["a.txt"], "output_dir": "model"}
    assert json.loads((folder / "run.json").read_text())["settings"] == run["settings"], "the user's own stays"


def test_one_commit_holds_all_and_a_second_replaces_it(push, hub, folder, models):
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "config.json").write_text("{}")
    first = push()
    (_, names), *others = hub.commits
    assert not others
    assert sorted(names) == sorted(first["files"])
    assert first["url"] == f"{hub.url}/{ID}/commit/{first['commit']}"
    head = hub.repos["models", ID]
    (head.folder / "LICENSE").write_text("theirs")
    (head.folder / "pytorch_model.bin").write_bytes(b"older weights")
    second = push(path=models[1])
    assert second["deleted"] == ["2_Dense/config.json", "pytorch_model.bin"]
    expected = {name: (models[1] / name).read_bytes() for name in second["files"]}
    there = contents(hub)
    assert {name: there[name] for name in expected} == expected
    assert there.keys() - expected.keys() == {".gitattributes", "LICENSE"}
    assert len(hub.commits) == 2
    assert WEIGHTS in hub.commits[1][1], "weights and card are of one commit"
    assert holds(hub, folder, first["commit"])


def test_a_rerun_finds_nothing_to_do_and_can_tag(push, hub, models, caplog):
    """A tag is not moved to another commit afterwards."""
    first = push()
    again = push("--tag", "v1", "v1.0")
    assert (again["commit"], len(hub.commits)) == (first["commit"], 1)
    assert "nothing has changed since" in caplog.text
    before = contents(hub)
    assert "the tag v1 is of an older commit; name another" in refused(push, "--tag", "v1", path=models[1])
    assert (contents(hub), len(hub.commits)) == (before, 1)
    assert {hub.refs["models", ID, tag].sha for tag in ("v1", "v1.0")} == {first["commit"]}


@pytest.mark.parametrize(
    ("words", "ref", "page"),
    [(["--create-pr"], "refs/pr/1", "discussions/1"), (["--revision", "next"], "next", "commit/")],
)
def test_another_branch_leaves_main_as_it_is(push, hub, models, caplog, words, ref, page):
    push()
    before = contents(hub)
    assert push(*words, path=models[1])["url"].startswith(f"{hub.url}/{ID}/{page}")
    assert ("next is new" in caplog.text) is (ref == "next")
    assert contents(hub) == before
    assert holds(hub, models[1], ref)


def test_what_the_hub_would_ignore_is_sent_all_the_same(push, hub):
    """A .gitignore on the Hub would drop the weights without a word, and leave the card of no model."""
    push()
    head = hub.repos["models", ID]
    (head.folder / ".gitignore").write_text("*.safetensors\n")
    (head.folder / WEIGHTS).unlink()
    push()
    assert WEIGHTS in contents(hub)
    (hub.repos["models", ID].folder / WEIGHTS).unlink()
    hub.dropped.append(WEIGHTS)
    assert "the Hub has left model.safetensors out of" in refused(push)


def test_a_dry_run_shows_all_and_sends_nothing(push, hub, models, caplog):
    push()
    (hub.repos["models", ID].folder / "model.onnx").write_bytes(b"older")
    before = hub.writes()
    report = push("--dry-run", path=models[1], yes=False)
    assert hub.writes() == before
    assert "commit" not in report
    lines = ["  license: apache-2.0", f" lines: read {models[1] / 'README.md'}", "dry run: nothing was sent"]
    lines += ["deleted with the same commit: model.onnx"]
    lines += [f"  {(models[1] / WEIGHTS).stat().st_size:>13,}  model.safetensors\n"]
    assert [line for line in lines if line not in caplog.text] == []


def test_a_dry_run_needs_neither_login_nor_hub(push, hub, monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    hub.faults.append(Fault("."))
    push("--dry-run", yes=False)
    assert "what is on the Hub is not known: no answer came" in caplog.text
    assert "a new repository" not in caplog.text
    assert "there is no login to the Hub; hf auth login" in refused(push)


@pytest.mark.parametrize(("answer", "published"), [("y", True), ("n", False), ("", False), (None, False)])
def test_it_asks_at_a_terminal_and_is_refused_without(push, hub, monkeypatch, answer, published):
    def say(question: str) -> str:
        assert f"to {hub.url}/{ID}?" in question
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", say)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert "there is no terminal to ask at; add --yes" in refused(push, yes=False)
    assert hub.requests == []
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert ("commit" in push(yes=False)) == published
    assert bool(hub.commits) == published


def test_a_card_without_a_licence_is_warned_of(push, tmp_path, caplog):
    push("--dry-run")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    push("--dry-run", path=tmp_path / "m")
    assert f"{tmp_path / 'm'} lacks a card: README.md names no licence" in caplog.text


def test_a_card_of_other_weights_is_refused(push, hub, folder, models):
    """Silent otherwise: the commit would be whole, and its card would tell of the model before."""
    write_card(folder, license="mit")
    push("--dry-run")
    hub.requests.clear()
    shutil.copy(models[1] / WEIGHTS, folder)
    assert f"README.md was written for other weights; write it anew: distilface card {folder}" in refused(push)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--repo-id", "distilface"], "names no owner; give owner/name"),
        (["--repo-id", "org/a b"], "--repo-id 'org/a b': "),
        (["--create-pr", "--tag", "v1"], "merge the pull request first"),
        (["--create-pr", "--revision", "next"], "is opened on main, not on next"),
        (["--create-pr"], "there is no org/distilface to open a pull request on"),
        (["--folder", "nowhere"], "nowhere does not exist"),
        (["--tags", "v1"], "unknown option 'tags': did you mean 'tag'?"),
    ],
)
def test_a_mistake_is_one_sentence(push, hub, words, sentence):
    assert sentence in refused(push, *words)
    assert hub.writes() == []


def test_a_repository_is_as_private_as_it_was_made(push, hub):
    """The Hub keeps the visibility of a repository that is there, without a word."""
    push("--private")
    assert hub.repos.pop(("models", ID)).private
    push()
    assert "is there and is public; make it private" in refused(push, "--private")


def test_weights_of_another_training_than_run_json_tells_of(folder):
    tells = {"settings": {"dev": "sample"}, "scores": {"stsb_dev": 99.0}}
    (folder / "run.json").write_text(json.dumps(tells))
    assert "on the pairs on which its run.json says 99.00" in refusal(SCORE, publish.Folder(folder))


def write(name: str, content: str | bytes = "x"):
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return spoil


def link(folder: Path) -> None:
    (folder / "notes.txt").symlink_to("/etc/hostname")


STATES = ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin")
REFUSED = {
    **{f"{name} is a file of secrets": write(name) for name in (".env", "server.pem")},
    **{f"{name} is the state of a training": write(name) for name in STATES},
    **{f"{name} is a pickle": write(name) for name in ("pytorch_model.bin", "weights.pkl", "last.ckpt")},
    "README.md, line 9, holds the token of your login": write("README.md", f"{CARD}{TOKEN}"),
    "checkpoint-40/model.safetensors is a checkpoint": write("checkpoint-40/model.safetensors"),
    "state is an archive or a pickle, by its first bytes": write("state", b"\x80\x04K\x01."),
    "zipped is an archive or a pickle, by its first bytes": write("zipped", b"PK\x03\x04rest"),
    "modeling.py is code": write("modeling.py"),
    ".cache/x is hidden": write(".cache/x"),
    "notes.txt is a link": link,
    "notes.txt, line 1, holds a path of this machine, /home/somebody/data": write(
        "notes.txt", "in /home/somebody/data"
    ),
    "config.json, line 1, holds a path of this machine, /root/models": write(
        "config.json", '{"_name_or_path": "/root/models/x"}'
    ),
    "README.md, line 9, holds a path of this machine, /tmp/out": write("README.md", CARD + "Run with --out=/tmp/out."),
    "notes.txt, line 1, holds a path of this machine, C:\\Users\\me": write("notes.txt", "C:\\Users\\me\\data"),
    "x.dat holds a path of this machine, /home/somebody/x": write("x.dat", b"\0\0\0/home/somebody/x.py\0"),
    "config.json asks for code of its own (auto_map)": write("config.json", '{"auto_map": {"AutoModel": "a.B"}}'),
    "needs code of its own (custom.Encoder)": write(
        "modules.json", '[{"idx": 0, "name": "0", "path": "", "type": "custom.Encoder"}]'
    ),
    "onnx/model.onnx is not known to be an export of these weights": write("onnx/model.onnx"),
    "README.md has metadata that cannot be read": write("README.md", "---\na: [\n---\n"),
    "has no README.md, the model card": lambda folder: (folder / "README.md").unlink(),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_what_must_not_leave_is_refused_and_nothing_is_sent(push, hub, folder, sentence):
    REFUSED[sentence](folder)
    assert sentence in refused(push)
    assert hub.requests == []


def test_what_looks_like_it_and_is_not_is_published(push, hub, folder):
    """A link in the card, a word that begins like a token, the weights of an OpenVINO model, results for the Hub."""
    text = "https://example.org/home/me/x hf_hub_download risk-free-text-of-more-than-thirty-two-letters /homework/x"
    write("README.md", f"{CARD}{text}\n")(folder)
    write(".eval_results/sts.yaml")(folder)
    write("ir/model.xml")(folder)
    write("ir/model.bin", b"\0\1\2")(folder)
    assert {".eval_results/sts.yaml", "ir/model.bin"} <= push()["files"].keys()


def test_local_paths_of_a_record_become_names(folder):
    places = local_paths(publish.Folder(folder))
    content = {
        "a": ["/data/me/b c.txt", "../x/y.txt", 3, None],
        "b": {"c": "C:\\data\\d.tsv"},
        "e": "of /home/me/f.txt:9",
        "scores": {"/home/me/teacher": 86.7, "models/other": 80.1, "/home/you/teacher": 82.0},
    }
    expected = {"a": ["b c.txt", "../x/y.txt", 3, None], "b": {"c": "d.tsv"}, "e": "of f.txt:9"}
    expected["scores"] = {"teacher": 86.7, "models/other": 80.1, "teacher (2)": 82.0}
    assert without_places(content, places) == expected
    assert without_places(f"at {folder.parent}/z", places) == "at z"


BEFORE = f"{ID} is as it was before"
AGAIN = "at most this one commit was made; where it was made, the next run finds it: run it again"
CREATE, PREUPLOAD, BATCH, PUT, COMMIT = "repos/create", "/preupload/", "objects/batch", "PUT /lfs/", "/commit/main"
SAYS, LOG_IN = "(the Hub says: on demand)", "log in with a token that may write"
FAILURES = [
    (Fault("GET /api/models", 401), f"status 401 {SAYS}; {LOG_IN} (hf auth login)", BEFORE),
    (Fault(CREATE, 503), f"status 503 {SAYS}; run it again", BEFORE),
    (Fault(PREUPLOAD, 403), f"status 403 {SAYS}; {LOG_IN}", BEFORE),
    (Fault(PREUPLOAD, 404), "status 404", BEFORE),
    (Fault(BATCH, 500), "status 500", BEFORE),
    (Fault(PUT, 403), "status 403", BEFORE),
    (Fault(PUT), "no answer came from the Hub", BEFORE),
    (Fault(COMMIT, 403), "status 403", AGAIN),
    (Fault(COMMIT, 409), "status 409", AGAIN),
    (Fault(COMMIT, 429, {"Retry-After": "7"}), "status 429", AGAIN),
    (Fault(COMMIT, 500), "status 500", AGAIN),
    (Fault(COMMIT), "no answer came from the Hub", AGAIN),
    (Fault("validate-yaml", 502), "status 502", AGAIN),
]


@pytest.mark.parametrize(("fault", "sentence", "outcome"), FAILURES, ids=lambda value: getattr(value, "call", None))
def test_a_failure_leaves_the_repository_as_it_was(push, hub, models, fault, sentence, outcome):
    push()
    before, commits = contents(hub), len(hub.commits)
    hub.faults.append(Fault(fault.call, fault.status, fault.headers))
    message = refused(push, path=models[1])
    assert sentence in message
    assert message.endswith(outcome)
    assert (contents(hub), len(hub.commits)) == (before, commits)
    hub.faults.clear()
    push(path=models[1])
    assert holds(hub, models[1])


@pytest.mark.parametrize("fault", [Fault(PREUPLOAD, 500), Fault(BATCH, 503), Fault(PUT)], ids=lambda fault: fault.call)
def test_the_client_repeats_a_transfer(push, hub, models, waits, fault):
    push()
    hub.faults.append(Fault(fault.call, fault.status, fault.headers, times=2))
    push(path=models[1])
    assert len(hub.commits) == 2
    assert len(waits) == 2


def test_a_commit_whose_answer_is_lost_is_not_made_twice(push, hub, models):
    push()
    hub.faults.append(Fault(COMMIT, after=True))
    assert refused(push, path=models[1]).endswith(AGAIN)
    assert len(hub.commits) == 2
    hub.faults.clear()
    report = push("--tag", "v2", path=models[1])
    assert len(hub.commits) == 2, "the rerun has found it"
    assert report["commit"] == hub.repos["models", ID].sha == hub.refs["models", ID, "v2"].sha


def test_a_pull_request_whose_answer_is_lost(push, hub, models):
    push()
    hub.faults.append(Fault("create_pr=1", after=True, skip=1))
    assert "open its pull requests before you run it again" in refused(push, "--create-pr", path=models[1])
    assert len(hub.commits) == 2


def test_a_branch_that_moved_meanwhile_is_not_written_over(push, hub, models, monkeypatch):
    push()
    head = hub.repos["models", ID]
    real = publish.Publication.send

    def slow(self) -> None:
        real(self)
        folder = hub.new_folder()
        shutil.copytree(head.folder, folder, dirs_exist_ok=True)
        (folder / "theirs.txt").write_text("x")
        hub.put(type(head)(head.kind, head.id, folder, "f" * 40), "main")

    monkeypatch.setattr(publish.Publication, "send", slow)
    assert "A commit has happened since. Please refresh and try again." in refused(push, path=models[1])
    assert len(hub.commits) == 1
    assert "theirs.txt" in contents(hub)


def test_a_tag_that_fails_says_that_the_model_is_published(push, hub):
    hub.faults.append(Fault("/tag/", 403))
    assert "the model is published as" in refused(push, "--tag", "v1")
    assert WEIGHTS in contents(hub)


def test_a_first_push_that_fails_makes_nothing(push, hub, folder):
    hub.faults.append(Fault(CREATE, 403, times=1))
    assert "status 403" in refused(push)
    assert ("models", ID) not in hub.repos
    (folder / "README.md").write_text(CARD.replace("apache-2.0", "none-known"))
    assert '"license" must be one of mit' in refused(push)
    assert hub.commits == []


def test_a_wrong_login_and_offline_are_told(push, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Wrong" * 7)
    assert "status 401 (the Hub says: Invalid username or password.); log in with a token" in refused(push)
    assert os.environ["HF_TOKEN"] not in refused(push)
    monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: True)
    assert "HF_HUB_OFFLINE is set" in refused(push)
