"""The tokens by a memory of words: those of the library, on whatever text there is."""

import random
import shutil
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from tiny import sentences
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.processors import TemplateProcessing

from distilface.data.samples import python_texts
from distilface.json_files import read_json
from distilface.light import words as module
from distilface.light.tokens import Tokens
from distilface.light.words import Words, ids_of, knows_words
from distilface.runtimes.base import token_ids, words_of
from distilface.storage import write_json

SHIPPED = Path("models/minilm-5mb")
#: Letters, digits, signs, parts of special tokens, white space, and control characters that a BERT's normalizer drops.
LETTERS = "abcXYZ019 _-$+^`~[]|\\.,CLSEPMASK\t\n\r\x00\x01\x7f\x0b\x0c\x1f"
ODD = ["[SEP]", "[cls]", "[MASK]x", "é", "\ufffd", "狗", "a" * 101, "A" * 100, "İ", "\u2028", ""]


def fuzzed(count: int) -> list[str]:
    draw = random.Random(7)
    texts = ["".join(draw.choices(LETTERS, k=draw.randrange(14))) for _ in range(count)]
    return [text + (draw.choice(ODD) if draw.random() < 0.1 else "") for text in texts]


def tokenizer_of(lower: bool) -> Tokenizer:
    """Return a small BERT tokenizer: each sign and letter, and some pieces of several."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "abc", "##bc", "Xa", "xa", "##X", "##x", "01"]
    pieces += [mark + sign for mark in ("", "##") for sign in map(chr, range(33, 127)) if sign != "~"]
    tokenizer = Tokenizer(WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(pieces[:5])
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def library(tokenizer: Tokenizer, texts: list[str], special: bool) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=special).ids for text in texts]


@pytest.mark.parametrize("length", [None, 2, 3, 9])
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_the_tokens_are_the_librarys(lower, special, length):
    tokenizer, texts = tokenizer_of(lower), fuzzed(20_000)
    if length is not None:
        tokenizer.enable_truncation(length)
    cut = tokenizer.truncation
    words = Words(tokenizer, special)
    assert tokenizer.truncation == cut
    expected = library(tokenizer, texts, special)
    found = [words.ids(text, length) for text in texts]
    assert all(row in (None, ids) for row, ids in zip(found, expected, strict=True))
    told = sum(row is not None for row in found)
    assert 0.1 * len(texts) < told < len(texts), "some of both"
    assert ids_of(texts, words, length, lambda rows: library(tokenizer, rows, special)) == expected


def test_plain_text_is_told_by_its_words():
    """Where each text fell back to the library, every other test here would pass, and nothing be gained."""
    tokens = Tokens(SHIPPED)
    texts = [text for text in python_texts() if text.isascii()][:3000]
    assert all(tokens._words.ids(text, tokens.length) is not None for text in texts)
    assert tokens.ids(texts) == library(tokens._tokenizer, texts, True)


def test_the_words_that_are_remembered_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_WORDS", 10)
    tokenizer, texts = tokenizer_of(True), fuzzed(500)
    words = Words(tokenizer, True)
    for text in texts:
        words.ids(text, None)
        assert len(words) <= 10
    assert words.ids("abc X1", None) == tokenizer.encode("abc X1").ids


def test_only_the_words_of_a_bert_tell():
    assert knows_words(tokenizer_of(True))
    lowered = tokenizer_of(False)
    lowered.normalizer = normalizers.Sequence([normalizers.Lowercase(), lowered.normalizer])
    kept = tokenizer_of(True)
    kept.normalizer = normalizers.BertNormalizer(clean_text=False)
    split = tokenizer_of(True)
    split.pre_tokenizer = pre_tokenizers.Whitespace()
    added = tokenizer_of(True)
    added.add_tokens([f"new{number}" for number in range(20)])
    assert not any(map(knows_words, (lowered, kept, split, added)))


def test_a_text_that_is_cut_at_its_beginning_is_left_to_the_library(students, tmp_path):
    folder = shutil.copytree(students["mean"], tmp_path / "left")
    file = folder / "tokenizer_config.json"
    write_json(file, read_json(file) | {"truncation_side": "left"})
    assert Tokens(students["mean"])._words is not None
    assert Tokens(folder)._words is None
    model = SentenceTransformer(str(folder), device="cpu")
    assert words_of(model) is None
    long = " ".join(sentences(40))
    assert Tokens(folder).ids([long]) == token_ids(model, [long])


@pytest.mark.parametrize("folder", [SHIPPED, Path("models/minilm-static")], ids=["minilm-5mb", "minilm-static"])
def test_the_tokens_of_a_model_in_torch_are_its_own(folder):
    """With a prompt, cut at the length that the model has now."""
    model = SentenceTransformer(str(folder), device="cpu")
    words, texts = words_of(model), [*fuzzed(300), *python_texts()[:200], " ".join(sentences(60))]
    assert words is not None
    for prompt in ("", "query: ", "Frage für: "):
        assert token_ids(model, texts, prompt, words) == token_ids(model, texts, prompt)
    if folder == SHIPPED:
        model.max_seq_length = 8
        assert token_ids(model, texts, "", words) == token_ids(model, texts)
        assert max(map(len, token_ids(model, texts, "", words))) == 8


def test_words_that_would_tell_otherwise_are_not_asked(monkeypatch):
    """A model may have settings of its own for its tokenizer."""
    model = SentenceTransformer(str(SHIPPED), device="cpu")
    assert words_of(model) is not None
    model[0].processing_kwargs = {"text": {"add_special_tokens": False}}
    assert words_of(model) is None
