"""Families beyond BERT: each use of each works, or is refused in the sentence that the page of families states."""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from families import FAMILIES, LENGTH, save_backbone, words_tokenizer
from family_uses import EXPORTED_FAST, PAGE, TEXTS, USES, Place, outcome, page, read_page
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from torch import nn

from distilface.compression.student import load_backbone, load_student
from distilface.compression.vocabulary import make_assistant
from distilface.methods.simcse import SimCSELoss
from distilface.model.families import dropout_settings, is_causal, make_usable, padding_position, positions
from distilface.model.folder import load, save_folder
from distilface.model.loading import load_model
from distilface.model.pooling import pooling_code
from distilface.settings import InputError
from distilface.training.student import check_dropout
from distilface.training.teacher import load_teacher

AFTER_PADDING = ("roberta", "xlm-roberta", "mpnet")
DECODERS = ("qwen3", "gemma3")
LONG = " ".join(["dog"] * 100)


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> dict[str, Place]:
    """Name a place for each family; its models are made where they are first asked for."""
    root = tmp_path_factory.mktemp("families")
    return {name: Place(name, root / name) for name in FAMILIES}


def cells() -> list:
    """List the cells of the table; exports of all but a few families take seconds each."""
    slow = [(name, use) for name in FAMILIES for use in USES if use == "export" and name not in EXPORTED_FAST]
    return [
        pytest.param(name, use, marks=[pytest.mark.slow] if (name, use) in slow else [], id=f"{name}-{use}")
        for name in FAMILIES
        for use in USES
    ]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(("name", "use"), cells())
def test_the_page_says_what_happens(places, name, use):
    assert outcome(places[name], use) == read_page()[name, use]


def test_the_page_is_what_its_cells_make():
    """Every cell is tried above: so the page, made of its own cells, is the one that they make."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(read_page()) == text
    assert f"({LENGTH} tokens)" in text


@pytest.mark.parametrize("name", FAMILIES)
def test_an_encoder_tells_its_positions_and_its_direction(places, name):
    """Positions are counted from the padding; the direction is measured."""
    encoder = load_backbone(str(places[name].backbone))[0]
    assert positions(encoder) == (None if name == "t5" else LENGTH)
    assert padding_position(encoder) == (1 if name in AFTER_PADDING else None)
    assert is_causal(encoder) == (name in DECODERS)


@pytest.mark.parametrize("door", [load_teacher, load_model, load_student, load])
@pytest.mark.parametrize("name", AFTER_PADDING)
def test_every_door_cuts_at_what_can_be_placed(places, name, door, tmp_path):
    """A model that names no length, or all its positions, would fail at the first long text of a pass."""
    source = places[name].published
    if door is load:  # a model folder of someone else
        model = SentenceTransformer(str(source), device="cpu")
        model.max_seq_length = LENGTH
        folder = save_folder(model, tmp_path / "folder")
        for file in (folder.path / "sentence_bert_config.json", folder.path / "tokenizer_config.json"):
            file.write_text(file.read_text().replace(str(LENGTH), str(LENGTH + 2)))
        source = folder.path
    assert SentenceTransformer(str(source), device="cpu").max_seq_length == LENGTH + 2
    model = door(str(source)).cpu()
    assert model.max_seq_length == LENGTH
    assert np.isfinite(model.encode([LONG, "dog"])).all()


def test_a_length_is_no_more_than_can_be_placed(places, tmp_path):
    source = str(places["roberta"].published)
    model = SentenceTransformer(source, device="cpu")
    assert save_folder(model, tmp_path / "folder").load().max_seq_length == LENGTH
    for make in (partial(save_folder, model, tmp_path / "other"), partial(load_student, source)):
        with pytest.raises(InputError, match=f"max_seq_length {LENGTH + 1} is out of range; the encoder has {LENGTH}"):
            make(max_seq_length=LENGTH + 1)


def test_t5_needs_a_length_and_takes_any(places, tmp_path):
    model = SentenceTransformer(str(places["t5"].backbone), device="cpu")
    with pytest.raises(InputError, match="a t5 encoder names no length; give the model a max_seq_length, as 512"):
        save_folder(model, tmp_path / "folder")
    assert save_folder(model, tmp_path / "folder", max_seq_length=700).load().max_seq_length == 700
    assert load_student(str(places["t5"].backbone)).max_seq_length == 512


def test_a_t5_encoder_is_whole_without_a_decoder(places, tmp_path):
    """sentence-transformers writes the encoder alone; to ``AutoModel`` the decoder's weights are missing."""
    place = places["t5"]
    student = load_student(str(place.published), max_seq_length=LENGTH)
    place.check(student.encode(TEXTS))
    assert len(load_backbone(str(place.backbone))[0].state_dict()) == len(student[0].model.state_dict())
    broken = transformers.T5EncoderModel.from_pretrained(place.backbone)
    weights = {name: weight for name, weight in broken.state_dict().items() if "block.1" not in name}
    broken.save_pretrained(tmp_path, state_dict=weights)
    words_tokenizer(FAMILIES["t5"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"is not a whole model: 8 weights are missing, as encoder\.block\.1"):
        load_backbone(str(tmp_path))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_dropout_inside_an_encoder_is_set(places, name, caplog):
    """An attention may drop out by a number of its own, which no module of torch shows."""
    caplog.set_level(logging.INFO)
    student = load_student(str(places[name].backbone), pooling=places[name].pooling, dropout=0.3)
    rates = [module.p for module in student.modules() if isinstance(module, nn.Dropout)]
    for module in student.modules():
        rates += [value for key, value in vars(module).items() if "dropout" in key and isinstance(value, float)]
    assert set(rates) == {0.3}
    config = student[0].model.config
    assert f"dropout 0.3: {', '.join(dropout_settings(config, 0.3))}" in caplog.text


def test_dropouts_that_no_embedding_meets_are_left():
    config = transformers.BertConfig(classifier_dropout=0.2)
    assert set(dropout_settings(config, 0.3)) == {"hidden_dropout_prob", "attention_probs_dropout_prob"}
    assert set(dropout_settings(transformers.GPT2Config(), 0.3)) == {"resid_pdrop", "embd_pdrop", "attn_pdrop"}
    assert dropout_settings(transformers.MambaConfig(), 0.0) == {}
    with pytest.raises(InputError, match=r"--dropout 0\.1 has no effect: a mamba encoder has no dropout"):
        dropout_settings(transformers.MambaConfig(), 0.1)


def test_a_dropout_of_attention_alone_is_known(places, caplog):
    """A Qwen3 has no module of dropout: it would be said to have none, and be asked for the one that was just set."""
    source = str(places["qwen3"].backbone)
    student = load_student(source, pooling="lasttoken", dropout=0.1)
    assert SimCSELoss(student)
    with pytest.raises(InputError, match="the student has no dropout"):
        SimCSELoss(load_student(source, pooling="lasttoken"))
    check_dropout(student, 0.1)
    assert "has no effect" not in caplog.text
    check_dropout(student, 0.3)
    assert "--dropout 0.3 has no effect on this qwen3 encoder: it has 0.1" in caplog.text


@pytest.mark.parametrize("pooling", ["mean", "cls", "last4"])
@pytest.mark.parametrize("name", DECODERS)
def test_a_new_decoder_is_pooled_by_its_last_token(places, name, pooling):
    """By the mean it trains and scores badly, silently: most of its tokens have read little."""
    with pytest.raises(InputError, match=f"--pooling {pooling} is refused; set --pooling lasttoken"):
        load_student(str(places[name].backbone), pooling=pooling)


def test_a_gemma_that_reads_both_ways_takes_the_mean(tmp_path):
    folder = str(save_backbone("gemma3", tmp_path, use_bidirectional_attention=True))
    assert np.isfinite(load_student(folder, pooling="mean").encode(TEXTS)).all()


@pytest.mark.parametrize("name", DECODERS)
def test_the_last_token_is_found_on_both_sides(places, name):
    place = places[name]
    model = load_teacher(str(place.published), device="cpu")
    for side in ("left", "right"):
        model.tokenizer.padding_side = side
        assert bool(model.preprocess(TEXTS)["attention_mask"][0, 0]) == (side == "right")
        place.check(model.encode(TEXTS))


def without_padding(place: Place, folder: Path) -> str:
    """Save a model whose tokenizer has no padding token."""
    family = FAMILIES[place.name]
    roles = {role: token for role, token in family.roles.items() if role != "pad_token"}
    model = SentenceTransformer(str(place.published), device="cpu")
    model[0].processor = words_tokenizer(replace(family, roles=roles))
    model.max_seq_length = LENGTH
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)


