"""The trainers: batches by length, whole checkpoints, the state of the loss, the score, the alarms."""

import copy
import json
import math
import shutil
from collections import Counter
from contextlib import nullcontext
from itertools import chain, pairwise

import numpy as np
import oracles
import pytest
import torch
from datasets import Dataset
from runs import EVAL_STEPS, Materials, each_step
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from students import same, state
from tiny import PAIRS, tiny_model
from torch import nn
from transformers import DistilBertConfig, DistilBertModel, TrainerControl, TrainerState, TrainingArguments

from distilface.methods import simcse
from distilface.settings import InputError
from distilface.training import evaluators
from distilface.training.batches import LengthBatchSampler
from distilface.training.checkpoints import PROGRESS, WHOLE, is_whole, last_whole, mark_whole
from distilface.training.evaluators import CollapseAlarm, DevEvaluator
from distilface.training.fitting import encoder_trainer
from distilface.training.settings import TrainSettings
from distilface.training.trainer import LONG, LOSS_STATE, EncoderTrainer, use_cpu_well

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
WORDS_OF_ROW = np.random.default_rng(0).integers(1, 40, 1003)
ROWS = Dataset.from_dict({"text": ["word " * count for count in WORDS_OF_ROW]})
FEW = Dataset.from_dict({"text": ["x" * n for n in range(1, 401)]})
DEV = Dataset.from_list([{"sentence1": a, "sentence2": b, "score": s} for a, b, s in PAIRS])


def batches(seed: int = 1, epoch: int = 0, size: int = 16, drop_last: bool = False, rows: Dataset = ROWS) -> list:
    sampler = LengthBatchSampler(rows, batch_size=size, drop_last=drop_last, seed=seed)
    sampler.set_epoch(epoch)
    row_batches = list(sampler)
    assert len(row_batches) == len(sampler)
    return row_batches


def padding(row_batches: list[list[int]]) -> int:
    return sum(int(max(WORDS_OF_ROW[b]) * len(b) - sum(WORDS_OF_ROW[b])) for b in row_batches)


@pytest.mark.parametrize(("size", "drop_last"), [(1, False), (16, False), (128, False), (2000, False), (16, True)])
def test_every_row_comes_once_in_an_epoch(size, drop_last):
    """But for those of a last batch that is dropped."""
    row_batches, (full, rest) = batches(size=size, drop_last=drop_last), divmod(len(ROWS), size)
    rows = [row for batch in row_batches for row in batch]
    assert len(set(rows)) == len(rows)
    assert set(rows) <= set(range(len(ROWS)))
    assert Counter(map(len, row_batches)) == Counter({size: full} | ({rest: 1} if rest and not drop_last else {}))


@pytest.mark.parametrize("rows", [ROWS, FEW], ids=["many", "few"])
def test_epochs_and_seeds_differ_and_can_be_repeated(rows):
    """Few sentences too: sorted as a whole, each would have the same negatives for ever."""
    assert batches(rows=rows) == batches(rows=rows)
    orders = [batches(seed, epoch, rows=rows) for seed in (1, 2) for epoch in (0, 1)]
    as_sets = [{frozenset(batch) for batch in order} for order in orders]
    assert all(len(a & b) < len(a) / 4 for i, a in enumerate(as_sets) for b in as_sets[:i])


def test_batches_are_of_like_length_without_a_curriculum():
    """Short sentences first would be learned first; a sort of the whole epoch would make the same batches always."""
    row_batches = batches()
    order = np.random.default_rng(1).permutation(len(ROWS))
    by_chance = [order[start : start + 16].tolist() for start in range(0, len(ROWS), 16)]
    assert padding(row_batches) < 0.15 * padding(by_chance)
    lengths = [WORDS_OF_ROW[batch].mean() for batch in row_batches]
    assert abs(np.corrcoef(lengths, range(len(lengths)))[0, 1]) < 0.4


def test_the_length_is_the_column_of_that_name_or_the_text():
    lengths = list(range(400))
    tokens = Dataset.from_dict({"input_ids": [[1]] * 400, "length": lengths})
    labelled = Dataset.from_dict({"text": ["x" * n for n in lengths], "label": [0.0] * 400})
    for rows in (tokens, labelled):
        assert np.mean([max(batch) - min(batch) for batch in batches(size=4, rows=rows)]) < 20


