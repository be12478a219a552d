"""The size of a student before it is made, the shapes for a budget, and the training that fills one."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import PAIRS, sentences, tiny_albert, tiny_model, write_pairs
from transformers import BertConfig, BertModel

from distilface import cli
from distilface.compression import sizes
from distilface.compression.bits import Rounding, on_grid, rounded_modules
from distilface.compression.budget import cut, shape_lines, shapes, spread
from distilface.compression.pruning import prune_vocabulary
from distilface.compression.sizes import shape_of
from distilface.compression.student import load_backbone, load_student
from distilface.compression.width import narrow_feed_forward
from distilface.data.texts import as_texts
from distilface.exporters.four_bits import to_q4
from distilface.exporters.onnx import to_onnx
from distilface.methods import find_method
from distilface.model.folder import load, save_folder
from distilface.settings import InputError, parse
from distilface.training.evaluators import AgreementEvaluator, DevEvaluator

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture
def teacher(tmp_path):
    """Save a BERT of 4 layers, wide enough that its weights are most of its file."""
    tiny_model(tmp_path / "teacher")
    sizes = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    tokenizer = load(tmp_path / "teacher").tokenizer
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bert = BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes))
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    save_folder(load_student(str(tmp_path / "bert"), normalize=True), tmp_path / "t")
    return tmp_path / "t"


def test_the_size_is_that_of_the_file_and_the_tokenizer(teacher, tmp_path):
    """Part by part: the matrices to the byte, the graph's own bytes to a few thousand."""
    encoder, tokenizer = load_backbone(str(teacher))
    _, texts = as_texts(sentences(50))
    steps = [lambda encoder, tokenizer: (encoder, prune_vocabulary(encoder, tokenizer, texts, 80)[0])]
    student = load_student(str(teacher), [0, 2, 3], normalize=True, steps=steps)
    with torch.random.fork_rng():
        for weight in student.parameters():
            weight.data += torch.randn(weight.shape) / 50  # equal biases would stand in a file once
    save_folder(student, tmp_path / "s")
    to_onnx(load(tmp_path / "s"), tmp_path / "s.onnx")
    to_q4(tmp_path / "s.onnx", tmp_path / "q4.onnx")
    shape = shape_of(encoder, tokenizer, [0, 2, 3], 80, 64)
    file = (tmp_path / "q4.onnx").stat().st_size
    predicted = sum(shape.parts.values()) - shape.parts["tokenizer"]
    assert abs(predicted - file) < 12_000
    own = (tmp_path / "s" / "tokenizer.json").stat().st_size
    assert abs(shape.parts["tokenizer"] - own) < 0.2 * own
    weights = 4 * 128 * 128 + 2 * 128 * 512
    assert shape.parts["layers"] == 3 * (weights // 2 + weights // 32 * 2 + 4 * (4 * 128 + 512 + 128 + 4 * 128))
    assert shape.parts["table"] == 80 * (128 // 2 + 128 // 64 * 2)


def test_the_size_of_a_narrow_student_with_a_table_of_two_bits(teacher, tmp_path):
    encoder, tokenizer = load_backbone(str(teacher))

    def narrow(encoder, tokenizer):
        """Keep 128 neurons of a layer."""
        narrow_feed_forward(encoder, tokenizer, sentences(20), 128)
        return encoder, tokenizer

    student = load_student(str(teacher), [0, 3], normalize=True, steps=[narrow])
    with torch.random.fork_rng():
        for weight in student.parameters():
            weight.data += torch.randn(weight.shape) / 50
    Rounding(student, 2).write()
    save_folder(student, tmp_path / "s")
    to_onnx(load(tmp_path / "s"), tmp_path / "s.onnx")
    to_q4(tmp_path / "s.onnx", tmp_path / "q4.onnx")
    shape = shape_of(encoder, tokenizer, [0, 3], len(tokenizer), 64, 128, 2)
    predicted = sum(shape.parts.values()) - shape.parts["tokenizer"]
    assert abs(predicted - (tmp_path / "q4.onnx").stat().st_size) < 12_000
    assert shape.parts["table"] == len(tokenizer) * (128 // 4 + 128 // 64 * 2)
    weights = 4 * 128 * 128 + 2 * 128 * 128
    assert shape.parts["layers"] == 2 * (weights // 2 + weights // 32 * 2 + 4 * (4 * 128 + 128 + 128 + 4 * 128))


def test_shapes_fill_the_budget_the_best_first(teacher, monkeypatch):
    """For each number of layers the one that is thought to lose least, as large as it can be."""
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    encoder, tokenizer = load_backbone(str(teacher))
    whole = shape_of(encoder, tokenizer, range(4), len(tokenizer), 64).megabytes
    found = shapes(encoder, tokenizer, whole, 64)
    assert (found[0].layers, found[0].vocabulary, found[0].feed_forward) == ((0, 1, 2, 3), len(tokenizer), 512)
    assert sorted(len(shape.layers) for shape in found) == [1, 2, 3, 4]
    assert [shape.lost for shape in found] == sorted(shape.lost for shape in found)
    assert all(shape.megabytes <= whole for shape in found)
    rows = [line.split() for line in shape_lines(found)]
    assert rows[1][:4] == ["0", "1", "2", "3"]
    assert f"{found[0].megabytes:.2f}" in rows[1]
    assert (found[0].work, rows[1][11]) == (1, "100%")
    assert shape_of(encoder, tokenizer, [0, 3], 9, 64, 128).work == pytest.approx(
        (4 * 128 * 128 + 2 * 128 * 128) / (4 * 128 * 128 + 2 * 128 * 512) / 2
    )
    smaller = shapes(encoder, tokenizer, whole / 2, 64)[0]
    assert smaller.lost > found[0].lost
    assert smaller.feed_forward < 512
    assert [spread(12, count) for count in (1, 3, 12)] == [(11,), (0, 6, 11), tuple(range(12))]


def test_six_layers_are_cut_as_it_was_measured():
    """What a share of the layers is said to lose is what the proposed cut of them lost, the least of all cuts."""
    measured = json.loads((ROOT / "benchmarks" / "results" / "cuts-untrained.json").read_text())["cuts"]
    lost = {tuple(row["layers"]): row["lost"] for row in measured}
    for share, expected in ((0.833, 5), (0.667, 4), (0.5, 3)):
        proposed = cut(6, expected)
        assert lost[proposed] == min(value for layers, value in lost.items() if len(layers) == expected)
        assert sizes.LOST_LAYERS[share] == pytest.approx(lost[proposed], abs=0.02)
    assert [cut(6, count) for count in (6, 2, 1)] == [tuple(range(6)), (0, 5), (5,)]
    assert cut(12, 3) == spread(12, 3)


def test_the_verb_prints_the_shapes_and_what_their_columns_are(teacher, monkeypatch, capsys):
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    found = cli.run(["shape", "--teacher", str(teacher), "--megabytes", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(found) + 1] == shape_lines(found)[: len(found) + 1]
    explained = [line.partition(":")[0] for line in lines[-3:-1]]
    assert explained == ["lost", "work"]
    assert set(explained) < set(lines[0].split())


def test_the_shares_that_stay_are_fitted_to_trained_shapes():
    """By the equations of least squares, of the losses after 200 steps."""
    rows = json.loads((ROOT / "benchmarks" / "results" / "shapes-trained.json").read_text())["results"]
    losses = {"layers": sizes.LOST_LAYERS, "neurons": sizes.LOST_NEURONS, "pieces": sizes.LOST_PIECES}
    wholes = {"layers": 6, "neurons": 1536, "pieces": 30522}

    def lost(row: dict, step: str) -> float:
        """Interpolate what a step loses untrained, between the two shares that were measured."""
        kept = (len(row[step]) if step == "layers" else row[step]) / wholes[step]
        points = sorted(losses[step].items())
        (left, high), (right, low) = next((a, b) for a, b in itertools.pairwise(points) if a[0] <= kept <= b[0])
        whole = len(row["layers"]) / wholes["layers"] if step == "neurons" else 1
        return whole * (high + (low - high) * (kept - left) / (right - left))

    matrix = np.array([[*(lost(row, step) for step in losses), 1.0] for row in rows])
    found = np.linalg.solve(matrix.T @ matrix, matrix.T @ np.array([row["loss"]["200"] for row in rows]))
    shares = [sizes.STAYS_LAYERS, sizes.STAYS_NEURONS, sizes.STAYS_PIECES]
    np.testing.assert_allclose(found[:3], shares, atol=0.006)
    assert np.abs(matrix @ found - [row["loss"]["200"] for row in rows]).max() < 0.005


def test_what_cannot_be_shaped_is_refused(teacher, tmp_path, capsys):
    encoder, tokenizer = load_backbone(str(teacher))
    with pytest.raises(InputError, match=r"--megabytes 0\.01 is too small: one layer with 1,000 pieces takes 0\.\d"):
        shapes(encoder, tokenizer, 0.01, 64)
    with pytest.raises(InputError, match="an albert encoder cannot be cut into a DistilBERT"):
        shapes(*load_backbone(str(tiny_albert(tmp_path / "a"))), 5, 64)
    with pytest.raises(InputError, match=r"--max_seq_length 65 is out of range; .* reads 64 tokens"):
        cli.run(["shape", "--teacher", str(teacher), "--max-seq-length", "65"])
    with pytest.raises(InputError, match="too small"):
        cli.run(["shape", "--teacher", str(teacher), "--megabytes", "0.01"])
    assert capsys.readouterr().out == ""


def test_one_layer_is_a_little_nearer_for_its_table_and_that_is_said(teacher):
    """By what the trained shapes measured: a loss of 0.2082 with the teacher's table, of 0.1831 with the other."""
    rows = json.loads((ROOT / "benchmarks/results/shapes-table.json").read_text())["results"]
    own, static = (row["loss"]["500"] for row in rows[:2])
    assert pytest.approx(own - static, abs=5e-4) == sizes.STATIC_TABLE
    encoder, tokenizer = load_backbone(str(teacher))
    one, two = (sizes.shape_of(encoder, tokenizer, layers, 1_000, 64, static_table=True) for layers in ((1,), (0, 1)))
    layers = [sizes.STAYS_LAYERS * sizes._interpolated(sizes.LOST_LAYERS, share) for share in (0.25, 0.5)]
    assert one.lost - two.lost == pytest.approx(layers[0] - layers[1] - sizes.STATIC_TABLE, abs=2e-3)
    assert [shape.static_table for shape in (one, two)] == [True, False]
    assert ["static student" in shape_lines(found)[-1] for found in ([one, two], [two, one])] == [True, False]


WORDS = ["--steps", "4", "--batch_size", "16", "--eval_steps", "2", "--metric", "cosine", "--bf16", "no"]


def train(teacher, place, *words: str, texts: int = 120) -> dict:
    """Distil a student on sentences; return what stands in its run.json."""
    (place / "text.txt").write_text("\n".join(sentences(texts)) + "\n")
    method = find_method("distill")
    data = ["--teacher", str(teacher), "--data", str(place / "text.txt"), "--cache_dir", str(place / "cache")]
    return method.train(parse(method.Settings, [*data, *WORDS, "--output_dir", str(place / "out"), *words], ""))


@pytest.mark.parametrize(("recalls", "best"), [([50.0, 40.0], 2), ([50.0, 49.0], 4)])
def test_with_pairs_and_texts_held_out_their_mean_chooses(teacher, tmp_path, monkeypatch, recalls, best):
    """The correlation goes up by 3 points; what is lost of the teacher is more than that, or less."""
    correlations, agreements = iter([90.0, 60.0, 70.0, 73.0, 70.0]), iter([30.0, *recalls, 30.0])

    def correlation(self, *arguments, **options):
        return {"spearman": next(correlations), "mean_cosine": 0.0}

    def agreement(self, model):
        return {"texts": 20, "cosine": 0.5, "spearman": 50.0, "recall": next(agreements)}

    monkeypatch.setattr(DevEvaluator, "__call__", correlation)
    monkeypatch.setattr(AgreementEvaluator, "agreement", agreement)
    pairs = write_pairs(tmp_path / "dev.jsonl", PAIRS)
    run = train(teacher, tmp_path, "--dev", str(pairs), "--held_out", "20", "--layers", "0", "3")
    assert run["curve"] == [[2, 70.0], [4, 73.0]], "the score is the correlation"
    assert run["best_step"] == best


def test_a_training_on_the_grid_gives_a_folder_on_the_grid(teacher, tmp_path, capsys):
    """From a vocabulary cut to 80 pieces; run.json names the steps, and the score is that of the rounded folder."""
    pairs = write_pairs(tmp_path / "dev.jsonl", PAIRS)
    chosen = ["--dev", str(pairs), "--layers", "0", "3", "--vocabulary", "80", "--bits", "4"]
    run = train(teacher, tmp_path, *chosen)
    folder = load(tmp_path / "out")
    assert [step["step"] for step in run["compression"]] == ["vocabulary", "bits"]
    assert run["compression"][0]["pieces"] == len(folder.tokenizer) == 80
    modules = list(rounded_modules(folder))
    assert len(modules) == 13
    for module, block in modules:
        torch.testing.assert_close(on_grid(module.weight, block), module.weight, rtol=0, atol=0)
    assert folder[0].model.config.max_position_embeddings == 64
    assert run["agreement"]["texts"] == len({a for a, _, _ in PAIRS}), "no text was held out: those of the pairs"
    assert run["scores"]["stsb_dev"] == run["scores"]["baseline_stsb_dev"] + run["gain"]


def test_without_pairs_the_agreement_chooses(teacher, tmp_path, caplog):
    """On texts that are held out, which the loss never sees; a teacher agrees with itself wholly."""
    run = train(teacher, tmp_path, "--dev", "none", "--held_out", "20", "--layers", "0", "1", "2", "3")
    text = json.loads((tmp_path / "out" / "run.json").read_text())
    assert text["agreement"] == run["agreement"]
    assert run["agreement"]["texts"] == 20
    assert run["agreement"]["before"]["cosine"] > 0.999, "the untrained student is the teacher itself"
    assert run["scores"]["teacher_agreement"] == 100
    assert run["scores"]["agreement"] == run["agreement"]["after"]["recall"]
    assert "20 of 120 texts are held out" in caplog.text
    assert "100 sentences, 4 steps" in caplog.text
    with pytest.raises(InputError, match="--held_out 120 of 120 texts leaves nothing to train on"):
        train(teacher, tmp_path, "--dev", "none", "--held_out", "120", "--overwrite")


def test_the_untrained_student_is_kept_as_a_folder(teacher, tmp_path):
    """Keeping it must not move the training, though it is written rounded and the student's weights are not."""
    words = ["--dev", "none", "--held_out", "20", "--layers", "0", "3", "--bits", "4", "--table_bits", "2"]
    run = train(teacher, tmp_path, *words, "--untrained_dir", str(tmp_path / "before"))
    before, after = load(tmp_path / "before"), load(tmp_path / "out")
    for module, block in rounded_modules(before):
        torch.testing.assert_close(
            on_grid(module.weight, block, 4 if isinstance(module, torch.nn.Linear) else 2), module.weight
        )
    held = sentences(120)[:: 119 // 19][:20]
    assert not np.allclose(before.encode(held), after.encode(held))
    other = train(teacher, tmp_path, *words, "--overwrite")
    assert other["scores"] == run["scores"]
    assert other["agreement"]["before"] == run["agreement"]["before"]
    for place, message in (("o", "is the output folder; name another"), ("before", "before is not empty")):
        with pytest.raises(InputError, match=message):
            train(teacher, tmp_path, *words, *(f"--untrained_dir={tmp_path / place}", f"--output_dir={tmp_path / 'o'}"))


def test_a_budget_is_the_shape_that_it_chooses(teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    encoder, tokenizer = load_backbone(str(teacher))
    budget = shape_of(encoder, tokenizer, range(2), len(tokenizer), 64).megabytes
    best = shapes(encoder, tokenizer, budget, 64)[0]
    run = train(teacher, tmp_path, "--dev", "none", "--held_out", "20", "--megabytes", str(budget))
    assert run["settings"]["layers"] == list(best.layers)
    assert run["settings"]["vocabulary"] == best.vocabulary
    assert run["settings"]["bits"] == 4
    assert run["layers"] == list(best.layers)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--bits", "3"], "--bits 3 must be 4, the grid of the 4-bit file; or leave it out"),
        (["--vocabulary", "0"], "--vocabulary 0 is out of range"),
        (["--megabytes", "-1"], "--megabytes -1.0 is out of range"),
        (["--held_out", "2"], "--held_out 2 is too few: neighbours need 3 texts or more"),
        (["--megabytes", "5", "--layers", "0"], "--megabytes"),
    ],
)
def test_a_mistake_is_named_before_anything_is_read(words, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        train(tmp_path / "none", tmp_path, *words)
    assert not (tmp_path / "out").exists()


def test_simcse_has_nothing_else_to_choose_by(tmp_path):
    tiny_model(tmp_path / "m")
    method = find_method("simcse")
    words = ["--backbone", str(tmp_path / "m"), "--dev", "none", "--output_dir", str(tmp_path / "out")]
    _, texts = as_texts(sentences(60))
    with pytest.raises(InputError, match="--dev none leaves nothing to choose the checkpoint by; give scored pairs"):
        method.train(parse(method.Settings, words, ""), texts)
    assert np.all([path.name != "out" for path in tmp_path.iterdir()])
