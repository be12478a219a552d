"""Masked-LM adaptation: upstream's loss on fewer tokens, BERT's masking, the held-out loss, the head that is kept."""

import json
import logging
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from tiny import sentences, tiny_backbone, tiny_bert
from torch import nn
from transformers import AutoModelForMaskedLM, DistilBertForMaskedLM, DistilBertModel, PreTrainedTokenizerBase

from distilface.compression.student import load_student
from distilface.methods import mlm
from distilface.settings import InputError
from distilface.training.settings import TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return tiny_backbone(tmp_path / "backbone")


@pytest.fixture
def masked(backbone: Path) -> tuple[mlm.MaskedLM, PreTrainedTokenizerBase]:
    torch.manual_seed(0)
    return mlm.load_masked_lm(str(backbone))


def plain_copy(model: mlm.MaskedLM) -> DistilBertForMaskedLM:
    plain = DistilBertForMaskedLM(model.config).to(model.dtype)
    plain.load_state_dict(model.state_dict())
    return plain.eval()


def tokens_of(texts: list[str], tokenizer: PreTrainedTokenizerBase, limit: int = 48) -> Dataset:
    return mlm.prepare(Dataset.from_dict({"text": texts}), tokenizer, limit)


def masked_batch(tokens: Dataset, tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    return mlm.BatchSeededMasking(tokenizer, mlm_probability=0.15)([{"input_ids": ids} for ids in tokens["input_ids"]])


@pytest.mark.parametrize("rows", [24, 1])
def test_masked_lm_is_upstreams_loss_and_gradient(masked, rows):
    model, tokenizer = masked
    model = model.double().eval()
    plain = plain_copy(model)
    inputs = masked_batch(
        tokens_of(["a dog runs in the park near the old red house", *sentences(rows - 1)], tokenizer), tokenizer
    )
    assert (inputs["labels"] != -100).any()
    ours, theirs = model(**inputs), plain(**inputs)
    reference = oracles.masked_lm(theirs.logits.detach().numpy(), inputs["labels"].numpy())
    assert ours.loss.item() == pytest.approx(reference, rel=1e-9)
    assert ours.loss.item() == pytest.approx(theirs.loss.item(), rel=1e-9)
    ours.loss.backward()
    theirs.loss.backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    assert {name for name, _ in model.named_parameters()} == set(expected)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-9, msg=name)
    assert expected["distilbert.embeddings.word_embeddings.weight"].abs().max() > 1e-3, "the comparison sees something"


def test_masked_lm_without_labels_is_upstreams_forward(masked):
    model, tokenizer = masked
    model.eval()
    inputs = tokenizer(sentences(3), padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, plain_copy(model)(**inputs).logits)


def test_a_batch_with_nothing_masked_teaches_nothing(masked):
    """A last batch of one short sentence often has no masked token; upstream's NaN would stop the training."""
    model, tokenizer = masked
    inputs = dict(tokenizer(["a dog"], return_tensors="pt"))
    inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
    loss = model.train()(**inputs).loss
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())


def test_masks_depend_on_the_batch_alone(masked):
    """Silent if broken: a resumed run would train on other masks than one that was never stopped."""
    _, tokenizer = masked
    rows = tokens_of(sentences(32), tokenizer)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = masked_batch(rows, tokenizer)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is left to the dropout"
    torch.manual_seed(2)
    collator = mlm.BatchSeededMasking(tokenizer, mlm_probability=0.15)
    collator([{"input_ids": ids} for ids in rows["input_ids"][:7]])
    again = collator([{"input_ids": ids, "length": len(ids)} for ids in rows["input_ids"]])
    assert all(torch.equal(first[name], again[name]) for name in ("input_ids", "attention_mask", "labels"))
    assert set(first) == {"input_ids", "attention_mask", "labels"}
    shuffled = masked_batch(rows.select([*range(1, 32), 0]), tokenizer)
    moved = torch.cat([shuffled["labels"][-1:], shuffled["labels"][:-1]])
    assert not torch.equal(moved, first["labels"]), "another order, other masks: an epoch does not repeat the last"


def test_masking_is_berts(masked):
    """15% of the tokens, of them 80% [MASK], 10% another, 10% kept: counted, within four standard deviations."""
    _, tokenizer = masked
    chosen_count = usual_count = to_mask = to_same = 0
    collator = mlm.BatchSeededMasking(tokenizer, mlm_probability=0.15)
    for seed in range(40):
        rows = tokenizer(sentences(64, seed))["input_ids"]
        batch = {name: tensor.numpy() for name, tensor in collator([{"input_ids": ids} for ids in rows]).items()}
        ids = np.full_like(batch["input_ids"], tokenizer.pad_token_id)
        for row, tokens in zip(ids, rows, strict=True):
            row[: len(tokens)] = tokens
        usual = ~np.isin(ids, tokenizer.all_special_ids)
        chosen = batch["labels"] != -100
        assert (batch["attention_mask"] == (ids != tokenizer.pad_token_id)).all()
        assert not chosen[~usual].any(), "neither [CLS] nor [SEP] nor padding is masked"
        assert (batch["labels"][chosen] == ids[chosen]).all(), "the label is the token that was there"
        assert (batch["input_ids"][~chosen] == ids[~chosen]).all(), "other tokens stay as they are"
        usual_count += usual.sum()
        chosen_count += chosen.sum()
        to_mask += (batch["input_ids"][chosen] == tokenizer.mask_token_id).sum()
        to_same += (batch["input_ids"][chosen] == ids[chosen]).sum()

    def check(count, of, share):
        assert abs(count - share * of) < 4 * np.sqrt(share * (1 - share) * of), (count, of, share)

    check(chosen_count, usual_count, 0.15)
    by_chance = 0.1 / len(tokenizer)
    check(to_mask, chosen_count, 0.8 + by_chance)
    check(to_same, chosen_count, 0.1 + by_chance)


