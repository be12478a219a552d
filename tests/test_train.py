"""``fit``: exact resume, kills, the best checkpoint, what ``run.json`` and the last line say, and refusals."""

import errno
import hashlib
import json
import re
import shutil
import signal
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import (
    BATCH,
    EVAL_STEPS,
    RISING,
    SENTENCES,
    STEPS,
    each_step,
    equal,
    scores,
    stopped_at,
    train,
    tree,
)
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from tiny import tiny_model
from transformers import AutoTokenizer, DistilBertForMaskedLM, Trainer
from warm import kill_at

import distilface
from distilface.compression.student import load_student
from distilface.data.pairs import read_sts
from distilface.methods import methods, mlm, task
from distilface.model import folder as folder_module
from distilface.model.folder import Folder, load
from distilface.run import Run
from distilface.settings import InputError
from distilface.training import fitting as train_module
from distilface.training.checkpoints import last_whole
from distilface.training.evaluators import DevEvaluator
from distilface.training.trainer import LOSS_STATE, EncoderTrainer
from distilface.training.verdict import Measure, finish, verdict_lines

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
SAME = ("loss", "curve", "steps", "best_step", "scores", "data", "verdict", "parameters", "loss_settings")
SAME += ("generations", "agreement", "compression")  # of the methods that have some


@pytest.fixture(scope="module")
def reference(materials, tmp_path_factory):
    """Give the folder and the record of a run that was never stopped; each is made once."""
    runs: dict[Any, tuple[Path, dict[str, Any]]] = {}

    def run(kind: str, *more: str) -> tuple[Path, dict[str, Any]]:
        if (kind, more) not in runs:
            output = tmp_path_factory.mktemp("reference") / "model"
            with scores():
                runs[kind, more] = (output, train(kind, materials.words(kind, output, *more)))
        return runs[kind, more]

    return run


@pytest.fixture
def old(tmp_path) -> dict[str, bytes | None]:
    """Save another model in the place of the output; give all that it holds."""
    tiny_model(tmp_path / "model", seed=3)
    return tree(tmp_path / "model")


