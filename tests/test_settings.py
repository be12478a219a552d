"""Settings: default < recipe < command line, mistakes as sentences, and how a script ends."""

import errno
import logging
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from refusals import refusal

from distilface.console import run_command
from distilface.settings import InputError, check_known, parse, read_recipe, setting

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


def mistake(*words):
    """Parse what cannot be parsed and give the sentence."""
    return refusal(read, *words)


def test_the_command_line_wins_over_the_recipe_and_that_over_the_default(recipe):
    assert read() == Settings()
    assert Settings().data is not Settings().data
    file = recipe("learning_rate: 0.001\nbatch_size: 32\nlayers: [0, 2, 5]\n")
    settings = read("--batch_size", "8", "--config", file, "--layers", "1")
    assert (settings.learning_rate, settings.batch_size, settings.layers) == (0.001, 8, [1])
    assert settings.data == ["a.txt", "b.txt"]
    assert read(f"--config={file}").layers == [0, 2, 5]


@pytest.mark.parametrize("written", ["1e-5", "1.0e-5", "0.00001", "1E-5", "'1e-5'"])
def test_a_number_of_any_spelling(recipe, written):
    """YAML reads 1e-5 as a string; silently, a schedule would get the text or the default."""
    rate = read("--config", recipe(f"learning_rate: {written}")).learning_rate
    assert isinstance(rate, float)
    assert rate == 1 / 100_000


@pytest.mark.parametrize("written", ["yes", "no", "007", "on", "1_0", "2024-01-01", "-3"])
def test_text_in_a_recipe_is_what_it_is_on_the_command_line(recipe, written):
    """YAML makes a truth value of yes and the number 7 of 007; a setting of text would silently change."""
    assert read("--config", recipe(f"normalize: {written}")).normalize == written
    assert read(f"--normalize={written}").normalize == written


@pytest.mark.parametrize(("written", "value"), [("true", True), ("no", False), ("1", True), ("False", False)])
def test_truth_values(recipe, written, value):
    file = recipe(f"resume: {written}\nshuffle: {written}")
    assert (read("--config", file).resume, read("--config", file).shuffle) == (value, value)
    assert read("--resume", written).resume is value
    assert read("--resume").resume is True
    assert read("--no_shuffle").shuffle is False
    assert read("--config", file, "--no-shuffle").shuffle is False


def test_null_in_a_recipe_is_none_and_no_default(recipe):
    """A null that were skipped would leave the default of 1000 in force, silently."""
    assert read("--config", recipe("max_sentences: null")).max_sentences is None
    assert read("--config", recipe("max_sentences:"), "--max-sentences", "5").max_sentences == 5
    assert "batch_size has no value" in mistake("--config", recipe("batch_size:"))


def test_dashes_lists_and_negative_numbers(recipe):
    assert read("--batch-size", "8") == read("--batch_size", "8") == read("--batch-size=8")
    assert read("--batch-size", "8").batch_size == 8
    assert read("--config", recipe("learning_rate: -1e-5\nlayers: [-1, 2]")).learning_rate == -0.00001
    assert read("--config", recipe("learning_rate: 1\nlayers: [-1, 2]")).layers == [-1, 2]
    assert read("--data", "x", "y", "--layers", "0", "5") == Settings(data=["x", "y"], layers=[0, 5])
    assert read("--config", recipe("data: one.txt")).data == ["one.txt"]
    assert read("--config", recipe("data:\n- one file.txt\n- b.txt\n")).data == ["one file.txt", "b.txt"]


def test_an_unknown_key_of_a_recipe_names_the_nearest_and_the_recipe(recipe):
    file = recipe("seed: 1")
    assert file in mistake("--config", file)
    file = recipe("lerning_rate: 1.0e-5")
    for part in (file, "unknown setting", "'lerning_rate': did you mean 'learning_rate'?"):
        assert part in mistake("--config", file)
    assert "did you mean 'batch_size'" in mistake("--config", recipe("batch-size: 5"))
    assert "known: batch_size, data," in mistake("--config", recipe("1: 5"))


@pytest.mark.parametrize("word", ["--lerning-rate", "--lerning_rate", "--learning", "--lerning_rate=1"])
def test_an_unknown_option_names_the_nearest(word):
    """An abbreviation is unknown too: a new setting would change what it means."""
    message = mistake(word, "1")
    assert "unknown option" in message
    assert "did you mean 'learning_rate'?" in message


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("--confg x.yaml", "did you mean 'config'?"),
        ("--batch_size many", "invalid int value: 'many'"),
        ("--batch_size 1.5", "invalid int value: '1.5'"),
        ("--learning-rate fast", "invalid float value: 'fast'"),
        ("--layers 0,2,5", "invalid int value: '0,2,5'"),
        ("--resume maybe", "got maybe"),
        ("--batch_size", "expected one argument"),
        ("--config", "argument --config: expected one argument"),
        ("--batch_size 8 9", "unexpected words: 9"),
        ("text.txt", "unexpected words: text.txt"),
    ],
)
def test_wrong_words(words, seen):
    assert seen in mistake(*words.split())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("batch_size: many", "invalid int value: 'many'"),
        ("batch_size: 1.5", "invalid int value: '1.5'"),
        ("batch_size: [8, 9]", "unexpected words: 9"),
        ("learning_rate: {a: 1}", "the value of learning_rate must be one value"),
        ("layers: [[0], 2]", "the value of layers must be one value"),
        ("layers: [0, null]", "the value of layers must be one value"),
        ("layers: zero", "invalid int value: 'zero'"),
        ("- a\n- b", "must be a mapping"),
        ("", "must be a mapping"),
        ("a: b: c", "cannot be read"),
        ("a: [", "cannot be read"),
        ("!!python/object:os.system {}", "cannot be read"),
    ],
)
def test_wrong_recipes(recipe, text, seen):
    assert seen in mistake("--config", recipe(text))


def test_a_recipe_that_cannot_be_read(tmp_path):
    assert "the shipped ones are distilface, minilm, minilm-2mb," in mistake("--config", str(tmp_path / "none.yaml"))
    assert "recipe minilm-13 does not exist; did you mean 'minilm-l3'? the" in mistake("--config", "minilm-13")
    assert "cannot be read" in mistake("--config", str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes("normalize: café".encode("latin-1"))
    assert "cannot be read" in mistake("--config", str(tmp_path / "latin.yaml"))


def test_the_shipped_recipes_are_flat():
    recipes = sorted((RECIPES.parents[1] / "training" / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert all(re.fullmatch(r"[a-z0-9_]+", key) for key in read_recipe(recipe))


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


def test_check_known():
    check_known(["a"], ["a", "b"], "thing")
    with pytest.raises(InputError, match=r"unknown thing 'meen': did you mean 'mean'\?"):
        check_known(["mean", "meen"], ["mean", "cls"], "thing")
    with pytest.raises(InputError, match="unknown thing 'xyz': known: cls, mean"):
        check_known(["xyz"], ["mean", "cls"], "thing")


def failing(error):
    def main():
        raise error

    return main


def wrapped(inner, outer):
    def main():
        try:
            raise inner
        except OSError as error:
            raise outer from error

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
        wrapped(OSError(errno.ENOSPC, "No space left on device"), ValueError("the writer failed")),
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


def test_a_script_as_a_process_shows_no_traceback():
    source = (
        "from distilface.console import run_command; from distilface.settings import read_recipe; "
        "run_command(lambda: read_recipe('none.yaml'))"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
    assert done.stderr == f"error: recipe none.yaml does not exist; the shipped ones are {shipped}\n"


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
