"""A vocabulary for many languages, and an assistant that starts from an English teacher's embeddings."""

import json
import unicodedata

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import WORDS, tiny_model
from transformers import AutoTokenizer

from distilface.compression.student import load_backbone
from distilface.compression.vocabulary import make_assistant, new_table, train_tokenizer
from distilface.model.folder import load, save_folder
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
TEXTS = [
    "The dog runs in the park, and the cat sleeps.",
    "Der Hund läuft im Park, und die Katze schläft.",
    "Собака бежит в парке, а кошка спит.",
    "الكلب يجري في الحديقة والقطة نائمة",
    "狗在公园里跑，猫在睡觉。",
    "犬が公園を走り、猫が眠っている。",
    "Çocuk bahçede şarkı söylüyor.",
]


@pytest.fixture(scope="module")
def tokenizer():
    # The trainer of Unigrams sees a word only where it stands in several others.
    words = ["dog dogs doggy dogged dogma", "cat cats catty cattle", "park parks parked parking"]
    return train_tokenizer(Dataset.from_dict({"text": TEXTS * 3 + words * 9}), 400, 64)


def test_every_script_comes_back(tokenizer, tmp_path):
    """``AutoTokenizer`` may build another class for the model's family and lose the rules for reading text."""
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.model_input_names == ["input_ids", "attention_mask"]
    for text in [*TEXTS, "THE PARK\u3000and  ｔｈｅ dog"]:
        inputs = again(text)
        assert set(inputs) == {"input_ids", "attention_mask"}
        assert inputs["input_ids"] == tokenizer(text)["input_ids"]
        assert inputs["input_ids"][0] == tokenizer.cls_token_id
        assert inputs["input_ids"][-1] == tokenizer.sep_token_id
        assert tokenizer.unk_token_id not in inputs["input_ids"]
    for text in TEXTS:
        assert (
            again.decode(again(text)["input_ids"], skip_special_tokens=True)
            == unicodedata.normalize("NFKC", text).lower()
        )
    assert again("ｔｈｅ  Dog")["input_ids"] == again("the dog")["input_ids"]
    assert again(TEXTS, truncation=True, max_length=5)["input_ids"][0][-1] == tokenizer.sep_token_id
    assert [again.pad_token_id, again.unk_token_id, again.mask_token_id] == [0, 1, 4]


def test_case_is_kept_where_the_teacher_keeps_it():
    tokenizer = train_tokenizer(Dataset.from_dict({"text": TEXTS * 3}), 400, 64, lowercase=False)
    assert tokenizer("Der Hund")["input_ids"] != tokenizer("der hund")["input_ids"]


def test_a_vocabulary_too_small_for_the_characters():
    with pytest.raises(InputError, match="--vocabulary 40 cannot hold every character of the text"):
        train_tokenizer(Dataset.from_dict({"text": TEXTS}), 40)


def test_the_rows_of_the_new_table(tmp_path, tokenizer):
    tiny_model(tmp_path / "teacher")
    encoder, old = load_backbone(str(tmp_path / "teacher"))
    table = encoder.get_input_embeddings().weight.detach()
    new_rows = new_table(table, old, tokenizer)
    assert new_rows.shape == (len(tokenizer), 32)
    theirs, ours = old.get_vocab(), tokenizer.get_vocab()
    for token, row in ours.items():
        if token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"):
            expected = table[theirs[token]]
        elif token[0] == "▁" and token[1:] in theirs:
            expected = table[theirs[token[1:]]]
        elif token.isalnum() and "##" + token in theirs:
            expected = table[theirs["##" + token]]
        else:
            continue
        assert torch.equal(new_rows[row], expected), token
    assert torch.equal(new_rows[ours["▁dog"]], table[theirs["dog"]])
    pieces = [token for token in ours if token.strip("▁").isascii() and token.strip("▁").isalpha() and len(token) > 3]
    by_pieces = [token for token in pieces if token.strip("▁") not in theirs]
    assert by_pieces
    for token in by_pieces:
        rows = old(token.strip("▁"), add_special_tokens=False)["input_ids"]
        np.testing.assert_allclose(new_rows[ours[token]], table[rows].mean(0), atol=1e-6)
    foreign = torch.stack([new_rows[ours[token]] for token in ours if any("а" <= letter <= "я" for letter in token)])
    assert len(foreign) > 10
    assert (foreign - table.mean(0)).abs().max() < table.std()
    assert len(foreign.unique(dim=0)) == len(foreign)


@pytest.mark.parametrize("layers", [None, [1]])
def test_an_assistant_has_the_teachers_layers(layers, tmp_path):
    teacher = tiny_model(tmp_path / "teacher")
    texts = Dataset.from_dict({"text": TEXTS * 3})
    assistant = make_assistant(str(tmp_path / "teacher"), texts, 400, layers, normalize=True, max_seq_length=48)
    encoder, theirs = assistant[0].model, teacher[0].model
    kept = theirs.transformer.layer if layers is None else [theirs.transformer.layer[i] for i in layers]
    for mine, original in zip(encoder.transformer.layer, kept, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), original.parameters(), strict=True))
    assert torch.equal(encoder.embeddings.position_embeddings.weight, theirs.embeddings.position_embeddings.weight)
    assert encoder.config.vocab_size == len(assistant.tokenizer) == len(encoder.get_input_embeddings().weight)
    assert assistant.max_seq_length == 48
    vectors = assistant.eval().encode(TEXTS)
    save_folder(assistant, tmp_path / "assistant")
    assert np.abs(load(tmp_path / "assistant").encode(TEXTS) - vectors).max() < 1e-5
    kind = json.loads((tmp_path / "assistant" / "tokenizer_config.json").read_text())["tokenizer_class"]
    assert kind == "PreTrainedTokenizerFast"


def test_a_vocabulary_has_the_same_numbers_every_time():
    """The trainer's own order differs from run to run: a checkpoint would be read onto other tokens, unseen."""
    words = [" ".join(WORDS.split()[k % 7 :: 1 + k % 5]) for k in range(200)]
    texts = Dataset.from_dict({"text": [*TEXTS * 20, *words]})
    tokenizers = [train_tokenizer(texts, 300, 64) for _ in range(3)]
    pieces = [json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"] for tokenizer in tokenizers]
    names = [name for name, _ in pieces[0]]
    assert names[5:] == sorted(names[5:])
    assert len(names) > 100
    for other in pieces[1:]:
        assert [name for name, _ in other] == names
        np.testing.assert_allclose([score for _, score in other], [score for _, score in pieces[0]], atol=0.01)


def test_a_turkish_capital_is_the_letter_it_is(tokenizer):
    """Lower-cased by the rules of Unicode it is an i and a dot above, which no other word has."""
    assert tokenizer("İNSAN")["input_ids"] == tokenizer("insan")["input_ids"]
    assert tokenizer("  The dog\n")["input_ids"] == tokenizer("the dog")["input_ids"]