@pytest.mark.parametrize(
    ("kind", "stops", "more"),
    [
        ("simcse", [5], []),
        pytest.param("simcse", [4], [], marks=pytest.mark.slow),
        pytest.param("simcse", [6], ["--bf16", "yes"], marks=pytest.mark.slow),
        pytest.param("simcse with a head", [1, 2, 7], [], marks=pytest.mark.slow),
        pytest.param("codir with a queue", [5], [], marks=pytest.mark.slow),
        ("embedding on the grid", [5], []),
        ("online", [3], []),  # in the step of a switch
        # before a switch, right after it, past the last
        *(pytest.param("online", [stop], [], marks=pytest.mark.slow) for stop in (2, 4, 8)),
        pytest.param("distillcse", [5], [], marks=pytest.mark.slow),
        pytest.param("distillcse, then online", [5], [], marks=pytest.mark.slow),
        *((name, [5], []) for name in sorted(set(methods()) - {"simcse", "online", "multistage"})),
    ],
)
def test_a_resumed_run_is_the_one_that_never_stopped(kind, stops, more, materials, reference, tmp_path, monkeypatch):
    """Stops between two scores, at the end of an epoch, at a score; weights and history are equal to the bit."""
    uninterrupted, expected = reference(kind, *more)
    assert expected["best_step"] == STEPS, "an earlier checkpoint would hide what comes after it"
    output = tmp_path / "model"
    words = materials.words(kind, output, *more)
    monkeypatch.setattr(sys, "argv", ["training/train.py", "--output_dir", "my model"])
    for stop in stops:
        with scores(), stopped_at(stop) as stopped:
            train(kind, words if stop == stops[0] else [*words, "--resume"])
        assert str(stopped.value) == (
            f"saved at step {stop} of {STEPS}; go on with: python training/train.py --output_dir 'my model' --resume"
        )
        assert not output.exists()
    if "generations" in expected:
        kept = load_file(last_whole(tmp_path / "model.unfinished") / LOSS_STATE)
        assert kept["step"].item() == stop
        assert kept["generation"].item() == (0 if kind == "distillcse" else min(stop // EVAL_STEPS, 2))
    steps: list[int] = []
    with scores(), each_step(lambda step, _: steps.append(step)):
        run = train(kind, [*words, "--resume"])
    assert steps == list(range(stop + 1, STEPS + 1))
    assert equal(output, uninterrupted)
    assert {key: run.get(key) for key in SAME} == {key: expected.get(key) for key in SAME}
    assert [step for step, _ in run["loss"]] == [3, 6, 9]
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_a_resume_that_forgot_a_part_of_the_loss_would_show(materials, reference, tmp_path, monkeypatch):
    """So that the test above sees each of them."""
    output, work, kept = (tmp_path / name for name in ("model", "model.unfinished", "kept"))
    words = materials.words("online", output)
    with scores(), stopped_at(4):
        train("online", words)
    work.rename(kept)
    for forgotten in ("past", "step", "generation"):
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(kept, work)

        def forgetful(file, forgotten=forgotten):
            return {name: t * 0 if name.split(".")[0] == forgotten else t for name, t in load_file(file).items()}

        monkeypatch.setattr("distilface.training.trainer.load_file", forgetful)
        with scores():
            train("online", [*words, "--resume"])
        assert not equal(output, reference("online")[0]), forgotten


@pytest.mark.parametrize("kind", ["simcse with a head", "mlm"])
def test_a_seed_decides_the_weights(kind, materials, reference, tmp_path):
    """Whatever the process did before: a head that is made before the seed is set would differ each time."""
    torch.manual_seed(123)
    torch.rand(7)
    with scores():
        train(kind, materials.words(kind, tmp_path / "same"))
        train(kind, materials.words(kind, tmp_path / "other", "--seed", "43"))
    assert equal(tmp_path / "same", reference(kind)[0])
    assert not equal(tmp_path / "other", tmp_path / "same")


MOMENTS = [
    # where the process is killed, at which call, and what the next one goes on from
    ("distilface.training.checkpoints.WholeCheckpoints.training_step", 2, None),
    ("distilface.training.checkpoints.WholeCheckpoints.training_step", 5, None),
    ("distilface.training.trainer.EncoderTrainer._save_optimizer_and_scheduler", 1, 3),
    ("distilface.training.checkpoints.mark_whole", 1, 3),
    ("distilface.training.checkpoints.rotate_checkpoints", 2, 3),
    ("distilface.model.folder.card", 1, 9),
    ("distilface.training.verdict.put_in_place", 1, 10),
]


def test_a_run_killed_at_any_moment_goes_on(warm, materials, old, tmp_path):
    """One run, killed again and again, ends with the weights of one that never was; the old folder stays till then."""
    output, unbroken = tmp_path / "model", tmp_path / "unbroken"
    kind = "simcse with a head"
    assert warm("train_unsup.py", *materials.words(kind, unbroken), cwd=tmp_path, before=RISING).code == 0
    words = materials.words(kind, output, "--overwrite")
    for where, call, begins in MOMENTS:
        resume = ["--resume"] if begins else []
        done = warm("train_unsup.py", *words, *resume, cwd=tmp_path, before=RISING + kill_at(where, call))
        assert done.code == -9, (where, done.stderr)
        assert ("going on from" in done.stderr) == bool(begins)
        assert f"checkpoint-{begins}\n" in done.stderr or not begins, (where, done.stderr)
        assert tree(output) == old
    done = warm("train_unsup.py", *words, "--resume", cwd=tmp_path, before=RISING)
    assert (done.code, "checkpoint-10\n" in done.stderr) == (0, True)
    assert equal(output, unbroken)
    ours, theirs = (json.loads((f / "run.json").read_text()) for f in (output, unbroken))
    assert {key: ours.get(key) for key in SAME} == {key: theirs.get(key) for key in SAME}
    assert sorted(f.name for f in tmp_path.iterdir()) == ["model", "unbroken"]


def test_nothing_whole_cannot_be_resumed_and_is_begun_anew(warm, materials, tmp_path):
    output = tmp_path / "model"
    words = materials.words("simcse", output)
    before = kill_at("distilface.training.checkpoints.mark_whole")
    assert warm("train_unsup.py", *words, cwd=tmp_path, before=before).code == -9
    assert (tmp_path / "model.unfinished" / "checkpoint-3" / "model.safetensors").exists()
    with pytest.raises(InputError, match=r"nothing to resume: .*model\.unfinished holds no whole checkpoint; start w"):
        train("simcse", [*words, "--resume"])
    assert train("simcse", words)["steps"] == STEPS
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


def test_the_best_checkpoint_is_written_and_scored_from_disk(materials, tmp_path, monkeypatch):
    """Scores go up, then down. The folder must hold the weights of the top, and its score be read off the disk."""
    scores, seen, models = iter([10.0, 30.0, 90.0, 40.0, 20.0]), {}, []

    def score(self, model, *arguments, **options):
        key = weights_hash(model)
        if key not in seen:
            seen[key] = next(scores, -1.0)
        models.append(model)
        return {"spearman": seen[key], "mean_cosine": 0.0}

    monkeypatch.setattr(DevEvaluator, "__call__", score)
    run = train("simcse", materials.words("simcse", tmp_path / "model"))
    assert run["curve"] == [[3, 30.0], [6, 90.0], [9, 40.0], [10, 20.0]]
    assert run["best_step"] == 6
    assert run["scores"]["stsb_dev"] == 90.0
    assert seen[weights_hash(load(tmp_path / "model"))] == 90.0
    assert models[-1] is not models[0]
    assert models[-2] is models[0]


def weights_hash(model) -> str:
    state = sorted(model.state_dict().items())
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for _, tensor in state)).hexdigest()


