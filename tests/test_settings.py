"""Settings: default < recipe < command line, mistakes as sentences, and how a script ends."""

import errno
import logging
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import yaml
from refusals import refusal

from benchmarks.sts.front import FAMILY
from distilface.console import run_command
from distilface.settings import InputError, parse, setting

RECIPES = Path(__file__).parent.parent / "distilface" / "recipes"


@dataclass
class Settings:
    learning_rate: float = setting(3e-5, "peak rate, 100% of it")
    batch_size: int = setting(64, "sentences a step")
    layers: list[int] | None = setting(None, "which layers")
    data: list[str] = setting(["a.txt", "b.txt"], "text")
    max_sentences: int | None = setting(1000, "at most")
    normalize: str = setting("auto", "auto, yes or no")
    resume: bool = setting(False, "go on")
    shuffle: bool = setting(True, "mix")


@dataclass
class Needed:
    output_dir: str = setting(help="where to")


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe and give its path."""

    def write(text):
        file = tmp_path / "recipe.yaml"
        file.write_text(text, encoding="utf-8")
        return str(file)

    return write


def read(*words):
    return parse(Settings, words, "A description.")


def given(recipe, text, words):
    """Return the words of a command line, after a recipe if there is one."""
    return [*([] if text is None else ["--config", recipe(text)]), *words.split()]


def mistake(*words):
    """Parse what cannot be parsed and give the sentence."""
    return refusal(read, *words)


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda recipe: recipe.stem)
def test_a_recipe_writes_beside_the_shipped_models(recipe):
    """In a checkout these are there, and a training is refused where something is."""
    written = yaml.safe_load(recipe.read_text(encoding="utf-8"))["output_dir"]
    assert Path(written).name not in FAMILY


def test_the_command_line_wins_over_the_recipe_and_that_over_the_default(recipe):
    assert read() == Settings()
    assert Settings().data is not Settings().data
    file = recipe("learning_rate: 0.001\nbatch_size: 32\nlayers: [0, 2, 5]\n")
    settings = read("--batch_size", "8", "--config", file, "--layers", "1")
    assert (settings.learning_rate, settings.batch_size, settings.layers) == (0.001, 8, [1])
    assert settings.data == ["a.txt", "b.txt"]
    assert read(f"--config={file}").layers == [0, 2, 5]


RATES = ("1e-5", "1.0e-5", "0.00001", "1E-5", "'1e-5'")
ODD = ("yes", "no", "007", "on", "1_0", "2024-01-01", "-3")
TRUTHS = {"true": True, "no": False, "1": True, "False": False}
#: A recipe, the words after it, and the settings that are then not the default ones.
READ = [
    # YAML reads 1e-5 as a string; silently, a schedule would get the text or the default.
    *((f"learning_rate: {text}", "", {"learning_rate": 1e-5}) for text in RATES),
    # YAML makes a truth value of yes and the number 7 of 007; a setting of text would silently change.
    *((f"normalize: {text}", "", {"normalize": text}) for text in ODD),
    *((None, f"--normalize={text}", {"normalize": text}) for text in ODD),
    *((f"resume: {text}\nshuffle: {text}", "", {"resume": on, "shuffle": on}) for text, on in TRUTHS.items()),
    *((f"shuffle: {text}", "--no-shuffle", {"shuffle": False}) for text in TRUTHS),
    *((None, f"--resume {text}", {"resume": on}) for text, on in TRUTHS.items()),
    (None, "--resume", {"resume": True}),
    (None, "--no_shuffle", {"shuffle": False}),
    # A null that were skipped would leave the default of 1000 in force, silently.
    ("max_sentences: null", "", {"max_sentences": None}),
    ("max_sentences:", "--max-sentences 5", {"max_sentences": 5}),
    *((None, words, {"batch_size": 8}) for words in ("--batch-size 8", "--batch_size 8", "--batch-size=8")),
    ("learning_rate: -1e-5\nlayers: [-1, 2]", "", {"learning_rate": -1e-5, "layers": [-1, 2]}),
    ("learning_rate: 1\nlayers: [-1, 2]", "", {"learning_rate": 1.0, "layers": [-1, 2]}),
    (None, "--data x y --layers 0 5", {"data": ["x", "y"], "layers": [0, 5]}),
    ("data: one.txt", "", {"data": ["one.txt"]}),
    ("data:\n- one file.txt\n- b.txt\n", "", {"data": ["one file.txt", "b.txt"]}),
]


@pytest.mark.parametrize(("text", "words", "expected"), READ)
def test_each_value_is_of_its_settings_type(recipe, text, words, expected):
    """Compared as they are shown, for 1 is True to Python."""
    assert repr(read(*given(recipe, text, words))) == repr(Settings(**expected))


def test_an_unknown_key_of_a_recipe_names_the_nearest_and_the_recipe(recipe):
    file = recipe("seed: 1")
    assert file in mistake("--config", file)
    file = recipe("lerning_rate: 1.0e-5")
    for part in (file, "unknown setting", "'lerning_rate': did you mean 'learning_rate'?"):
        assert part in mistake("--config", file)
    assert "did you mean 'batch_size'" in mistake("--config", recipe("batch-size: 5"))
    assert "known: batch_size, data," in mistake("--config", recipe("1: 5"))


NEAREST = "unknown option 'lerning_rate': did you mean 'learning_rate'?"


@pytest.mark.parametrize(
    ("text", "words", "seen"),
    [
        *((None, f"--{word} 1", NEAREST) for word in ("lerning-rate", "lerning_rate", "lerning_rate=1")),
        # An abbreviation is unknown too: a new setting would change what it means.
        (None, "--learning 1", "unknown option 'learning': did you mean 'learning_rate'?"),
        (None, "--confg x.yaml", "did you mean 'config'?"),
        (None, "--batch_size many", "invalid int value: 'many'"),
        (None, "--batch_size 1.5", "invalid int value: '1.5'"),
        (None, "--learning-rate fast", "invalid float value: 'fast'"),
        (None, "--layers 0,2,5", "invalid int value: '0,2,5'"),
        (None, "--resume maybe", "got maybe"),
        (None, "--batch_size", "expected one argument"),
        (None, "--config", "argument --config: expected one argument"),
        (None, "--batch_size 8 9", "unexpected words: 9"),
        (None, "text.txt", "unexpected words: text.txt"),
        ("batch_size: many", "", "invalid int value: 'many'"),
        ("batch_size: 1.5", "", "invalid int value: '1.5'"),
        ("batch_size:", "", "batch_size has no value"),
        ("batch_size: [8, 9]", "", "unexpected words: 9"),
        ("learning_rate: {a: 1}", "", "the value of learning_rate must be one value"),
        ("layers: [[0], 2]", "", "the value of layers must be one value"),
        ("layers: [0, null]", "", "the value of layers must be one value"),
        ("layers: zero", "", "invalid int value: 'zero'"),
        ("- a\n- b", "", "must be a mapping"),
        ("", "", "must be a mapping"),
        ("a: b: c", "", "cannot be read"),
        ("a: [", "", "cannot be read"),
        ("!!python/object:os.system {}", "", "cannot be read"),
    ],
)
def test_what_cannot_be_read(recipe, text, words, seen):
    assert seen in mistake(*given(recipe, text, words))


def test_a_recipe_that_cannot_be_read(tmp_path):
    shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    none = f"recipe {tmp_path / 'none.yaml'} does not exist; the shipped ones are {shipped}"
    assert mistake("--config", str(tmp_path / "none.yaml")) == none
    assert "recipe minilm-13 does not exist; did you mean 'minilm-l3'? the" in mistake("--config", "minilm-13")
    assert "cannot be read" in mistake("--config", str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes("normalize: café".encode("latin-1"))
    assert "cannot be read" in mistake("--config", str(tmp_path / "latin.yaml"))


def test_a_setting_without_default_is_required():
    with pytest.raises(InputError, match=r"required: --output_dir"):
        parse(Needed, [], "")
    assert parse(Needed, ["--output-dir", "x"], "") == Needed("x")


def test_a_file_of_arguments_beside_the_script_is_not_read(tmp_path, monkeypatch):
    """The parser underneath would silently add the words of SCRIPT.args."""
    (tmp_path / "script.args").write_text("--batch_size 7")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "script.py"), "--learning_rate", "1"])
    assert parse(Settings, None, "") == Settings(learning_rate=1.0)


def test_help_shows_every_setting_with_its_default(capsys):
    with pytest.raises(SystemExit) as left:
        parse(Settings, ["--help"], "Train.\n\n    python train.py --data TEXT.txt\n")
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert "\n    python train.py --data TEXT.txt\n" in shown
    for each in fields(Settings):
        assert f"--{each.name}" in shown
    assert "--config RECIPE.yaml" in shown
    words = " ".join(shown.split())
    assert "peak rate, 100% of it (default: 3e-05)" in words
    assert "text (default: ['a.txt', 'b.txt'])" in words


def failing(error, cause=None):
    def main():
        raise error from cause

    return main


def leave(main, capsys):
    """Run a script's main and give its exit code and what it said on stderr."""
    with pytest.raises(SystemExit) as left:
        run_command(main)
    return left.value.code, capsys.readouterr().err


