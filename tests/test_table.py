"""A token table taken from a static student: the vectors against numpy, what keeps its own, the training, refusals."""

import shutil

import numpy as np
import pytest
from refusals import refusal
from runs import each_step, equal, stopped_at, train
from tiny import sentences, tiny_backbone, tiny_bert, tiny_model, write_content
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distilface.cards.card import make_card
from distilface.compression.budget import shapes
from distilface.compression.sizes import shape_of
from distilface.compression.student import load_backbone, load_student
from distilface.compression.table import take_table
from distilface.model.folder import load, save_folder
from distilface.run import read_run

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a teacher, a text, and a static student of 90 of its pieces."""
    place = tmp_path_factory.mktemp("table")
    tiny_backbone(place / "teacher")
    write_content(place / "text.txt", "\n".join(sentences(200)))
    train("embedding", words(place, "static", "--static", "true", "--vocabulary", "90", "--learning_rate", "5e-3"))
    return place


def words(place, output: str, *more: str) -> list[str]:
    options = f"--teacher {place / 'teacher'} --data {place / 'text.txt'} --dev none --held_out 20 --steps 4"
    return [*options.split(), "--batch_size", "16", "--metric", "cosine", "--output_dir", str(place / output), *more]


def test_the_vectors_are_those_of_the_static_student_in_the_own_length(place):
    static, (encoder, tokenizer) = load(place / "static"), load_backbone(str(place / "teacher"), [1])
    before = encoder.get_input_embeddings().weight.detach().numpy().copy()
    figures = take_table(encoder, tokenizer, static, "static")
    after = encoder.get_input_embeddings().weight.detach().numpy()

    known, special = static.tokenizer.get_vocab(), set(tokenizer.all_special_tokens)
    vectors = static[0].embedding.weight.detach().numpy()
    pieces = [piece for piece in tokenizer.get_vocab() if piece in known and piece not in special]
    rows = [tokenizer.get_vocab()[piece] for piece in pieces]
    wanted = vectors[[known[piece] for piece in pieces]]
    length = np.linalg.norm(before[rows], axis=1).mean() / np.linalg.norm(wanted, axis=1).mean()
    np.testing.assert_allclose(after[rows], wanted * length, rtol=1e-5, atol=1e-7)
    others = np.setdiff1d(np.arange(len(before)), rows)
    assert {*tokenizer.all_special_ids} <= {*others.tolist()}
    np.testing.assert_array_equal(after[others], before[others])
    assert not encoder.embeddings.position_embeddings.weight.any()
    assert figures == {"pieces": len(rows), "of": len(before)}
    assert 80 < len(rows) < len(before)


def test_a_student_starts_from_it(place):
    """Of the pieces that are kept; run.json and the card say so."""
    static = str(place / "static")
    more = ["--layers", "1", "--vocabulary", "100", "--table_from", static, "--feed_forward", "32", "--bits", "4"]
    train("embedding", words(place, "student", *more, "--untrained_dir", str(place / "untrained")))
    steps = read_run(place / "student" / "run.json").compression
    assert [step["step"] for step in steps] == ["vocabulary", "table", "width", "bits"]
    assert steps[1]["from"] == static
    assert steps[1]["of"] == steps[0]["pieces"]
    said = f"{steps[1]['pieces']} of its {steps[1]['of']} pieces started from the vectors of a static student"
    assert said in make_card(place / "student", "org/student")[0]


def test_what_has_no_such_table_is_refused(place, tmp_path):
    tiny_model(tmp_path / "whole")
    whole, narrow = str(tmp_path / "whole"), load(place / "static")
    assert "whole is no static student" in refusal(
        train, "embedding", words(place, "none", "--layers", "1", "--table_from", whole)
    )
    assert "none/there" in refusal(train, "embedding", words(place, "none", "--table_from", "none/there"))
    assert not (place / "none").exists()
    narrow[0].embedding.weight.data = narrow[0].embedding.weight[:, :16].clone()
    encoder, tokenizer = load_backbone(str(place / "teacher"))
    assert "s has 16 numbers a token and the student's table 32" in refusal(take_table, encoder, tokenizer, narrow, "s")
    strange = load(place / "static")
    strange[0].tokenizer = Tokenizer(WordLevel({"none of these": 0}))
    assert "s knows no token of the student's" in refusal(take_table, encoder, tokenizer, strange, "s")


def wide_model(folder):
    """Save a teacher of 64 numbers."""
    save_folder(load_student(tiny_bert(folder / "bert", layers=2, hidden_size=64)), folder / "wide")
    return folder / "wide"


ONE_LAYER = ["--layers", "1", "--vocabulary", "75", "--feed_forward", "32", "--bits", "4"]


def test_a_static_student_can_be_trained_first(place, tmp_path, caplog):
    """As the recipe trains one, on the same texts, which the teacher embeds once; then it is as if it were named.

    Many texts are alike to the student, whose relations would tell them apart: neither training has them twice, and
    both count the same pieces.
    """
    texts = [*sentences(150), *(text.upper() for text in sentences(200)[100:160])]
    write_content(place / "alike.txt", "\n".join(texts))
    common = [*ONE_LAYER, "--data", str(place / "alike.txt"), "--relation_weight", "0.6"]
    train("embedding", words(place, "new", *common, "--table_from", "new", "--cache_dir", str(tmp_path)))
    assert "first a static student, for its token vectors" in caplog.text
    static, student = read_run(place / "new.table" / "run.json"), read_run(place / "new" / "run.json")
    assert (static.settings["static"], static.settings["vocabulary"], static.settings["batch_size"]) == (True, 75, 1024)
    assert static.settings["held_out"] == student.settings["held_out"] == 20
    assert static.data[-1] == student.data[-1]
    assert student.data[-1]["rows"] == len({text.lower() for text in texts}) < len(set(texts))
    assert len([entry for entry in tmp_path.iterdir() if entry.is_dir()]) == 1, "one pass of the teacher"
    pieces, table = student.compression[:2]
    assert table == {"step": "table", "from": str(place / "new.table"), "pieces": 70, "of": pieces["pieces"]}
    assert pieces["pieces"] == 75, "all but the five special tokens have a vector"

    first = {text.lower(): text for text in reversed(texts)}
    distinct = dict.fromkeys(first[text.lower()] for text in texts)
    write_content(place / "distinct.txt", "\n".join(distinct))
    common[common.index("--data") + 1] = str(place / "distinct.txt")
    own = ["--cache_dir", str(tmp_path / "own")]  # a vector that was computed among other text has other last digits
    train("embedding", words(place, "named", *common, "--table_from", str(place / "new.table"), *own))
    assert equal(place / "new", place / "named")


def test_a_stop_in_the_static_student_goes_on_there(place, caplog):
    whole = [*ONE_LAYER, "--table_from", "new"]
    train("embedding", words(place, "whole", *whole))
    with stopped_at(2) as stop:
        train("embedding", words(place, "halves", *whole))
    assert f"the static student {place / 'halves.table'}: saved at step 2 of 3" in str(stop.value)
    assert not (place / "halves.table").exists()
    other = words(place, "halves", *whole, "--vocabulary", "90")
    assert "halves.table: --resume with changed settings: vocabulary was 75 and is 90" in refusal(
        train, "embedding", other
    )
    caplog.clear()
    with stopped_at(3) as stop:
        train("embedding", words(place, "halves", *whole, "--resume"))
    assert f"{place / 'halves.table'}: finished" in str(stop.value), "Ctrl-C in its last step ends all"
    assert (place / "halves.table" / "run.json").is_file()
    assert not (place / "halves.unfinished").exists()
    with stopped_at(2) as stop:
        train("embedding", words(place, "halves", *whole, "--resume"))
    assert str(stop.value).startswith("saved at step 2 of 4")
    train("embedding", words(place, "halves", *whole, "--resume"))
    assert caplog.text.count("first a static student") == 1
    assert caplog.text.count("halves.table is there; not trained again") == 2
    assert equal(place / "whole", place / "halves")
    assert equal(place / "whole.table", place / "halves.table")
    assert "nothing to resume" in refusal(train, "embedding", words(place, "halves", *whole, "--overwrite", "--resume"))


def test_a_stop_while_all_is_replaced_goes_on_too(place):
    """The command that Ctrl-C prints has --overwrite and --resume: then nothing is trained twice."""
    whole = [*ONE_LAYER, "--table_from", "new", "--overwrite"]
    train("embedding", words(place, "replaced", *whole))
    seen: list[int] = []
    with each_step(lambda now, _: seen.append(now)):
        for step in (2, 3):
            with stopped_at(step):
                train("embedding", words(place, "replaced", *whole, *["--resume"] * (step == 3)))
        train("embedding", words(place, "replaced", *whole, "--resume"))
    assert seen == [1, 2, 3, 1, 2, 3, 4]


def test_a_static_student_of_other_settings_is_not_taken(place):
    train("embedding", words(place, "other", *ONE_LAYER, "--table_from", "new"))
    shutil.rmtree(place / "other")
    asked = words(place, "other", *ONE_LAYER, "--table_from", "new", "--seed", "7")
    assert "other.table was trained with other settings (seed); add --overwrite to" in refusal(
        train, "embedding", asked
    )
    write_content(place / "more.txt", "\n".join(sentences(220)[100:]))
    changed = words(place, "other", *ONE_LAYER, "--table_from", "new", "--data", str(place / "more.txt"))
    assert "other.table was trained with other settings (data)" in refusal(train, "embedding", changed)
    train("embedding", [*asked, "--overwrite"])
    assert read_run(place / "other.table" / "run.json").seed == 7


@pytest.fixture
def budget(place, monkeypatch) -> list[str]:
    """Words of a budget for which one layer is chosen."""
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    encoder, tokenizer = load_backbone(str(place / "teacher"))
    megabytes = shape_of(encoder, tokenizer, [1], 60, 64, table_bits=2).megabytes
    first = shapes(encoder, tokenizer, megabytes, 64)[0]
    assert (len(first.layers), first.static_table) == (1, True)
    return ["--megabytes", str(megabytes)]


def test_a_budget_for_one_layer_trains_one_first(place, budget):
    """A stop in either goes on, though the shape is chosen anew."""
    with stopped_at(2):
        train("embedding", words(place, "budget", *budget))
    with stopped_at(2) as stop:  # of the student: the static one goes on at its third
        train("embedding", words(place, "budget", *budget, "--resume"))
    assert "step 2 of 4" in str(stop.value)
    train("embedding", words(place, "budget", *budget, "--resume"))
    run = read_run(place / "budget" / "run.json")
    assert [step["step"] for step in run.compression][:2] == ["vocabulary", "table"]
    assert run.settings["layers"] == [1]


@pytest.mark.parametrize(
    "more", [["--rotate", "true"], ["--projection", "true"], ["--table_from", "own"]], ids=lambda more: more[0]
)
def test_a_budget_keeps_the_teachers_table_where_there_is_none_to_make(place, budget, caplog, more):
    train("embedding", words(place, f"kept{more[0]}", *budget, *more))
    assert "table" not in [step["step"] for step in read_run(place / f"kept{more[0]}" / "run.json").compression]
    assert not list(place.glob("kept*.table"))
    assert "static student" not in caplog.text, "the shape does not count on it"


def test_a_teacher_of_one_layer_keeps_its_table(place, tmp_path, monkeypatch):
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    tiny_model(tmp_path / "one", layers=1)
    encoder, tokenizer = load_backbone(str(tmp_path / "one"))
    assert not shapes(encoder, tokenizer, 1.0, 64)[0].static_table
    asked = words(place, "single", "--teacher", str(tmp_path / "one"), "--megabytes", "1")
    train("embedding", asked)
    assert "table" not in [step["step"] for step in read_run(place / "single" / "run.json").compression]


def test_a_static_student_that_does_not_fit_is_refused_before_it_is_trained(place, tmp_path):
    asked = words(place, "unfit", "--layers", "1", "--backbone", str(wide_model(tmp_path)), "--table_from", "new")
    assert "of the teacher's 32 dimensions, and the student's table has 64" in refusal(train, "embedding", asked)
    asked = words(place, "unfit", *ONE_LAYER, "--table_from", "new", "--rotate", "true")
    assert "trains a static student on one teacher's own embeddings" in refusal(train, "embedding", asked)
    asked = words(place, "unfit", "--teacher", str(place / "static"), "--backbone", str(place / "teacher"))
    assert "--table_from new needs a teacher with a transformer inside" in refusal(
        train, "embedding", [*asked, "--table_from", "new"]
    )
    asked = words(place, "unfit", "--layers", "1", "--table_from", "new")
    del asked[asked.index("--metric") : asked.index("--metric") + 2]
    assert "--table_from new is of distill; name a static student's folder" in refusal(train, "leaf", asked)
    assert not list(place.glob("unfit*"))


def test_a_table_of_low_rank_starts_from_one_too(place, tmp_path):
    options = f"--layers 1 --table_rank 32 --table_from new --teacher {wide_model(tmp_path)}"
    train("embedding", words(place, "low", *options.split()))
    steps = [step["step"] for step in read_run(place / "low" / "run.json").compression]
    assert steps == ["table", "low rank"]
