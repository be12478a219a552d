"""What a loss that compares the texts of a batch needs: batches, and texts that the student can tell apart."""

import logging
from dataclasses import replace

import pytest
from datasets import Dataset
from runs import train
from tiny import tiny_model

from distilface.methods import find_method, methods
from distilface.settings import InputError, parse, unused
from distilface.training.alike import drop_alike
from distilface.training.batches import check_batch
from distilface.training.settings import warn_unread


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "m")


def test_the_methods_that_compare_the_texts_of_a_batch():
    least = {name: method.least_batch for name, method in methods().items() if method.least_batch > 1}
    assert least == {"simcse": 2, "online": 3, "codir": 2}
    distill = find_method("distill")
    few = distill.Settings(data=["python"], dev=None, metric="cosine", relation_weight=1.0, batch_tokens=64)
    with pytest.raises(InputError, match=r"--batch_tokens 64 is too small for --relation_weight: 3 texts .* 192"):
        distill.check(few)
    assert [distill.compares(distill.Settings(relation_weight=weight)) for weight in (0.0, 0.3)] == [1, 3]


@pytest.mark.parametrize(
    ("name", "size", "words"),
    [
        ("simcse", 1, []),
        ("online", 2, ["--teachers", "x"]),
        ("codir", 1, []),
        ("multistage", 1, []),
        ("multistage", 64, ["--stage_batch_sizes", "8", "8", "8", "1"]),
    ],
)
def test_a_batch_too_small_for_its_loss(name, size, words, tmp_path):
    """One text alone has a loss of 0: the training would run to its end and change nothing."""
    method = find_method(name)
    sizes = [] if "--stage_batch_sizes" in words else ["--batch_size", str(size)]
    settings = parse(method.Settings, ["--output_dir", str(tmp_path / "m"), *words, *sizes], "")
    with pytest.raises(InputError, match=r"--batch_size [12] is too small for .*: its loss compares"):
        method.check(settings)


@pytest.mark.parametrize("name", ["embedding", "leaf", "mlm"])
def test_a_loss_of_each_text_alone_takes_a_batch_of_one(name, tmp_path):
    method = find_method(name)
    settings = parse(method.Settings, ["--output_dir", str(tmp_path / "m"), "--batch_size", "1"], "")
    method.check(settings)
    assert (settings.batch_size, method.least_batch) == (1, 1)
    with pytest.raises(InputError, match=f"--batch_size 1 is too small for {name}: its loss compares"):
        check_batch(1, 2, name)


def test_a_weight_of_0_in_a_stage_that_has_no_other_term(tmp_path):
    method = find_method("multistage")
    words = ["--output_dir", str(tmp_path / "m"), "--stage_weights", "1", "1", "0", "0"]
    with pytest.raises(InputError, match="--weight 0 trains nothing in stage 3"):
        method.check(parse(method.Settings, words, ""))


TEXTS = [
    "the dog runs",
    "The Dog  runs",
    "a cat",
    "the dog runs ",
    "a cat sleeps on the house",
    "a cat sleeps under it",
]


def test_texts_that_the_student_reads_alike_are_dropped(model, caplog):
    """Else SimCSE learns to tell a text from itself: two equal inputs, one the negative of the other."""
    caplog.set_level(logging.INFO)
    texts = Dataset.from_dict({"text": TEXTS})
    assert drop_alike(texts, model, 64)["text"][:] == [TEXTS[0], TEXTS[2], *TEXTS[4:]]
    assert "2 of 6 texts dropped: the student reads each as an earlier one" in caplog.text
    assert "6 texts compared as the student reads them, " in caplog.text
    assert drop_alike(texts, model, 5)["text"][:] == [TEXTS[0], TEXTS[2], TEXTS[4]], "what follows is not read"


def test_texts_that_differ_stay_the_same_data_set(model):
    """The very data set, so that the trained weights are those of before."""
    texts = Dataset.from_dict({"text": TEXTS[2:3] + TEXTS[4:]})
    assert drop_alike(texts, model, 64) is texts