def test_the_score_is_of_what_was_written(materials, tmp_path, monkeypatch):
    """A folder that does not hold what was trained must not get the score of what was."""
    write = train_module.save_folder

    def write_another(model, folder, **options):
        write(tiny_model(tmp_path / "another", seed=9), folder, **options)

    monkeypatch.setattr(train_module, "save_folder", write_another)
    run = train("simcse", materials.words("simcse", tmp_path / "model"))
    evaluator = DevEvaluator(read_sts(str(materials.pairs)))
    assert run["scores"]["stsb_dev"] == evaluator(load(tmp_path / "another"))["spearman"]
    assert run["scores"]["stsb_dev"] not in [score for _, score in run["curve"]]


def test_what_run_json_says(materials, tmp_path, capsys):
    output = tmp_path / "model"
    run = train("embedding", materials.words("embedding", output, "--seed", "7", "--eval_steps", "4"))
    assert json.loads((output / "run.json").read_text()) == run == Folder(output).run.as_dict()
    assert run["version"] == 1
    assert [(source["role"], source["name"], source["hub"]) for source in run["sources"]] == [
        ("backbone", str(materials.backbone), False),
        ("teacher", str(materials.teacher), False),
        ("data", str(materials.text), False),
        ("dev", str(materials.pairs), False),
    ]
    settings = run["settings"]
    assert settings["learning_rate"] == 1e-3
    assert (settings["metric"], settings["train_max_length"], settings["epochs"]) == ("mse", 64, 1.0)
    assert "resume" not in settings
    assert (run["seed"], run["method"], run["teacher"]) == (7, "embedding", str(materials.teacher))
    assert run["versions"]["distilface"] == distilface.__version__
    assert run["versions"]["torch"] == torch.__version__
    text = materials.text.read_text()
    source, texts, dev = run["data"]
    assert source == {"source": str(materials.text)}
    assert texts == {"rows": SENTENCES, "sha256": hashlib.sha256(text.encode()).hexdigest()[:16]}
    assert (dev["dev"], dev["rows"]) == (str(materials.pairs), 10)
    assert run["parameters"] == sum(t.numel() for t in load_file(output / "model.safetensors").values())
    assert 0 < run["train_seconds"] < 600
    assert [step for step, _ in run["curve"]] == [4, 8, 10]
    assert run["scores"]["stsb_dev"] == pytest.approx(max(score for _, score in run["curve"]), abs=0.01)
    pairs = read_sts(str(materials.pairs))
    teacher = SentenceTransformer(str(materials.teacher), device="cpu")
    for role, model in (("baseline", load_student(str(materials.backbone))), ("teacher", teacher)):
        expected = DevEvaluator(pairs)(model)["spearman"]
        assert run["scores"][f"{role}_stsb_dev"] == pytest.approx(expected, abs=0.01)
    assert_last_line(capsys.readouterr().out.splitlines(), run, "stsb_dev")


