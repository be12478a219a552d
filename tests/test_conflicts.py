"""The command line wins in meaning: what it names sets aside, in a recipe, what that would cancel."""

import logging
from dataclasses import fields
from pathlib import Path

import pytest

from distilface.embedding.settings import EncodeSettings
from distilface.exporters.settings import ExportSettings
from distilface.hub.settings import PushSettings
from distilface.methods import methods
from distilface.settings import InputError, parse

METHODS = {name: method.Settings for name, method in methods().items()}
EVERY = {**METHODS, "encode": EncodeSettings, "export": ExportSettings, "push": PushSettings}
VALUES = {
    **{"epochs": "2", "steps": "7", "batch_size": "5", "learning_rate": "0.5", "weight": "3", "positive": "bank"},
    "static": "true",
}
PAIRS = [
    (name, field.name, other)
    for name, settings in EVERY.items()
    for field in fields(settings)
    for other in field.metadata["excludes"]
]


def words_of(name):
    """Give words that switch a setting on, of the right type."""
    if name.startswith("stage_"):
        return [f"--{name}", "1", "2", "3", "4"]
    return [f"--{name}", VALUES.get(name, "9")]


def as_recipe(folder, words):
    name, *values = words
    file = folder / "recipe.yaml"
    file.write_text(f"{name.removeprefix('--')}: [{', '.join(values)}]")
    return str(file)


def test_every_rule_names_settings_that_exist():
    """A misspelt one would be a rule that never holds, silently."""
    for settings in EVERY.values():
        names = {field.name for field in fields(settings)}
        for field in fields(settings):
            assert {*field.metadata["excludes"], *field.metadata["needs"]} <= names


def test_the_pairs():
    assert {(a, b) for _, a, b in PAIRS} == {
        ("steps", "epochs"),
        ("stage_epochs", "epochs"),
        ("stage_epochs", "steps"),
        ("stage_steps", "steps"),
        ("stage_steps", "epochs"),
        ("stage_steps", "stage_epochs"),
        ("stage_batch_sizes", "batch_size"),
        ("stage_learning_rates", "learning_rate"),
        ("stage_weights", "weight"),
        ("assistant", "vocabulary"),
        ("assistant", "assistant_layers"),
        ("positive", "queue"),
        *(("megabytes", chosen) for chosen in ("layers", "vocabulary", "feed_forward", "bits", "table_bits")),
        *(("static", other) for other in ("backbone", "layers", "pooling", "max_seq_length", "dropout")),
        *(("static", other) for other in ("train_max_length", "megabytes", "batch_tokens", "table_rank", "table_from")),
        *(("average_with", other) for other in ("layers", "best_layers", "megabytes")),
        *(("best_layers", other) for other in ("layers", "megabytes")),
        ("static", "average_with"),
        ("batch_tokens", "batch_size"),
        *((step, "megabytes") for step in ("table_rank", "hidden_size", "layer_runs")),
        *(("static", step) for step in ("best_layers", "hidden_size", "layer_runs")),
        ("search_data", "max_sentences"),
    }


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_the_command_line_sets_aside_what_cancels_it(name, one, other, tmp_path, caplog):
    """Else the recipe's would win: one pass that was asked for, and 20,000 steps that are made."""
    caplog.set_level(logging.INFO)
    cls = EVERY[name]
    for ours, theirs in ((one, other), (other, one)):
        both = parse(cls, ["--config", as_recipe(tmp_path, words_of(theirs)), *words_of(ours)], "")
        assert getattr(both, ours) == getattr(parse(cls, words_of(ours), ""), ours)
        assert getattr(both, theirs) == getattr(cls(), theirs)
        assert f"--{ours} sets aside {theirs} of the recipe" in caplog.text


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_two_that_cancel_each_other_are_refused(name, one, other, tmp_path):
    """On a command line, and in a recipe, and from Python."""
    cls, words = EVERY[name], [*words_of(one), *words_of(other)]
    sentence = f"(--{one} and --{other}|--{other} and --{one}) exclude each other; leave one of them out"
    with pytest.raises(InputError, match=f"^{sentence}"):
        parse(cls, words, "")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("".join(Path(as_recipe(tmp_path, words_of(each))).read_text() + "\n" for each in (one, other)))
    with pytest.raises(InputError, match=f"^recipe {recipe}: {sentence}"):
        parse(cls, ["--config", str(recipe)], "")
    values = {each: getattr(parse(cls, words_of(each), ""), each) for each in (one, other)}
    with pytest.raises(InputError, match=f"^{sentence}"):
        parse(cls, [], "", values)


def test_epochs_set_aside_the_steps_of_a_default_recipe():
    simcse = METHODS["simcse"]
    assert parse(simcse, [], "").steps == 20000
    assert (parse(simcse, ["--epochs", "1"], "").steps, parse(simcse, [], "", {"epochs": 1.0}).steps) == (-1, -1)


@pytest.mark.parametrize(
    ("words", "steps", "epochs"),
    [
        ([], -1, 3.0),
        (["--steps", "-1"], -1, 3.0),
        (["--steps", "0"], -1 + 1, 3.0),
        (["--steps", "5"], 5, 1.0),
        (["--steps", "5", "--epochs", "0"], 5, 0.0),
        (["--steps", "-1", "--epochs", "2"], -1, 2.0),
    ],
)
def test_a_setting_that_is_switched_off_cancels_nothing(words, steps, epochs, tmp_path):
    (tmp_path / "r.yaml").write_text("epochs: 3")
    settings = parse(METHODS["simcse"], ["--config", str(tmp_path / "r.yaml"), *words], "")
    assert (settings.steps, settings.epochs) == (steps, epochs)


def test_stages_left_to_passes_by_steps_of_their_own():
    words = ["--stage_steps", "-1", "500", "-1", "-1", "--stage_epochs", "20", "10", "10", "60"]
    settings = parse(METHODS["multistage"], words, "")
    assert (settings.stage_steps, settings.stage_epochs) == ([-1, 500, -1, -1], [20, 10, 10, 60])


def test_none_unsets_what_a_recipe_sets(caplog):
    """A shipped recipe's cut of a teacher is in the way of a backbone that is named."""
    assert parse(METHODS["embedding"], ["--config", "minilm-l3", "--layers", "none"], "").layers is None
    assert parse(METHODS["codir"], ["--config", "minilm-l3-codir", "--queue=none"], "").queue is None
    assert parse(METHODS["online"], ["--config", "minilm-distillcse", "--teachers", "none"], "").teachers == []
    assert parse(METHODS["multistage"], ["--config", "xx-minilm", "--assistant", "none"], "").assistant is None
    with pytest.raises(InputError, match="--layers none unsets it; give no other value"):
        parse(METHODS["embedding"], ["--layers", "none", "2"], "")
    with pytest.raises(InputError, match="invalid int value: 'none'"):
        parse(METHODS["embedding"], ["--steps", "none"], "")


def test_a_list_that_is_given_twice_is_named(caplog):
    """Upstream keeps the last: the text of the first --data would be left out without a word."""
    assert parse(METHODS["embedding"], ["--data", "a.txt", "--data", "b.txt"], "").data == ["b.txt"]
    assert caplog.messages == ["--data stands there twice, and only its last values count; give all to one"]
    parse(METHODS["multistage"], ["--parallel", "a.tsv", "--data=b.tsv"], "")
    assert len(caplog.messages) == 2