def test_how_a_script_ends(capsys):
    """Well, by a mistake in one line with code 2, or by Ctrl-C with code 130."""
    assert run_command(lambda: {"score": 1}) is None
    assert leave(failing(InputError("x.txt is empty")), capsys) == (2, "error: x.txt is empty\n")
    assert leave(failing(KeyboardInterrupt()), capsys) == (130, "\nstopped.\n")
    assert leave(failing(KeyboardInterrupt("Go on with --resume.")), capsys)[1] == "\nstopped. Go on with --resume.\n"


@pytest.mark.parametrize(
    "main",
    [
        failing(OSError(errno.ENOSPC, "No space left on device", "out/model.safetensors")),
        failing(RuntimeError("I/O error: No space left on device (os error 28)")),
        failing(ValueError("the writer failed"), cause=OSError(errno.ENOSPC, "No space left on device")),
    ],
)
def test_a_full_disk_is_one_line_whichever_library_wraps_it(main, capsys):
    code, said = leave(main, capsys)
    assert code == 2
    assert re.fullmatch(r"error: the disk is full \([^\n]+\); free some space\n", said)


@pytest.mark.parametrize("error", [ValueError("ours"), OSError(errno.EACCES, "no"), RuntimeError("x"), MemoryError()])
def test_a_defect_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        run_command(failing(error))


def test_a_command_shows_what_is_logged_and_stops_after(capsys):
    """A handler that stayed would show a program's every later call."""
    logger = logging.getLogger("distilface.any.module")

    def main() -> None:
        logger.info("reading text")
        logger.warning("an odd line")

    run_command(main)
    assert capsys.readouterr().err == "reading text\nwarning: an odd line\n"
    logger.info("reading text")
    assert capsys.readouterr().err == ""
    assert logging.getLogger("distilface").handlers == []
