"""The captions that a script writes: sentences that can be read, and the same ones from the same seed."""

import re
from itertools import pairwise

import pytest
import yaml
from warm import TRAINING

from distilface.settings import InputError
from training.captions import captions, main

WORDS = yaml.safe_load((TRAINING / "captions.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def sentences():
    return captions(20_000)


def listed(content):
    """Return all texts of nested lists."""
    if isinstance(content, dict):
        content = [*content, *content.values()]
    return [content] if isinstance(content, str) else [text for each in content for text in listed(each)]


def test_the_same_seed_writes_the_same_lines(sentences):
    assert captions(500) == sentences[:500]
    assert len(set(captions(500, seed=1)) & set(sentences)) < 50
    assert len(set(sentences)) == 20_000


def test_the_sentences_are_english(sentences):
    """By rules of their own: articles, the number of the verb, the first letter, no word out of nowhere."""
    known = {word.lower() for text in listed(WORDS) for word in text.replace("{people}", "").split()}
    known |= {"a", "an", "the", "is", "are", "there", "no", "not", "being", "by", "while", "and"}
    known |= {"in", "wearing", "next", "to", "their", "themselves"}
    for sentence in sentences:
        words = sentence.removesuffix(".").lower().split()
        assert set(words) <= known, sentence
        assert sentence[0].isupper() or sentence == sentence.lower(), sentence
        for word, after in pairwise(words):
            assert word != "a" or after[0] not in "aeio", sentence
            assert word != "an" or after[0] in "aeiou", sentence
            assert word != after, sentence
        if words[0] in ("two", "three", "four", "five", "six", "several") and "while" not in words:
            assert "is" not in words, sentence
        wrong = re.search(r"^(there is the|there are no (few|couple)|teeth is|children is|itself) ", sentence.lower())
        assert not wrong, sentence
        found = re.fullmatch(r"(.*?) (?:is|are) being (\w+) by .*", sentence.lower())
        if found and found[2] in WORDS["passive"].values() and not {"is", "are"} & set(found[1].split()):
            assert not {"with", "into", "on", "itself", "dead"} & set(found[1].split()), sentence
        if words[0] in ("a", "an") and words[1] in WORDS["person"] and not {"and", "while"} & set(words):
            assert "are" not in words, sentence


@pytest.mark.parametrize(
    ("words", "share"), [(r" (is|are) not ", 0.02), (r"^there (is|are) no ", 0.03), (r" being \w+ by ", 0.01)]
)
def test_some_deny_it_and_some_turn_it_round(sentences, words, share):
    found = sum(bool(re.search(words, sentence.lower())) for sentence in sentences)
    assert share < found / len(sentences) < 3 * share


def test_the_script_writes_a_file_and_overwrites_none(tmp_path):
    file = tmp_path / "captions.txt"
    assert main(["--output", str(file), "--count", "300", "--seed", "3"]) == 300
    assert file.read_text(encoding="utf-8").splitlines() == captions(300, seed=3)
    with pytest.raises(InputError, match=r"captions\.txt exists"):
        main(["--output", str(file), "--count", "5"])
    assert len(file.read_text(encoding="utf-8").splitlines()) == 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--output is empty"),
        (["--output", "FOLDER/c.txt", "--count", "0"], "--count 0 is out of range"),
        (["--output", "FOLDER/c.txt", "--count", "1000001"], "--count 1000001 is out of range"),
        (["--output", "FOLDER/none/c.txt"], "none does not exist"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, words, message):
    with pytest.raises(InputError, match=message):
        main([word.replace("FOLDER", str(tmp_path)) for word in words])
    assert not list(tmp_path.iterdir())