def test_prepare_cuts_and_counts(masked):
    _, tokenizer = masked
    tokens = tokens_of(["a dog", " ".join(["park"] * 30)], tokenizer, limit=10)
    assert tokens.column_names == ["input_ids", "length"]
    assert tokens["length"][:] == [4, 10]
    assert tokenizer.decode(tokens["input_ids"][0]) == "[CLS] a dog [SEP]"
    assert tokens["input_ids"][1][-1] == tokenizer.sep_token_id


def test_held_out_loss_is_the_mean_over_masked_tokens(masked):
    model, tokenizer = masked
    tokens = tokens_of(sentences(150), tokenizer)
    model.train()
    first = mlm.held_out_loss(model, tokens, tokenizer)
    assert model.training
    torch.manual_seed(3)
    assert mlm.held_out_loss(model, tokens, tokenizer) == first, "no dropout, the same masks"
    assert all(parameter.grad is None for parameter in model.parameters())

    plain, rows, losses, counts = plain_copy(model), tokens.sort("length"), [], []
    for start in range(0, 150, 64):
        inputs = masked_batch(rows.select(range(start, min(start + 64, 150))), tokenizer)
        with torch.no_grad():
            losses.append(oracles.masked_lm(plain(**inputs).logits.double().numpy(), inputs["labels"].numpy()))
        counts.append(int((inputs["labels"] != -100).sum()))
    assert first == pytest.approx(np.average(losses, weights=counts), rel=1e-5)
    with pytest.raises(InputError, match="too few or too short"):
        mlm.held_out_loss(model, tokens_of(["", ""], tokenizer), tokenizer)


def test_masked_lm_learns_repetitive_text(masked):
    model, tokenizer = masked
    text = [f"the {a} {v} in the {p}" for a in ("dog", "cat") for v in ("runs", "sleeps") for p in ("park", "house")]
    tokens, held_out = tokens_of(text * 8, tokenizer), tokens_of(text * 4, tokenizer)
    before = mlm.held_out_loss(model, held_out, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        rows = np.random.default_rng(step).permutation(64)[:32]
        model.train()(**masked_batch(tokens.select(rows), tokenizer)).loss.backward()
        optimizer.step()
    assert before == pytest.approx(np.log(len(tokenizer)), rel=0.1), "an untrained head knows nothing"
    assert mlm.held_out_loss(model, held_out, tokenizer) < before / 2


def test_a_saved_backbone_keeps_its_head(masked, tmp_path, monkeypatch):
    """Silent if broken: a fresh head on top of the adapted encoder, and the score of another model."""
    model, tokenizer = masked
    own = model.config.dropout
    mlm.set_dropout(model, 0.0)
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.0}
    tokens = tokens_of(sentences(40), tokenizer)
    settings = TrainSettings(output_dir=str(tmp_path / "out"), steps=1, bf16="no")
    _, measure = mlm.backbone_trainer(model, tokenizer, tokens, tokens, settings)
    measure.save(model, tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["DistilBertForMaskedLM"]
    assert config["dropout"] == config["attention_dropout"] == own > 0
    again = measure.load(tmp_path / "saved")
    assert all(torch.equal(weight, again.state_dict()[name]) for name, weight in model.state_dict().items())
    assert measure.score(again) == pytest.approx(measure.score(model), abs=1e-6)
    assert measure.gain(4.0, 5.0) == 1.0, "a lower loss is better"
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path / "saved").eval()
    inputs = tokenizer(sentences(2), padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, model.eval()(**inputs).logits)
    said: list[logging.LogRecord] = []
    for name in ("modeling_utils", "distributed.tensor_parallel"):
        monkeypatch.setattr(logging.getLogger(f"transformers.{name}"), "callHandlers", said.append)
    assert load_student(str(tmp_path / "saved")).get_embedding_dimension() == 32
    assert not said, "a table of the head's weights, for one who asked for the encoder"
    DistilBertModel.from_pretrained(tmp_path / "saved")
    assert said, "the test has lost transformers' logger"


def test_a_fresh_head_is_tied_to_the_word_embeddings(backbone):
    model, _ = mlm.load_masked_lm(str(backbone))
    words = model.distilbert.embeddings.word_embeddings.weight
    assert model.vocab_projector.weight is words
    encoder = DistilBertModel.from_pretrained(backbone)
    assert torch.equal(words, encoder.embeddings.word_embeddings.weight)
    cut, _ = mlm.load_masked_lm(str(backbone), layers=[1])
    assert cut.config.n_layers == 1
    theirs, ours = encoder.transformer.layer[1].state_dict(), cut.distilbert.transformer.layer[0].state_dict()
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())


def test_only_a_distilbert_with_a_mask_token_is_adapted(tmp_path):
    bert = tiny_bert(tmp_path / "bert")
    with pytest.raises(InputError, match=r"is a bert encoder.*--layers"):
        mlm.load_masked_lm(bert)
    assert mlm.load_masked_lm(bert, layers=[0])[0].config.model_type == "distilbert"
