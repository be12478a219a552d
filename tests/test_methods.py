"""The three objectives, against their papers' equations in float64 numpy, and what each must do to a model."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from students import Emitter, features, numbers, unit
from tiny import PAIRS, sentences, tiny_backbone, tiny_model
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    DistilBertForMaskedLM,
    DistilBertModel,
    PreTrainedTokenizerBase,
)

from distilface.compression.student import load_student
from distilface.methods import embedding, mlm, simcse
from distilface.model.folder import load, save_folder
from distilface.model.pooling import is_normalized
from distilface.settings import InputError
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.trainer import LOSS_STATE, EncoderTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- tiny students, text and training


def asks_gradient(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]


def mean_cosine(vectors: np.ndarray) -> float:
    cosines = unit(vectors) @ unit(vectors).T
    return float(cosines[~np.eye(len(vectors), dtype=bool)].mean())


def train(loss: nn.Module, batch: Callable[[int], tuple], steps: int, rate: float) -> None:
    torch.manual_seed(0)
    loss.train()
    optimizer = torch.optim.AdamW(loss.parameters(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        loss(*batch(step)).backward()
        optimizer.step()
    loss.eval()


@pytest.fixture
def student(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "student")


@pytest.fixture
def teacher(tmp_path: Path) -> SentenceTransformer:
    return tiny_model(tmp_path / "teacher", seed=7).requires_grad_(False).eval()


def trainer_of(loss: nn.Module, dataset: Dataset, folder: Path) -> EncoderTrainer:
    dev = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS])
    settings = TrainSettings(output_dir=str(folder), steps=1, batch_size=2, bf16="no")
    return encoder_trainer(loss.model, loss, dataset, dev, settings)[0]


# ---- SimCSE


@pytest.mark.parametrize("head", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_simcse_is_the_papers_equation(temperature, head):
    loss = simcse.SimCSELoss(Emitter(5), scale=1 / temperature, mlp_head=head).double()
    views = [numbers(4, 5, seed=1), numbers(4, 5, seed=3)]

    def mapped(x):
        if not head:
            return x
        weight, bias = (p.detach().numpy() for p in loss.head[0].parameters())
        return np.tanh(x @ weight.T + bias)

    def expected(first, second):
        return oracles.simcse(mapped(first), mapped(second), temperature)

    given = asks_gradient(*views)
    value = loss([{"given": view} for view in given], None)
    value.backward()
    assert value.item() == pytest.approx(expected(*views), rel=1e-9)
    assert value.item() != pytest.approx(expected(*views[::-1]), rel=1e-6), "one direction only"
    first = oracles.gradient(lambda x: expected(x, views[1]), views[0])
    second = oracles.gradient(lambda x: expected(views[0], x), views[1])
    np.testing.assert_allclose(given[0].grad.numpy(), first, atol=1e-6)
    np.testing.assert_allclose(given[1].grad.numpy(), second, atol=1e-6)


def test_simcse_views_differ_by_dropout_alone(student, monkeypatch):
    """Silent if broken: two equal views give a smooth loss curve and teach nothing."""
    seen = []
    monkeypatch.setattr(simcse.SimCSELoss, "compute_loss_from_embeddings", lambda self, e, labels: seen.extend(e))
    loss = simcse.SimCSELoss(student)
    rows = simcse.prepare(Dataset.from_dict({"text": sentences(6)}))
    assert rows.column_names == ["sentence1", "sentence2"]
    assert rows["sentence1"][:] == rows["sentence2"][:] == sentences(6)
    columns = [features(student, rows[name][:]) for name in rows.column_names]
    loss.train()
    loss([dict(column) for column in columns], None)
    assert (seen[0] - seen[1]).abs().max(1).values.min() > 1e-3, "every sentence has two views"
    loss.eval()
    loss([dict(column) for column in columns], None)
    torch.testing.assert_close(seen[2], seen[3])


def test_simcse_refuses_a_student_without_dropout(tmp_path):
    backbone = str(tiny_backbone(tmp_path / "backbone"))
    with pytest.raises(InputError, match=r"no dropout.*--dropout 0\.1"):
        simcse.SimCSELoss(load_student(backbone, dropout=0.0))
    simcse.SimCSELoss(load_student(backbone))


def test_simcse_spreads_the_embeddings(student):
    texts, unseen = sentences(32), sentences(64, seed=1)
    before = mean_cosine(student.encode(unseen))
    loss = simcse.SimCSELoss(student)
    tokens = features(student, texts)
    train(loss, lambda step: ([dict(tokens), dict(tokens)], None), steps=25, rate=1e-3)
    assert mean_cosine(student.encode(unseen)) < before - 0.2


@pytest.mark.parametrize("make", ["head", "projection"])
def test_what_lives_on_the_loss_is_trained_and_kept_but_not_published(student, tmp_path, make):
    """Silent if broken: an untrained or forgotten layer only makes the score a little worse."""
    texts = sentences(6)
    if make == "head":
        loss = simcse.SimCSELoss(student, mlp_head=True)
        dataset, own = simcse.prepare(Dataset.from_dict({"text": texts})), list(loss.head.parameters())
    else:
        dataset = Dataset.from_dict({"text": texts, "label": numbers(6, 40).tolist()})
        loss = embedding.make_loss(student, dataset, projection=True)
        own = list(loss.projection.parameters())
    trainer = trainer_of(loss, dataset, tmp_path / "out")
    trained = {id(p) for group in trainer.create_optimizer().param_groups for p in group["params"]}
    assert trained == {id(p) for p in loss.parameters()}
    assert trained == {id(p) for p in (*student.parameters(), *own)}
    assert {name.split(".")[0] for name in loss.state_dict()} == {"model", make}

    trainer._save(str(tmp_path / "checkpoint"))
    kept = load_file(tmp_path / "checkpoint" / LOSS_STATE)
    assert all(name.startswith(make) for name in kept)
    assert len(kept) == 2
    save_folder(student, tmp_path / "folder")
    published = {name for file in (tmp_path / "folder").rglob("*.safetensors") for name in load_file(file)}
    assert published == set(student[0].model.state_dict())
    assert not list((tmp_path / "folder").rglob(f"*{LOSS_STATE}"))
    assert load(tmp_path / "folder").get_embedding_dimension() == 32


# ---- embedding distillation


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("metric", ["mse", "cosine", "l2"])
def test_embedding_loss_is_its_equation(metric, projected):
    given, target = numbers(4, 5, seed=1), numbers(4, 7 if projected else 5, seed=2)
    sample = numbers(20, 7, seed=3) if projected else None
    loss = embedding.EmbeddingLoss(Emitter(5), metric, sample).double()
    weight, bias = (p.detach().numpy() for p in loss.parameters()) if projected else (np.eye(5), np.zeros(5))

    def expected(x, weight=weight):
        return oracles.distance(metric, x @ weight.T + bias, target)

    student, labels = asks_gradient(given, target)
    value = loss([{"given": student}], labels)
    value.backward()
    assert value.item() == pytest.approx(expected(given), rel=1e-9)
    np.testing.assert_allclose(student.grad.numpy(), oracles.gradient(expected, given), atol=1e-6)
    assert labels.grad is None, "the teacher's embeddings are fixed"
    if projected:
        by_weight = oracles.gradient(lambda w: expected(given, w), weight)
        np.testing.assert_allclose(loss.projection.weight.grad.numpy(), by_weight, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "teacher_width", "width", "rank"),
    [(40, 12, 5, 12), (40, 12, 5, 4), (4, 12, 8, 12), (40, 6, 8, 6)],
    ids=["narrower", "of low rank", "fewer rows than dimensions", "wider"],
)
def test_projection_starts_at_the_principal_components(rows, teacher_width, width, rank):
    target = numbers(rows, rank, seed=1) @ numbers(rank, teacher_width, seed=2) + 3
    mean, components, left_out = oracles.principal_components(target, width)
    loss = embedding.EmbeddingLoss(Emitter(width), "mse", target).double()
    weight = loss.projection.weight.detach().numpy()
    np.testing.assert_allclose(loss.projection.bias.detach().numpy(), mean, atol=1e-5)
    count = np.linalg.matrix_rank(target - mean, tol=1e-6)
    for i in range(min(count, width)):
        np.testing.assert_allclose(
            abs(components[i] @ weight[:, i]), 1, atol=1e-5, err_msg=f"component {i}, up to sign"
        )

    emitted = (target - mean) @ weight
    value = loss([{"given": torch.from_numpy(emitted)}], torch.from_numpy(target))
    value.backward()
    assert value.item() == pytest.approx(left_out, rel=1e-4, abs=1e-8)
    assert left_out < 1e-20 or rank > width
    for name, parameter in loss.named_parameters():
        assert parameter.grad.abs().max() < 1e-4, f"{name} is at its optimum"


def test_make_loss_reads_a_sample_of_the_labels(student, monkeypatch):
    labels = numbers(30, 40, seed=1) + 2
    dataset = Dataset.from_dict({"text": sentences(30), "label": labels.tolist()})
    assert embedding.make_loss(student, dataset).projection is None
    loss = embedding.make_loss(student, dataset.with_format("torch"), "l2", projection=True)
    assert loss.projection.weight.shape == (40, 32)
    np.testing.assert_allclose(loss.projection.bias.detach(), labels.mean(0), atol=1e-5)
    monkeypatch.setattr(embedding, "PCA_ROWS", 2)
    loss = embedding.make_loss(student, dataset, projection=True)
    np.testing.assert_allclose(loss.projection.bias.detach(), labels[[0, -1]].mean(0), atol=1e-5)


def test_widths_that_differ_need_a_projection(student):
    wider = Emitter(48)
    embedding.check_widths(student, student, projection=False)
    embedding.check_widths(student, wider, projection=True)
    with pytest.raises(InputError, match=r"48 dimensions and the student's 32; add --projection true"):
        embedding.check_widths(student, wider, projection=False)


def test_is_normalized(student):
    assert not is_normalized(student)
    assert is_normalized(SentenceTransformer(modules=[*student.children(), Normalize()], device="cpu"))


@pytest.mark.parametrize("metric", ["mse", "cosine", "l2"])
def test_distillation_brings_the_student_to_its_teacher(student, teacher, tmp_path, metric):
    texts, unseen = sentences(64), sentences(64, seed=1)

    def closeness():
        return float((unit(student.encode(unseen)) * unit(teacher.encode(unseen))).sum(1).mean())

    before = closeness()
    untouched = {name: weight.clone() for name, weight in teacher.state_dict().items()}
    rows = embedding.prepare(Dataset.from_dict({"text": texts}), teacher, tmp_path / "cache")
    assert rows.column_names == ["text", "label"]
    labels = rows["label"][:]
    assert labels.dtype == torch.float32, "read as tensors: lists of Python floats cost a part of every step"
    assert isinstance(rows[0]["text"], str)
    assert nn.functional.cosine_similarity(labels, torch.tensor(teacher.encode(texts))).min() > 0.999

    batches = [(features(student, texts[i : i + 16]), labels[i : i + 16]) for i in range(0, 64, 16)]

    def batch(step):
        tokens, target = batches[step % 4]
        return [dict(tokens)], target

    train(embedding.make_loss(student, rows, metric), batch, steps=100, rate=3e-3)
    assert before < 0.3
    assert closeness() > before + 0.5
    assert all(torch.equal(weight, untouched[name]) for name, weight in teacher.state_dict().items())


# ---- both sentence losses


def losses(student: SentenceTransformer) -> list[tuple[nn.Module, int, torch.Tensor | None]]:
    """List each loss with its number of text columns and the labels of three sentences."""
    wide = torch.tensor(numbers(3, 40), dtype=torch.float32)
    return [
        (simcse.SimCSELoss(student), 2, None),
        (simcse.SimCSELoss(student, mlp_head=True), 2, None),
        (embedding.EmbeddingLoss(student, "mse"), 1, wide[:, :32]),
        (embedding.EmbeddingLoss(student, "cosine", wide.numpy()), 1, wide),
    ]


def test_gradients_reach_every_weight_of_the_student(student):
    for loss, columns, labels in losses(student):
        loss.train()
        loss.zero_grad()
        loss([features(student, sentences(3)) for _ in range(columns)], labels).backward()
        without = {name for name, p in loss.named_parameters() if p.grad is None or not p.grad.abs().sum()}
        # a bias that is added to every key of a softmax alike changes nothing
        assert {name for name in without if "k_lin.bias" not in name} == set(), type(loss).__name__


def test_padding_changes_nothing(student):
    for loss, columns, labels in losses(student):
        loss.eval()
        tight = [features(student, sentences(3)) for _ in range(columns)]
        wide = [features(student, sentences(3), padding=5 + 2 * i) for i in range(columns)]
        with torch.no_grad():
            torch.testing.assert_close(loss(wide, labels), loss(tight, labels), rtol=1e-5, atol=1e-6)


def test_a_batch_of_one(student):
    for loss, columns, labels in losses(student):
        loss.train()
        loss.zero_grad()
        value = loss(
            [features(student, sentences(1)) for _ in range(columns)], labels if labels is None else labels[:1]
        )
        value.backward()
        assert torch.isfinite(value)
        assert all(torch.isfinite(p.grad).all() for p in student.parameters() if p.grad is not None)
        if labels is None:
            assert value.item() == pytest.approx(0, abs=1e-6), "nothing to tell apart"


def test_losses_tell_their_settings_and_papers(student):
    """The card and run.json are written from these."""
    of_simcse, with_head, of_embedding, projected = (loss for loss, _, _ in losses(student))
    assert json.loads(json.dumps(of_simcse.get_config_dict()))["scale"] == 20
    assert of_simcse.get_config_dict()["directions"] == ("query_to_doc",)
    assert [x.get_config_dict()["mlp_head"] for x in (of_simcse, with_head)] == [False, True]
    assert of_embedding.get_config_dict() == {"distance_metric": "mse", "projection_dim": None}
    assert projected.get_config_dict() == {"distance_metric": "cosine", "projection_dim": 40}
    assert "2401.12472" in of_simcse.citation
    assert "SimCSE" in of_simcse.citation
    assert "2301.12005" in of_embedding.citation


# ---- masked-LM


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


def test_masked_lm_ignores_padding(masked):
    model, tokenizer = masked
    model.double().eval()
    inputs = masked_batch(tokens_of(sentences(5), tokenizer), tokenizer)
    values = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "labels": -100}
    padded = {name: nn.functional.pad(inputs[name], (0, 6), value=value) for name, value in values.items()}
    with torch.no_grad():
        torch.testing.assert_close(model(**padded).loss, model(**inputs).loss)


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


def test_held_out_sentences_without_a_masked_token(masked):
    model, tokenizer = masked
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


def test_only_a_distilbert_with_a_mask_token_is_adapted(backbone, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(tokenizer), **size)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match=r"is a bert encoder.*--layers"):
        mlm.load_masked_lm(str(tmp_path / "bert"))
    assert mlm.load_masked_lm(str(tmp_path / "bert"), layers=[0])[0].config.model_type == "distilbert"
