"""A token table taken from a static student: the vectors against numpy, what keeps its own, the training, refusals."""

import numpy as np
import pytest
from refusals import refusal
from runs import train
from tiny import sentences, tiny_backbone, tiny_model, write_content
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from distilface.cards.card import make_card
from distilface.compression.student import load_backbone
from distilface.compression.table import take_table
from distilface.model.folder import load
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
