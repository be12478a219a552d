"""The trainings as a user runs them: in small, with --help, with the shipped recipes, and by mistake."""

import inspect
import json
import re
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from forks import run_script
from hub import Hub
from runs import VARIANTS, Materials, tree
from tiny import write_content, write_pairs
from transformers import AutoModel
from warm import TRAINING

from distilface import cli
from distilface.compression.layers import cut_layers
from distilface.compression.student import load_backbone
from distilface.console import run_command
from distilface.methods import find_method, methods
from distilface.model.folder import Folder, load
from distilface.settings import parse

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
#: The scripts that users name, and the method that each trains by.
SCRIPTS = {
    "train_unsup": "simcse",
    "train_mlm": "mlm",
    "train_distill": "embedding",
    "train_codir": "codir",
    "train_online": "online",
    "train_multistage": "multistage",
}
NAMES = list(methods())
RECIPES = sorted((TRAINING.parent / "distilface" / "recipes").glob("*.yaml"))
PAPER = {
    "backbone": "distilbert/distilbert-base-uncased",
    "data": ["princeton-nlp/datasets-for-simcse"],
    "pooling": "last4",
    "batch_size": 128,
    "learning_rate": 1e-5,
    "steps": 20000,
    "scheduler": "linear",
    "warmup": 0.0,
    "weight_decay": 0.0,
    "train_max_length": 32,
    "scale": 20.0,
    "mlp_head": False,
    "seed": 42,
    "dropout": None,
    "layers": None,
    "max_seq_length": None,
    "max_sentences": None,
}


def two_steps(name: str, materials: Materials) -> list[str]:
    """Give what a script is asked for, but for where to: two steps on a file, in the current folder."""
    own = {
        "simcse": ["--pooling", "mean"],
        "online": ["--teachers", materials.teacher],
        "multistage": [
            *("--teacher", materials.backbone, "--vocabulary", "150", "--held_out", "2"),
            *("--keep_layers", "2", "--embedding_size", "8"),
        ],
    }
    data = materials.parallel if name == "multistage" else materials.text
    last = ["--data", data, "--dev", "sample", "--steps", "2", "--batch_size", "8"]
    return [str(word) for word in (*materials.options(name), *own.get(name, []), *last)]


@pytest.mark.parametrize("name", NAMES)
def test_two_steps(name, materials, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    default = find_method(name).Settings().output_dir
    run = cli.run(["train", name, *two_steps(name, materials)])
    assert json.loads((tmp_path / default / "run.json").read_text()) == run
    assert run["steps"] == 2
    assert len(run["curve"]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"VERDICT: {run['verdict']} ")
    assert printed[-2].startswith(f"folder: {default} (")
    if name == "mlm":
        assert AutoModel.from_pretrained(tmp_path / default).config.dim == 32
    else:
        assert Folder(tmp_path / default).is_valid()
        assert run["data"][-1]["rows"] == 180
        widened = any("Dense" in kind for kind, _ in Folder(tmp_path / default).modules)
        assert load(tmp_path / default).encode("a dog").shape == (48 if widened else 32,)
    beside = [Path(default).name, *([f"{Path(default).name}.stages"] if name == "multistage" else [])]
    assert sorted(f.name for f in (tmp_path / default).parent.iterdir()) == beside


@pytest.mark.parametrize("name", NAMES)
def test_help_explains_each_setting(name, capsys):
    with pytest.raises(SystemExit) as leave:
        cli.run(["train", name, "--help"])
    assert leave.value.code == 0
    shown = capsys.readouterr().out
    method = find_method(name)
    assert inspect.getdoc(method).splitlines()[0] in shown.split("options:")[0]
    assert len(shown.partition("options:")[0].split("] [-")[-1].splitlines()) < 40, "a screen before the settings"
    shown = " ".join(shown.split())
    for field in fields(method.Settings):
        assert f"--{field.name} " in shown
        assert " ".join(field.metadata["help"].replace("%%", "%").split()) in shown, field.name


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_its_method(script, warm, tmp_path):
    """Users run the scripts by name; each is the verb with its method."""
    done = warm(f"{script}.py", "--help", cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "")
    assert inspect.getdoc(find_method(SCRIPTS[script])).splitlines()[0] in done.stdout
    assert find_method(script.removeprefix("train_")).name == SCRIPTS[script]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_in_a_methods_help_run(name):
    """Each names only options and recipes that there are."""
    commands = re.findall(r"^ *distilface train (\w+) ?(.*)$", find_method(name).__doc__, re.MULTILINE)
    assert commands
    for other, words in commands:
        places = {"TEXT.txt": "text.txt", "ID_OR_FOLDER": "a/b", "DIR": "dir"}
        parse(find_method(other).Settings, [places.get(word, word) for word in words.split()], "")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda file: file.stem)