def assert_last_line(messages: list[str], run: dict[str, Any], name: str, sign: int = 1) -> None:
    """The last line is the verdict, with the numbers of the record."""
    line = re.fullmatch(
        r"VERDICT: (WIN|MARGINAL|REGRESSION) score=(\S+) baseline=(\S+) teacher=(\S+) delta=([+-]\S+)",
        messages[-1],
    )
    assert line, messages
    verdict, score, baseline, teacher, delta = line.groups()
    scores = run["scores"]
    assert verdict == run["verdict"]
    assert (score, baseline) == (f"{scores[name]:.2f}", f"{scores[f'baseline_{name}']:.2f}")
    known = scores[f"teacher_{name}"]
    assert teacher == ("none" if known is None else f"{known:.2f}")
    assert float(delta) == pytest.approx(sign * (scores[name] - scores[f"baseline_{name}"]), abs=0.006)


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(5.0, "WIN"), (1.0, "WIN"), (0.99, "MARGINAL"), (0.01, "MARGINAL"), (0.0, "REGRESSION"), (-3.0, "REGRESSION")],
)
def test_the_verdict(gain, verdict, tmp_path):
    """The numbers of a real training are held against its last line above."""
    measure = Measure("dev", lambda _: 64.0 + gain, lambda _, folder: folder.mkdir(parents=True), load=str, key="")
    run = Run.from_dict({"scores": {"baseline_dev": 64.0, "teacher_dev": None}, "parameters": 1})
    content = finish(None, measure, tmp_path / "work" / "folder", tmp_path / "model", run, overwrite=False)
    assert (content["verdict"], content["gain"]) == (verdict, pytest.approx(gain))
    line = verdict_lines(Run.from_dict(content), tmp_path / "model")[-1]
    assert line == f"VERDICT: {verdict} score={64 + gain:.2f} baseline=64.00 teacher=none delta={gain:+.2f}"


def test_masked_lm_is_measured_by_a_loss_that_must_fall(materials, tmp_path, capsys):
    """And an epoch is shuffled anew, and the written backbone is the best one, head included."""
    output, batches = tmp_path / "model", []
    with each_step(lambda step, inputs: batches.append(inputs["attention_mask"].sum(1).tolist())):
        run = train("mlm", materials.words("mlm", output, "--eval_steps", "2", "--learning_rate", "3e-3"))
    scores = run["scores"]
    assert scores["held_out_loss"] == pytest.approx(min(loss for _, loss in run["curve"]), abs=1e-4)
    assert scores["held_out_loss"] < scores["baseline_held_out_loss"] - 0.1
    assert run["verdict"] == "WIN"
    assert_last_line(capsys.readouterr().out.splitlines(), run, "held_out_loss", sign=-1)
    first, second = batches[:3], batches[3:6]
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))
    model = DistilBertForMaskedLM.from_pretrained(output)
    assert model.config.architectures == ["DistilBertForMaskedLM"]
    assert torch.equal(model.vocab_projector.weight, model.distilbert.embeddings.word_embeddings.weight)