def test_a_trained_epoch_is_shuffled_anew(materials, tmp_path):
    """The sampler must know the epoch: without it, every epoch has the batches of the first."""
    trainer = make_trainer(materials, tmp_path, steps=8)
    seen = []
    with each_step(lambda step, inputs: seen.append(rows_of(inputs))):
        trainer.train()
    first, second = seen[:4], seen[4:]
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert first != second
    assert set(map(tuple, first)) != set(map(tuple, second))


def rows_of(inputs: dict) -> list[tuple]:
    """Tell the sentences of a batch by their token ids."""
    key = next(name for name in inputs if name.endswith("input_ids"))
    return sorted(tuple(row[row != 0].tolist()) for row in inputs[key])


def make_trainer(
    materials: Materials, folder, loss=None, steps: int = 3, model: SentenceTransformer | None = None, **options
) -> EncoderTrainer:
    """Make the trainer of a tiny model; its checkpoints lie in ``folder/model.unfinished``."""
    model = model or tiny_model(folder / "start")
    texts = Dataset.from_dict({"text": materials.text.read_text().split("\n")[:-1]})
    settings = TrainSettings(
        output_dir=str(folder / "model"), dev="pairs", steps=steps, batch_size=8, eval_steps=EVAL_STEPS, bf16="no"
    )
    for name, value in options.items():
        setattr(settings, name, value)
    loss = (loss or simcse.SimCSELoss)(model)
    trainer, _ = encoder_trainer(model, loss, simcse.prepare(texts), DEV, settings)
    return trainer


@pytest.fixture(scope="module")
def checkpoints(materials, tmp_path_factory):
    """Two whole checkpoints, of steps 3 and 6, of a loss that has weights."""
    folder = tmp_path_factory.mktemp("two")
    torch.manual_seed(0)
    make_trainer(materials, folder, lambda m: simcse.SimCSELoss(m, mlp_head=True), steps=6).train()
    return folder / "model.unfinished"


@pytest.fixture
def two(checkpoints, tmp_path):
    """A copy of them to damage."""
    return shutil.copytree(checkpoints, tmp_path / "run")


def test_a_checkpoint_is_marked_whole(checkpoints):
    assert last_whole(checkpoints) == checkpoints / "checkpoint-6"
    names = {file.name for file in (checkpoints / "checkpoint-6").iterdir()}
    assert {"model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json", LOSS_STATE, PROGRESS} <= names


def test_no_damaged_checkpoint_is_taken(two):
    """Each file of it in turn cut short, gone or grown: what is left must not be resumed."""
    last = two / "checkpoint-6"
    for file in [f for f in last.rglob("*") if f.is_file()]:
        content = file.read_bytes()
        for damage in (content[:-1], b"", None, content + b" " if file.name != WHOLE else b"{}"):
            file.unlink() if damage is None else file.write_bytes(damage)
            assert last_whole(two) == two / "checkpoint-3", (file.name, damage and len(damage))
        file.write_bytes(content)
        assert last_whole(two) == last
    (last / "new").write_text("")
    assert last_whole(two) == two / "checkpoint-3"


def test_checkpoints_are_ordered_by_number(tmp_path):
    assert last_whole(tmp_path / "nowhere") is None
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-11.bak", "checkpoint-", "folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text(name)
        mark_whole(tmp_path / name)
    (tmp_path / "checkpoint-12").mkdir()
    assert last_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert not is_whole(tmp_path / "checkpoint-12")


@pytest.mark.parametrize(
    ("saved", "make", "sees"),
    [
        ("with a head", simcse.SimCSELoss, "no state where the checkpoint has some"),
        ("with a head", lambda m: Headed(m, 32, "other"), "other names"),
        ("with a head", lambda m: Headed(m, 16, "head"), "other sizes"),
        ("without", lambda m: simcse.SimCSELoss(m, mlp_head=True), "state where the checkpoint has none"),
    ],
)
def test_a_checkpoint_of_another_loss_is_refused(checkpoints, materials, tmp_path, saved, make, sees):
    if saved == "without":
        make_trainer(materials, tmp_path / "other").train()
        checkpoints = tmp_path / "other" / "model.unfinished"
    trainer = make_trainer(materials, tmp_path, make)
    before = state(trainer.loss)
    with pytest.raises(InputError, match="was saved with another loss; start over with --overwrite"):
        trainer._load_from_checkpoint(str(checkpoints / "checkpoint-3"))
    assert same(state(trainer.loss), before), sees