def test_each_recipe_is_read_by_its_method(recipe):
    """A method's help says what it is for; each value has its place, and each setting gets its value."""
    command = re.compile(rf"distilface train (\w+) --config {recipe.stem}(?![\w-])")
    helps = [command.search(method.__doc__) for method in methods().values()]
    named = [find_method(match[1]) for match in helps if match]
    if recipe.stem == "distilface":
        named = [find_method("simcse")]
    assert named, f"no method says what {recipe.name} is for"
    settings = parse(named[0].Settings, ["--config", recipe.stem], "")
    for key, value in yaml.safe_load(recipe.read_text()).items():
        assert getattr(settings, key) == value, key
    assert settings.output_dir != named[0].Settings().output_dir or recipe.stem == "distilface"


def test_the_papers_recipe_is_the_papers():
    settings = parse(find_method("simcse").Settings, [], "")
    assert {key: getattr(settings, key) for key in PAPER} == PAPER


def test_with_no_arguments_it_is_the_papers_recipe_on_the_hub(hub: Hub, materials, tmp_path):
    """``python training/train_unsup.py`` as it is written, but for the length: six layers, its data, its dev set."""
    encoder, tokenizer = load_backbone(str(materials.backbone))
    cut_layers(encoder, [0, 1, 0, 1, 0, 1]).save_pretrained(tmp_path / "distilbert")
    tokenizer.save_pretrained(tmp_path / "distilbert")
    write_content(tmp_path / "texts" / "wiki1m_for_simcse.txt", materials.text.read_text())
    write_pairs(tmp_path / "sts" / "validation.jsonl")
    hub.add_model("distilbert/distilbert-base-uncased", tmp_path / "distilbert")
    hub.add_dataset("princeton-nlp/datasets-for-simcse", tmp_path / "texts")
    hub.add_dataset("mteb/stsbenchmark-sts", tmp_path / "sts")
    (tmp_path / "here").mkdir()
    env = hub.env(tmp_path / "cache")
    done = run_script(TRAINING / "train_unsup.py", "--steps", "2", env=env, cwd=tmp_path / "here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("VERDICT: ")
    output = tmp_path / "here" / "models" / "distilface"
    run = json.loads((output / "run.json").read_text())
    assert run["settings"] == {**run["settings"], **PAPER, "steps": 2, "dev": "mteb/stsbenchmark-sts"}
    assert [part.get("rows") for part in run["data"]] == [None, 28, 10]
    assert load(output)[1].num_hidden_layers == 6


MISTAKES = {
    "an unknown option": (["--learning_rat", "1"], "unknown option 'learning_rat': did you mean 'learning_rate'?"),
    "an unknown key": (["--config", "RECIPE"], "unknown setting in RECIPE: 'batchsize': did you mean 'batch_size'?"),
    "a missing recipe": (
        ["--config", "none.yaml"],
        "recipe none.yaml does not exist; the shipped ones are distilface, ",
    ),
    "a word for a number": (["--steps", "many"], "argument --steps: invalid int value: 'many' (see --help)"),
    "a number out of range": (["--batch_size", "0"], "--batch_size 0 is out of range; it must be above 0"),
    "no steps": (["--steps", "0", "--epochs", "0"], "--epochs 0.0 with --steps 0 trains nothing; raise one"),
    "a warm-up in steps": (["--warmup", "100"], "--warmup 100.0 is out of range; it is a share of the steps"),
    "a negative seed": (["--seed", "-1"], "--seed -1 is out of range; it must be from 0 to 4294967295"),
    "a negative decay": (["--weight_decay", "-1"], "--weight_decay -1.0 is out of range"),
    "an unknown schedule": (["--scheduler", "linaer"], "unknown scheduler 'linaer': did you mean 'linear'?"),
    "an unknown precision": (["--bf16", "maybe"], "--bf16 'maybe' must be auto, yes or no"),
    "nothing to resume": (["--resume"], "nothing to resume: "),
    "a folder that is not empty": (["--output_dir", "."], "--output-dir . has no name of its own"),
    "a place that is a file": (["--output_dir", "RECIPE/model"], "RECIPE cannot be written to"),
}


def refused(capsys: pytest.CaptureFixture[str], name: str, *words: str) -> str:
    """Run ``distilface train`` as a user does, who made a mistake; give what stands on stderr."""
    with pytest.raises(SystemExit) as leave:
        run_command(lambda: cli.run(["train", name, *words]))
    printed = capsys.readouterr()
    assert (leave.value.code, printed.out) == (2, "")
    return printed.err


@pytest.mark.parametrize("name", NAMES)
def test_each_method_refuses_a_mistake_first(name, materials, tmp_path, monkeypatch, capsys):
    """A method that forgot the common checks would fail in the middle of its work.

    Each is found before anything is read: the line is alone on stderr, and nothing is written.
    """
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text("batchsize: 8\n")
    before = tree(tmp_path)
    for words, sentence in MISTAKES.values():
        words = [word.replace("RECIPE", "recipe.yaml") for word in words]
        said = refused(capsys, name, *two_steps(name, materials), *words)
        assert re.fullmatch(r"error: [^\n]+\n", said), said
        assert sentence.replace("RECIPE", "recipe.yaml") in said
        assert tree(tmp_path) == before


def test_a_mistake_ends_the_process_in_one_line(warm, materials, tmp_path):
    words, sentence = MISTAKES["an unknown option"]
    done = warm("train_unsup.py", *two_steps("simcse", materials), *words, cwd=tmp_path)
    assert (done.code, done.stdout, done.stderr) == (2, "", f"error: {sentence}\n")
    assert not any(tmp_path.iterdir())


RELATED = ["--relation_weight", "1", "--metric", "cosine"]
READ = [
    ("embedding", ["--projection", "false", "--backbone", "BACKBONE"], "have 48 dimensions and the student's 32"),
    ("embedding", ["--layers", "0", "7"], "layer 7 is out of range; the encoder has layers 0 to 1"),
    ("simcse", ["--layers", "2"], "layer 2 is out of range; the encoder has layers 0 to 1"),
    ("mlm", ["--layers", "-1"], "layer -1 is out of range; the encoder has layers 0 to 1"),
    ("embedding", ["--teacher", "empty"], "empty cannot be loaded as a model"),
    ("simcse", ["--backbone", "empty"], "empty cannot be loaded as a model"),
    ("mlm", ["--backbone", "./gone"], "./gone is neither a folder nor a Hub id"),
    ("embedding", ["--metric", "cosin"], "unknown metric 'cosin': did you mean 'cosine'?"),
    ("embedding", ["--normalize", "on"], "unknown value of --normalize 'on'"),
    ("embedding", ["--relation_weight", "-1"], "--relation_weight -1.0 is out of range; it must be 0 or more"),
    ("embedding", [*RELATED, "--relation_bank", "-1"], "--relation_bank -1 is out of range; it must be 0 or more"),
    ("embedding", [*RELATED, "--relation_temperature", "0"], "0.0 is out of range; it must be above 0"),
    ("embedding", ["--relation_weight", "1"], "--metric mse leaves the distance without effect.* add --metric cosine"),
    ("embedding", [*RELATED, "--batch_size", "2"], "2 is too small .* give 3 or more"),
    ("codir", ["--base", "simces"], "unknown base 'simces': did you mean 'simcse'?"),
    ("codir", ["--objective", "info"], "unknown objective 'info': did you mean 'infonce'?"),
    ("codir", ["--negatives", "0"], "--negatives 0 is out of range; it must be 1 or more"),
    ("codir", ["--momentum", "1"], "--momentum 1.0 is out of range; it must be from 0 to below 1"),
    ("codir", ["--queue", "1"], "--queue 1 is too short to draw from; it must be 2 or more"),
    ("codir", ["--queue", "9", "--positive", "bank"], "--queue and --positive exclude each other; leave"),
    ("codir", ["--student_layers", "3"], "layer 3 of the student is out of range; it has 1 to 2"),
    ("codir", ["--teacher_layers", "-1"], "layer -1 of the teacher is out of range; it has 1 to 2"),
    ("codir", ["--base", "simcse", "--dropout", "0"], "the student has no dropout"),
    ("simcse", ["--pooling", "men"], "unknown pooling 'men': did you mean 'mean'?"),
    ("simcse", ["--pooling", "last4"], "pooling 'last4' needs 4 layers or more and this encoder has 2"),
    ("simcse", ["--dropout", "0"], "the student has no dropout, so the two views of a sentence are equal"),
    ("simcse", ["--max_seq_length", "65"], "max_seq_length 65 is out of range; the encoder has 64 positions"),
    ("mlm", ["--held_out", "28"], "--held-out 28 of 28 sentences leaves none for one side"),
    ("simcse", ["--data", "gone.txt"], "gone.txt does not exist"),
    ("simcse", ["--dev", "gone.csv"], "gone.csv does not exist"),
    ("online", ["--switch_every", "0"], "without a teacher and without a switch this is plain SimCSE; name --teachers"),
    ("online", ["--max_switches", "0"], "without a teacher and without a switch this is plain SimCSE"),
    ("online", ["--switch_every", "4"], "4 is not a multiple of --eval_steps 3.*set it to 6, or --eval_steps to 4"),
    ("online", ["--switch_every", "12"], "12 in a training of 10 steps never switches.* no teacher at all"),
    ("distillcse", ["--switch_every", "12"], "never switches, so it has no other teacher than those named; lower it"),
    ("online", ["--switch_every", "-3"], "--switch_every -3 is out of range"),
    ("distillcse", ["--max_switches", "-1"], "--max_switches -1 is out of range"),
    ("distillcse", ["--group_p", "-0.1"], "--group_p -0.1 is out of range; it is a probability"),
    ("distillcse", ["--group_p", "1.5"], "--group_p 1.5 is out of range"),
    ("distillcse", ["--weight", "-1"], "--weight -1.0 is out of range"),
    ("distillcse", ["--student_temperature", "0"], "--student_temperature 0.0 is out of range; it must be above 0"),
    ("distillcse", ["--teacher_temperature", "-1"], "--teacher_temperature -1.0 is out of range"),
    ("distillcse", ["--teacher_max_length", "0"], "--teacher_max_length 0 is out of range"),
    ("online", ["--teacher_from", "best"], "unknown value of --teacher_from 'best': did you mean 'best_dev'"),
    ("online", ["--dropout", "0"], "the student has no dropout, so the two views of a sentence are equal"),
    ("distillcse", ["--teachers", "nobody"], "nobody is neither a folder nor a Hub id"),
]


@pytest.mark.parametrize(("kind", "words", "sentence"), READ, ids=lambda value: " ".join(value[:2]))
def test_a_mistake_in_what_is_read_is_one_sentence(kind, words, sentence, materials, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    words = [word.replace("BACKBONE", str(materials.backbone)) for word in words]
    said = refused(capsys, VARIANTS.get(kind, kind), *materials.words(kind, Path("model"), *words))
    assert len(re.findall(r"^error: ", said, re.MULTILINE)) == 1, said
    assert said.splitlines()[-1].startswith("error: ")
    assert all(part in said.splitlines()[-1] for part in sentence.split(".*")), said
    assert "Traceback" not in said
    assert tree(tmp_path) == {"empty": None}


@pytest.mark.parametrize(
    ("script", "words", "sentence"),
    [
        ("train_mlm", ["--data", "princeton-nlp/datasets-for-simcse"], "could not be downloaded from the Hub"),
        ("train_unsup", ["--backbone", "distilbert/distilbert-base-uncased"], "could not be downloaded from the Hub"),
        ("train_distill", ["--teacher", "owner/name"], "could not be downloaded from the Hub"),
        ("train_unsup", ["--dev", "mteb/stsbenchmark-sts"], "give scored pairs with --dev FILE, or --dev sample"),
    ],
)
def test_a_hub_out_of_reach_is_one_sentence(script, words, sentence, warm, materials, tmp_path):
    """In a process of its own, whose Hub is dead."""
    no_waiting = "import time; time.sleep = lambda seconds: None"
    command = two_steps(SCRIPTS[script], materials)
    done = warm(f"{script}.py", *command, *words, cwd=tmp_path, before=no_waiting)
    assert (done.code, done.stdout) == (2, ""), done.stderr
    assert len(re.findall(r"^error: ", done.stderr, re.MULTILINE)) == 1, done.stderr
    assert sentence in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_failure_in_the_midst_has_a_line_of_its_own(warm, materials, tmp_path):
    """The progress bar is ended first; the sentence would stand behind it."""
    words = two_steps("simcse", materials)
    done = warm("train_unsup.py", *words, "--learning_rate", "1e38", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("error: the loss is nan at step 2; lower the learning rate")


def test_ctrl_c_says_how_to_go_on(warm, materials, tmp_path):
    """A real one: the exit code is a stopped program's, and the words it prints do go on."""
    press = """
import os, signal
from distilface.training.checkpoints import WholeCheckpoints
step = WholeCheckpoints.training_step

def pressed(self, *arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return step(self, *arguments)

WholeCheckpoints.training_step = pressed
"""
    words = two_steps("simcse", materials)
    done = warm("train_unsup.py", *words, cwd=tmp_path, before=press)
    assert done.code == 130
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("stopped. saved at step 1 of 2; go on with: python ")
    again = said.partition(": python ")[2].split()
    assert again == [str(TRAINING / "train_unsup.py"), *words, "--resume"]
    done = warm("train_unsup.py", *again[1:], cwd=tmp_path)
    assert (done.code, done.stdout.splitlines()[-1][:8]) == (0, "VERDICT:")


def test_a_student_reads_no_more_than_it_has_positions_for(materials, tmp_path):
    """A teacher that reads more than the backbone can had the user refused for a value that was never given."""
    short = AutoModel.from_pretrained(materials.backbone)
    table = short.embeddings.position_embeddings
    table.weight.data = table.weight.data[:32].clone()
    short.config.max_position_embeddings = 32
    shutil.copytree(materials.backbone, tmp_path / "short")
    short.save_pretrained(tmp_path / "short")
    words = materials.words("embedding", tmp_path / "m", "--steps", "1", "--backbone", str(tmp_path / "short"))
    cli.run(["train", "embedding", *words, "--train_max_length", "16"])
    assert load(tmp_path / "m").max_seq_length == 32