@pytest.mark.parametrize("kind", ["simcse", "embedding", "mlm"])
def test_the_length_of_the_training_is_not_the_models(kind, materials, tmp_path):
    """It would be saved as the tokenizer's own: every long text a user gives would be cut, without a word."""
    widths: list[int] = []

    def note(step, inputs):
        widths.extend(value.shape[1] for name, value in inputs.items() if name.endswith("input_ids"))

    with each_step(note):
        train(kind, materials.words(kind, tmp_path / "model", "--train_max_length", "8"))
    assert max(widths) == 8
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.model_max_length == 64
    long = "the dog runs and " * 30
    assert len(tokenizer(long, truncation=True)["input_ids"]) == 64
    if kind == "mlm":
        model = load_student(str(tmp_path / "model"))
    else:
        model = load(tmp_path / "model")
        assert json.loads((tmp_path / "model" / "sentence_bert_config.json").read_text())["max_seq_length"] == 64
    assert model.max_seq_length == 64
    assert model.preprocess([long])["input_ids"].shape == (1, 64)


def test_the_cost_is_reported_first_and_the_folder_has_its_name(materials, tmp_path, caplog):
    said: list[str] = []
    words = materials.words("simcse", tmp_path / "small-and-good", "--steps", "-1", "--epochs", "1.5")
    with each_step(lambda step, _: said.append("\n".join(caplog.messages)) if step == 1 else None):
        train("simcse", words)
    assert f"; {SENTENCES} sentences, 6 steps of {BATCH}" in said[0]
    assert re.search(r"^baseline: stsb_dev -?\d+\.\d\d; ", said[0], re.MULTILINE)
    assert len(said) == 1
    assert "# small-and-good\n" in (tmp_path / "small-and-good" / "README.md").read_text()


FULL = [
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
]


def test_a_full_disk_while_a_checkpoint_is_written(materials, old, reference, tmp_path, monkeypatch):
    """Each library reports it in its own words; the run goes on from the checkpoint before."""
    output = tmp_path / "model"
    words = materials.words("simcse", output, "--overwrite")
    for call, error in zip((2, 1, 1), FULL, strict=True):
        with scores(), monkeypatch.context() as patch:
            if isinstance(error, RuntimeError):
                full = shutil._ntuple_diskusage(10**9, 10**9 - 4096, 4096)
                patch.setattr(shutil, "disk_usage", lambda path, full=full: full)
            patch.setattr(EncoderTrainer, "_save_optimizer_and_scheduler", failing_from(call, error))
            with pytest.raises(InputError) as refused:
                train("simcse", words)
        assert str(refused.value) == (
            "the disk is full: the checkpoint of step 6 cannot be written; free some space and go on with --resume"
        )
        assert tree(output) == old
        assert [f.name for f in (tmp_path / "model.unfinished").glob("checkpoint-*")] == ["checkpoint-3"]
        words = [*words, "--resume"]
    with scores():
        train("simcse", words)
    assert equal(output, reference("simcse")[0])


def failing_from(call: int, error: Exception) -> Any:
    calls: list[int] = []
    real = EncoderTrainer._save_optimizer_and_scheduler

    def fail(self, folder):
        calls.append(1)
        if len(calls) >= call:
            raise error
        return real(self, folder)

    return fail