def test_texts_that_are_all_alike(model):
    with pytest.raises(InputError, match="reads all 3 texts alike"):
        drop_alike(Dataset.from_dict({"text": ["A cat", "a  cat", "a CAT"]}), model, 64)


def test_a_training_on_texts_of_another_case(materials, tmp_path, caplog):
    """Only what is trained on is counted, and a loss that reads each text alone keeps all."""
    lines = materials.text.read_text().splitlines()
    text = tmp_path / "text.txt"
    text.write_text("\n".join([*lines, lines[0].upper(), lines[1].title()]) + "\n")
    more = ["--steps", "1", "--data", str(text)]
    dropped = train("simcse", materials.words("simcse", tmp_path / "s", *more))
    whole = train("embedding", materials.words("embedding", tmp_path / "e", *more))
    assert [run["data"][1]["rows"] for run in (dropped, whole)] == [len(lines), len(lines) + 2]
    assert caplog.text.count("2 of 30 texts dropped") == 1


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("leaf", ["--warmup", "0.1"], "--warmup 0.1 has no effect: --cycles decides the learning rate"),
        ("leaf", ["--scheduler", "cosine"], "--scheduler cosine has no effect: --cycles decides the learning rate"),
        ("mlm", ["--dev", "x"], "--dev x has no effect: the loss on held-out sentences chooses the checkpoint"),
        ("codir", ["--scale", "5"], "--scale 5.0 has no effect with --base embedding"),
        ("codir", ["--metric", "mse", "--base", "simcse"], "--metric mse has no effect with --base simcse"),
        ("codir", ["--momentum", "0.9", "--queue", "9"], "--momentum 0.9 has no effect with --queue 9"),
        ("codir", ["--weight", "0", "--negatives", "7"], "--negatives 7 has no effect with --weight 0.0"),
        ("online", ["--teacher_max_length", "9"], "--teacher_max_length 9 has no effect with no --teachers"),
        ("online", ["--max_switches", "9"], "--max_switches 9 has no effect with --switch_every 0"),
        (
            "simcse",
            ["--warmup", "0.1", "--scheduler", "constant"],
            "--warmup 0.1 has no effect with --scheduler constant",
        ),
        ("distill", ["--vocabulary_data", "a.txt"], "--vocabulary_data a.txt has no effect with no --vocabulary"),
        ("distill", ["--vocabulary_data", "a.txt", "--vocabulary", "900"], None),
        ("distill", ["--vocabulary_data", "a.txt", "--megabytes", "5"], None),  # they choose the pieces
        ("simcse", ["--warmup", "0.1"], None),
        ("codir", ["--momentum", "0.9"], None),
    ],
)
def test_a_setting_without_effect_is_named(name, words, sentence, tmp_path):
    (tmp_path / "r.yaml").write_text("seed: 42")
    settings = parse(find_method(name).Settings, ["--config", str(tmp_path / "r.yaml"), *words], "")
    assert unused(settings) == ([sentence] if sentence else [])


def test_the_reading_of_text_that_is_not_read(caplog):
    settings = parse(find_method("mlm").Settings, ["--text_column", "body", "--max_sentences", "9"], "")
    warn_unread(replace(settings, data=["a.TXT.gz", "python"]), False, ".txt", "text_column")
    warn_unread(replace(settings, data=["a.csv", "b.txt"]), False, ".txt", "text_column")
    assert caplog.messages == ["--text_column body has no effect: .txt files have no named columns"]
    warn_unread(settings, True, ".txt", "text_column")
    assert [message.split()[0] for message in caplog.messages[1:]] == ["--text_column", "--max_sentences"]


@pytest.mark.parametrize("scheduler", ["cosine_with_min_lr", "warmup_stable_decay"])
def test_a_scheduler_that_needs_more_than_its_name(scheduler, tmp_path):
    method = find_method("simcse")
    with pytest.raises(InputError, match=f"unknown scheduler '{scheduler}'"):
        method.check(parse(method.Settings, ["--output_dir", str(tmp_path / "m"), "--scheduler", scheduler], ""))
