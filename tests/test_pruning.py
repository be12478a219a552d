"""A vocabulary cut to the pieces that a text uses: WordPiece, BPE and Unigram."""

import logging

import numpy as np
import pytest
from datasets import Dataset
from tiny import WORDS, sentences, tiny_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from distilface.compression.pruning import count_pieces, prune_vocabulary
from distilface.compression.student import load_student
from distilface.model.folder import load, save_folder
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
TEXTS = [*sentences(300), "a dog's garden", "xylophone quiz", "happyhappy zzz"]
USED = Dataset.from_dict({"text": ["the dog runs", "a dog plays", "the dog"] * 5})


def wordpiece(place):
    model = tiny_model(place / "m")
    return model[0].model, model.tokenizer


def trained(model, trainer, mark=None) -> PreTrainedTokenizerFast:
    """Train a tokenizer with RoBERTa's special tokens on the texts."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace() if mark else pre_tokenizers.ByteLevel()
    tokenizer.decoder = decoders.Metaspace() if mark else decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends)
    roles = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, cls_token="<s>", sep_token="</s>", **roles)


def roberta(tokenizer):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return RobertaModel(RobertaConfig(vocab_size=len(tokenizer), pad_token_id=1, **sizes)).eval(), tokenizer


def bpe(place):
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    return roberta(trained(models.BPE(), trainer))


def unigram(place):
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>")
    return roberta(trained(models.Unigram(), trainer, "▁"))


KINDS = [(wordpiece, 70), (bpe, 280), (unigram, 50)]


@pytest.mark.parametrize(("make", "size"), KINDS, ids=["wordpiece", "bpe", "unigram"])
def test_what_was_known_stays_encodable(make, size, tmp_path, caplog):
    """And a text of kept pieces has the same pieces, the same rows of the table, and so the same vectors."""
    caplog.set_level(logging.INFO, logger="distilface")
    encoder, old = make(tmp_path)
    table, of = encoder.get_input_embeddings().weight.detach().clone(), len(old)
    before = encoder(**old(["the dog runs", "a dog"], padding=True, return_tensors="pt")).last_hidden_state
    new, pruning = prune_vocabulary(encoder, old, USED, size)
    assert (pruning.pieces, pruning.of, len(new), encoder.config.vocab_size) == (size, of, size, size)
    assert f"vocabulary: {size} of {of} pieces kept, 100.0% of the text; 0.0% more tokens" in caplog.text
    for token, row in new.get_vocab().items():
        assert np.array_equal(encoder.get_input_embeddings().weight[row].detach(), table[old.get_vocab()[token]])
    after = encoder(**new(["the dog runs", "a dog"], padding=True, return_tensors="pt")).last_hidden_state
    np.testing.assert_allclose(after.detach(), before.detach(), atol=1e-6)
    for text in TEXTS:
        one, other = old(text)["input_ids"], new(text)["input_ids"]
        assert one.count(old.unk_token_id) == other.count(new.unk_token_id), text
        assert new.decode(other, skip_special_tokens=True) == old.decode(one, skip_special_tokens=True)
    for role in ("pad_token_id", "unk_token_id", "cls_token_id", "sep_token_id"):
        assert new.convert_ids_to_tokens(getattr(new, role)) == old.convert_ids_to_tokens(getattr(old, role))
    assert encoder.config.pad_token_id == new.pad_token_id == encoder.get_input_embeddings().padding_idx


def test_pieces_are_kept_by_how_often_they_stand(tmp_path):
    encoder, tokenizer = wordpiece(tmp_path)
    counts = count_pieces(USED, tokenizer)
    by_hand = {word: sum(text.split().count(word) for text in USED["text"]) for word in WORDS.split()}
    assert {word: counts[tokenizer.get_vocab()[word]] for word in by_hand} == by_hand
    least = len(tokenizer) - len([word for word in set(WORDS.split()) if len(word) > 1])
    new, pruning = prune_vocabulary(encoder, tokenizer, USED, least + 2)
    assert {"dog", "the"} == {word for word in WORDS.split() if len(word) > 1 and word in new.get_vocab()}
    assert pruning.coverage == round((counts.sum() - by_hand["runs"] - by_hand["plays"]) / counts.sum(), 4)
    spelt = sum(len(word) * by_hand[word] for word in ("runs", "plays"))
    assert pruning.growth == round((by_hand["dog"] + by_hand["the"] + by_hand["a"] + spelt) / counts.sum(), 4)


def test_a_piece_whose_characters_do_not_exist_is_kept(tmp_path):
    """Dropped, it would be unknown: the dialogue's 'ö' is in no piece of its own."""
    encoder, tokenizer = wordpiece(tmp_path)
    content = tokenizer.backend_tokenizer
    vocabulary = {**content.get_vocab(), "köln": len(tokenizer)}
    content.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    encoder.resize_token_embeddings(len(tokenizer))
    new, _ = prune_vocabulary(encoder, tokenizer, USED, 70)
    assert "köln" in new.get_vocab()


def test_a_student_of_fewer_pieces_is_a_plain_folder(tmp_path):
    tiny_model(tmp_path / "m")
    steps = [lambda encoder, tokenizer: (encoder, prune_vocabulary(encoder, tokenizer, USED, 70)[0])]
    student = load_student(str(tmp_path / "m"), [0], steps=steps).eval()
    save_folder(student, tmp_path / "s")
    again = load(tmp_path / "s")
    np.testing.assert_allclose(again.encode(TEXTS[:9]), student.encode(TEXTS[:9]), atol=1e-6)
    assert again[0].model.get_input_embeddings().weight.shape == (70, 32)
    assert len(again.tokenizer) == 70


@pytest.mark.parametrize(
    ("size", "sentence"),
    [(5, r"--vocabulary 5 is too small: \d+ pieces are single characters or special"), (10**6, None)],
)
def test_a_size_out_of_range(size, sentence, tmp_path):
    encoder, tokenizer = wordpiece(tmp_path)
    if sentence:
        with pytest.raises(InputError, match=sentence):
            prune_vocabulary(encoder, tokenizer, USED, size)
    else:
        assert len(prune_vocabulary(encoder, tokenizer, USED, size)[0]) == len(tokenizer)


def test_another_kind_of_vocabulary_is_refused(tmp_path):
    encoder, _ = wordpiece(tmp_path)
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(InputError, match="a WordLevel vocabulary cannot be cut; WordPiece, BPE or Unigram can"):
        prune_vocabulary(encoder, PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]"), USED, 2)