def test_another_failure_of_a_write_keeps_its_traceback(materials, tmp_path, monkeypatch):
    monkeypatch.setattr(EncoderTrainer, "_save_optimizer_and_scheduler", failing_from(1, RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        train("simcse", materials.words("simcse", tmp_path / "model"))
    assert last_whole(tmp_path / "model.unfinished") is None


@pytest.mark.parametrize("kind", ["simcse", "mlm"])
def test_a_full_disk_while_the_folder_is_written(kind, materials, old, reference, tmp_path, monkeypatch):
    """Hours of training must not be lost with it: the last checkpoint is resumed, and makes no other step."""
    output = tmp_path / "model"
    words = materials.words(kind, output, "--overwrite")
    with scores(), monkeypatch.context() as patch:
        owner, name = (folder_module, "card") if kind == "simcse" else (mlm.MaskedLM, "save_pretrained")
        real = getattr(owner, name)

        def full(*arguments, **options):
            if kind == "simcse" or "folder" in str(arguments[1]):
                raise FULL[0]
            return real(*arguments, **options)

        patch.setattr(owner, name, full)
        with pytest.raises(InputError) as refused:
            train(kind, words)
    assert str(refused.value) == (
        f"the disk is full: the model folder {output} cannot be written; free some space and go on with --resume"
    )
    assert tree(output) == old
    assert not any(f.name == "folder" or f.suffix == ".tmp" for f in tmp_path.rglob("*"))
    with scores(), each_step(lambda step, _: pytest.fail(f"step {step}")):
        run = train(kind, [*words, "--resume"])
    assert equal(output, reference(kind)[0])
    assert run["curve"] == reference(kind)[1]["curve"]


def test_an_unfinished_run_is_neither_dropped_nor_changed(materials, tmp_path, monkeypatch):
    unfinished = materials.words("embedding", tmp_path / "model")
    with stopped_at(4):
        train("embedding", unfinished)
    before = tree(tmp_path)
    other = tmp_path.parent / "other.txt"
    other.write_text("one sentence\nanother sentence\n")
    cases = [
        ([], r"model\.unfinished holds an unfinished run; go on with --resume, or add --overwrite to drop it"),
        (
            ["--resume", "--learning_rate", "0.5"],
            r"changed settings: learning_rate was 0\.001 and is 0\.5; set it back, or start over with --overwrite",
        ),
        (["--resume", "--teacher", "somebody/else"], rf"teacher was '{materials.teacher}' and is 'somebody/else'"),
        (["--resume", "--layers", "1"], r"layers was None and is \[1\]"),
        (["--resume", "--data", str(other)], "data was"),
    ]
    with monkeypatch.context() as patch:  # whatever a key costs to use, it is looked at first
        patch.setattr(task, "load_teacher", lambda *a: pytest.fail("loaded"))
        for more, sentence in cases:
            with pytest.raises(InputError, match=sentence):
                train("embedding", [*unfinished, *more])
    assert tree(tmp_path) == before
    text = materials.text.read_text()
    try:
        materials.text.write_text(text + "one more sentence\n")
        with pytest.raises(InputError, match=r"data was .*'rows': 28.* and is .*'rows': 29"):
            train("embedding", [*unfinished, "--resume"])
    finally:
        materials.text.write_text(text)
    assert tree(tmp_path) == before
    assert train("embedding", [*unfinished, "--overwrite", "--learning_rate", "0.002"])["steps"] == STEPS


def test_a_run_of_an_older_version_goes_on(materials, reference, tmp_path):
    """It does not know a setting that came later: at its default that changes nothing, otherwise the run."""
    output = tmp_path / "model"
    unfinished = materials.words("embedding", output)
    with scores(), stopped_at(4):
        train("embedding", unfinished)
    file = tmp_path / "model.unfinished" / "run.json"
    begun = json.loads(file.read_text())
    del begun["settings"]["relation_weight"], begun["settings"]["relation_temperature"]
    file.write_text(json.dumps(begun))
    with pytest.raises(InputError, match=r"relation_temperature was None and is 0\.1"):
        train("embedding", [*unfinished, "--resume", "--relation_temperature", "0.1"])
    with scores():
        train("embedding", [*unfinished, "--resume"])
    assert equal(output, reference("embedding")[0])


@pytest.mark.usefixtures("old")
def test_an_overwrite_is_kept_in_the_words_to_go_on(materials, tmp_path, monkeypatch):
    """Without it they would be refused, for the old folder is still there."""
    words = materials.words("simcse", tmp_path / "model", "--overwrite", "true", "--steps", "5")
    monkeypatch.setattr(sys, "argv", ["t.py", *words])
    with stopped_at(2) as stopped:
        train("simcse", words)
    said = str(stopped.value).partition("python ")[2].split()
    assert said == ["t.py", *words, "--resume"]
    monkeypatch.setattr(sys, "argv", said)
    with stopped_at(4) as stopped:
        train("simcse", said[1:])
    assert str(stopped.value).partition("python ")[2].split() == said
    assert train("simcse", said[1:])["steps"] == 5


def test_what_cannot_be_written_is_refused_before_the_training(materials, tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("kept")
    (tmp_path / "file").write_text("kept")
    before = tree(tmp_path)
    cases = [
        (["notes"], "notes is not empty; name another --output-dir, or add --overwrite"),
        (["notes", "--overwrite"], "notes is not empty and no model, so it is not replaced"),
        (["file"], "file is a file; name a folder"),
        (["file", "--overwrite"], "file is a file; name a folder"),
        (["file/under/it"], "file cannot be written to; name a folder elsewhere"),
        (["notes/.."], "has no name of its own"),
        (["new", "--resume"], "nothing to resume"),
    ]
    with each_step(lambda *_: pytest.fail("it trained")):
        for (name, *more), sentence in cases:
            with pytest.raises(InputError, match=sentence):
                train("simcse", materials.words("simcse", tmp_path / name, *more))
        monkeypatch.setattr("os.access", lambda path, mode: False)
        with pytest.raises(InputError, match="cannot be written to"):
            train("simcse", materials.words("simcse", tmp_path / "new"))
    assert tree(tmp_path) == before


def test_the_work_folder_always_holds_a_whole_checkpoint(materials, tmp_path):
    """At every moment of a run: the output is not there, and a whole checkpoint is, from the first one on.

    A stop in the last step is not a stop.
    """
    seen: list[tuple[bool, str | None]] = []
    work = tmp_path / "model.unfinished"

    def look(step, _):
        whole = last_whole(work)
        seen.append(((tmp_path / "model").exists(), whole and whole.name))
        if step == STEPS:
            signal.raise_signal(signal.SIGINT)

    with each_step(look):
        assert train("simcse", materials.words("simcse", tmp_path / "model"))["steps"] == STEPS
    assert not any(there for there, _ in seen)
    names = [None] * EVAL_STEPS + [f"checkpoint-{n}" for n in (3, 3, 3, 6, 6, 6, 9)]
    assert [name for _, name in seen] == names


def test_the_time_before_a_stop_counts(materials, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("distilface.training.checkpoints.time.monotonic", lambda: clock[0])

    def tick(step, _):
        clock[0] += 10.0

    words = materials.words("simcse", tmp_path / "model", "--steps", "4")
    with each_step(tick), stopped_at(2):
        train("simcse", words)
    clock[0] += 1000.0
    with each_step(tick):
        run = train("simcse", [*words, "--resume"])
    assert run["train_seconds"] == 40.0


@pytest.mark.parametrize(("kind", "trainer"), [("simcse", EncoderTrainer), ("mlm", Trainer)])
def test_a_best_checkpoint_that_cannot_be_loaded_ends_the_run(kind, trainer, materials, tmp_path, monkeypatch):
    """Upstream logs it and goes on with the last weights, under the score of the best."""

    def lost(self, *arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(trainer, "_load_from_checkpoint", lost)
    with pytest.raises(OSError, match="Input/output error"):
        train(kind, materials.words(kind, tmp_path / "model"))
    assert not (tmp_path / "model").exists()