class Headed(simcse.SimCSELoss):
    """A loss whose one linear layer has this name and width."""

    def __init__(self, model: SentenceTransformer, width: int, name: str) -> None:
        super().__init__(model)
        del self.head
        self.add_module(name, nn.Sequential(nn.Linear(width, width)))


def test_a_resume_after_the_last_step_makes_no_other(materials, tmp_path):
    """Upstream makes one, with the rate of a finished schedule: 0 if it falls, the full rate if it is constant."""
    words = {"steps": 6, "scheduler": "constant", "learning_rate": 1e-2}
    trainer = make_trainer(materials, tmp_path, **words)
    trainer.train()
    last = str(tmp_path / "model.unfinished" / "checkpoint-6")
    again = make_trainer(materials, tmp_path, **words)
    with each_step(lambda step, inputs: pytest.fail(f"step {step}")):
        again.train(last)
    assert again.state.global_step == 6
    assert again.state.best_global_step == trainer.state.best_global_step
    assert same(trainer.model.state_dict(), again.model.state_dict())
    assert again.state.log_history == trainer.state.log_history[: len(again.state.log_history)]


def test_the_log_has_the_mean_of_the_steps(materials, tmp_path):
    losses = []
    trainer = make_trainer(materials, tmp_path, steps=7)
    step = trainer.compute_loss
    trainer.compute_loss = lambda *a, **k: losses.append(step(*a, **k)) or losses[-1]
    trainer.train()
    logged = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
    assert list(logged) == [3, 6]
    for end, loss in logged.items():
        assert loss == pytest.approx(np.mean([x.item() for x in losses[end - 3 : end]]), rel=1e-6)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_at_its_step(materials, tmp_path, number):
    trainer = make_trainer(materials, tmp_path, steps=6)
    compute, seen = trainer.compute_loss, []

    def breaking(*arguments, **options):
        seen.append(None)
        return compute(*arguments, **options) * (number if len(seen) == 5 else 1)

    trainer.compute_loss = breaking
    with pytest.raises(InputError, match=rf"the loss is {number} at step 5; lower the learning rate \(now 3e-05\)"):
        trainer.train()
    assert all(torch.isfinite(tensor).all() for tensor in trainer.model.state_dict().values())
    assert last_whole(tmp_path / "model.unfinished").name == "checkpoint-3"


def test_the_score_is_spearman_of_cosines(tmp_path):
    model = tiny_model(tmp_path / "m")
    first, second = (torch.tensor(model.encode(list(side))) for side in (DEV["sentence1"], DEV["sentence2"]))
    cosines = nn.functional.cosine_similarity(first, second)
    scores = DevEvaluator(DEV)(model)
    assert scores["spearman"] == pytest.approx(100 * spearmanr(cosines, DEV["score"]).statistic, abs=0.01)
    expected = oracles.off_diagonal_cosines(first.numpy()).mean()
    assert scores["mean_cosine"] == pytest.approx(expected, abs=1e-5)


def test_equal_sentences_do_not_look_like_a_collapse(tmp_path):
    rows = [{"sentence1": "a dog", "sentence2": "a cat", "score": float(n)} for n in range(5)]
    evaluator = DevEvaluator(Dataset.from_list([*rows, {"sentence1": "old road", "sentence2": "", "score": 1.0}]))
    assert evaluator.sentences == ["a dog", "old road"]
    one = DevEvaluator(Dataset.from_list(rows))
    assert one.mean_cosine(tiny_model(tmp_path / "m")) == 0.0


@pytest.mark.parametrize(
    ("untrained", "now", "collapsed"),
    [
        (0.30, 0.96, True),
        (0.30, 0.94, False),
        (0.97, 0.96, False),
        (0.97, 0.98, True),
        (0.97, 0.97, True),
        (0.99, 0.20, False),
    ],
)
def test_the_alarm_is_a_high_cosine_that_training_did_not_lower(tmp_path, untrained, now, collapsed):
    arguments = TrainingArguments(output_dir=str(tmp_path), learning_rate=2e-3, report_to="none")
    state, metrics = TrainerState(global_step=7), {"eval_mean_cosine": now}
    sentence = rf"collapsed.*{now:.3f} at step 7 \(untrained {untrained:.3f}\).*now 0\.002"
    with pytest.raises(InputError, match=sentence) if collapsed else nullcontext():
        CollapseAlarm(untrained).on_evaluate(arguments, state, TrainerControl(), metrics)