@pytest.mark.parametrize("name", ["qwen3", "gemma3", "roberta", "t5"])
def test_a_tokenizer_without_padding_gets_one(places, name, tmp_path, caplog):
    """A pass would fail at its first batch of two lengths."""
    caplog.set_level(logging.INFO)
    place, source = places[name], without_padding(places[name], tmp_path / "model")
    with pytest.raises(ValueError, match="padding token"):
        SentenceTransformer(source, device="cpu").encode(TEXTS)
    with pytest.raises(InputError, match=r"no padding token; load the model by distilface\.load"):
        save_folder(SentenceTransformer(source, device="cpu"), tmp_path / "refused")
    for model in (load_teacher(source), load_model(source), load_student(source, pooling=place.pooling)):
        place.check(model.cpu().encode(TEXTS))
    place.check(save_folder(load_model(source).cpu(), tmp_path / "folder").load().encode(TEXTS))
    assert "the tokenizer has no padding token; it pads with" in caplog.text


def test_no_token_that_could_be_padding(places, tmp_path):
    family = replace(FAMILIES["qwen3"], roles={})
    model = SentenceTransformer(str(places["qwen3"].published), device="cpu")
    model[0].processor = words_tokenizer(family)
    with pytest.raises(InputError, match="the tokenizer of a qwen3 encoder has no padding token, so texts of two"):
        make_usable(model)


@pytest.mark.parametrize("mode", ["cls", "mean", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_card_pools_on_both_sides(places, mode, side):
    """Lines for a padding on the right would take the padding of a decoder for its text, silently."""
    transformer = Transformer(str(places["qwen3"].backbone))
    transformer.tokenizer.padding_side = side
    model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=mode)], device="cpu").eval()
    inputs = transformer.tokenizer(TEXTS, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        names = {"torch": torch, "inputs": inputs, "output": transformer.model(**inputs)}
    exec("\n".join(pooling_code(model)), names)
    expected = np.concatenate([model.encode([text]) for text in TEXTS])
    assert np.abs(names["embeddings"].numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("name", AFTER_PADDING)
def test_a_new_vocabulary_keeps_the_positions(places, name):
    """With the padding under another id, every token would stand at another position than it was trained at."""
    texts = Dataset.from_dict({"text": [*TEXTS, *FAMILIES]})
    student = make_assistant(str(places[name].backbone), texts, 60)
    assert student.tokenizer.pad_token_id == 1
    seen = []
    table = student[0].model.embeddings.position_embeddings
    table.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].tolist()))
    student.encode(["a dog"])
    assert seen == [[list(range(2, 2 + student.preprocess(["a dog"])["input_ids"].shape[1]))]]