class Together(nn.Module):
    """A loss that is lowest where all embeddings are alike."""

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features, labels):
        views = [self.model(dict(features))["sentence_embedding"] for features in sentence_features]
        unit = nn.functional.normalize(torch.cat(views), dim=1)
        return 1 - (unit @ unit.T).mean()


def test_a_collapse_stops_the_training(materials, tmp_path):
    trainer = make_trainer(materials, tmp_path, Together, steps=60, learning_rate=1e-2)
    with pytest.raises(InputError, match=r"the embeddings have collapsed: mean cosine of different sentences 0\.9"):
        trainer.train()
    assert trainer.state.global_step < 60


def test_a_backbone_whose_embeddings_start_alike_may_be_trained(materials, tmp_path):
    """Raw masked-LM backbones are so: an alarm at a plain threshold would forbid the paper's own recipe."""
    model = tiny_model(tmp_path / "alike")
    with torch.no_grad():
        model[0].model.transformer.layer[-1].output_layer_norm.bias += 8.0
    start = DevEvaluator(DEV).mean_cosine(model)
    trainer = make_trainer(materials, tmp_path, steps=6, learning_rate=3e-4, model=model)
    trainer.train()
    cosines = [row["eval_mean_cosine"] for row in trainer.state.log_history if "eval_mean_cosine" in row]
    assert all(a > b > evaluators.COLLAPSED for a, b in pairwise([start, *cosines]))


def test_what_is_published_of_the_training_is_no_sentence_of_it(checkpoints, materials):
    """Upstream writes training sentences into the card of every checkpoint."""
    sentences = materials.text.read_text().split("\n")[:-1]
    for file in checkpoints.rglob("*"):
        if file.is_file() and file.suffix in (".md", ".json"):
            text = file.read_text()
            assert not any(sentence in text for sentence in sentences), file
    state = json.loads((checkpoints / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6


def distilbert(attention_dropout: float) -> DistilBertModel:
    sizes = {"vocab_size": 9, "dim": 16, "hidden_dim": 16, "n_layers": 1, "n_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DistilBertModel(DistilBertConfig(**sizes, dropout=0.0, attention_dropout=attention_dropout))


def gradient(model: DistilBertModel, length: int) -> torch.Tensor:
    """The gradient of the token table, for two texts of which the second is half as long."""
    ids, mask = torch.arange(2 * length).reshape(2, length) % 9, torch.ones(2, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    torch.manual_seed(0)
    model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()].pow(2).sum().backward()
    return model.embeddings.word_embeddings.weight.grad


@pytest.mark.parametrize(
    ("length", "dropout", "taken"),
    [(8, 0.0, "eager"), (LONG - 1, 0.0, "eager"), (LONG, 0.0, "sdpa"), (LONG, 0.1, "eager")],
)
def test_which_attention_trains_on_a_cpu(length, dropout, taken):
    """The length of the batch decides it, and a dropout of the attention."""
    model, plain = distilbert(dropout), distilbert(dropout)
    use_cpu_well(model)
    plain.set_attn_implementation("eager")
    assert torch.allclose(gradient(model, length), gradient(plain, length), atol=1e-4)
    assert model.config._attn_implementation == taken


@pytest.mark.parametrize(("length", "taken"), [(LONG - 1, "eager"), (LONG, "sdpa")])
def test_which_attention_trains_inside_sentence_transformers(tmp_path, length, taken):
    """It calls the encoder's forward past its hooks."""
    model = tiny_model(tmp_path / "m")
    model[0].model.config.attention_dropout = 0.0
    model[0].model.embeddings.position_embeddings = torch.nn.Embedding(LONG, 32)
    model[0].model.embeddings.register_buffer("position_ids", torch.arange(LONG)[None], persistent=False)
    use_cpu_well(model)
    ids = torch.ones(1, length, dtype=torch.long)
    for each in (copy.deepcopy(model), model):
        config, forward, seen = each[0].model.config, each[0].model.forward, []
        each[0].model.forward = lambda **inputs: seen.append(config._attn_implementation) or forward(**inputs)  # noqa: B023
        each({"input_ids": ids, "attention_mask": ids})
        assert seen == [taken]
