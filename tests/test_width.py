"""Narrower feed-forward maps: which neurons are kept, and how the others are made good for."""

import itertools

import numpy as np
import pytest
import torch
from tiny import PAIRS, sentences, tiny_albert, tiny_model, write_pairs

from distilface import cli
from distilface.compression.student import load_backbone
from distilface.compression.width import AT_A_TIME, least_neurons, narrow_feed_forward
from distilface.model.folder import load
from distilface.run import read_run
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def data(inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs of a map that are far from independent, and its weight."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(300, inputs)) @ rng.normal(size=(inputs, inputs)), rng.normal(size=(outputs, inputs))


def test_those_that_stay_make_good_by_least_squares():
    """What is left is the regression of the whole map's outputs on the inputs that are kept."""
    x, weight = data(64, 10)
    moments = torch.from_numpy(x.T @ x)
    kept, narrowed = least_neurons(torch.from_numpy(weight), moments, 40)
    assert narrowed.shape == (10, 40)
    assert torch.equal(kept, kept.sort().values)
    ridge = 0.01 * np.diag(x.T @ x).mean()
    # Damped as the moments are: every input also reads itself alone, at the strength of the damping.
    rows = np.concatenate([x, np.sqrt(ridge) * np.eye(64)])
    expected = np.linalg.lstsq(rows[:, kept], rows @ weight.T, rcond=None)[0].T
    np.testing.assert_allclose(narrowed.numpy(), expected, rtol=1e-6, atol=1e-9)


def test_the_neuron_of_least_effect_goes_first():
    x, weight = data(AT_A_TIME + 1, 4)
    kept, _ = least_neurons(torch.from_numpy(weight), torch.from_numpy(x.T @ x), AT_A_TIME)
    rows = np.concatenate([x, np.sqrt(0.01 * np.diag(x.T @ x).mean()) * np.eye(len(weight.T))])

    def lost(chosen: tuple[int, ...]) -> float:
        """Return what is lost of the outputs with these inputs alone."""
        return float(np.linalg.lstsq(rows[:, chosen], rows @ weight.T, rcond=None)[1].sum())

    choices = itertools.combinations(range(AT_A_TIME + 1), AT_A_TIME)
    assert tuple(kept.tolist()) == min(choices, key=lost)


def test_a_layer_cut_and_a_bert_become_narrower(tmp_path):
    tiny_model(tmp_path / "m")
    for layers in (None, [0]):
        encoder, tokenizer = load_backbone(str(tmp_path / "m"), layers)
        before = next(module for module in encoder.modules() if getattr(module, "out_features", 0) > 32).out_features
        record = narrow_feed_forward(encoder, tokenizer, sentences(40), 32)
        assert record == {"width": 32, "of": before}
        encoder.save_pretrained(tmp_path / "narrow")
        tokenizer.save_pretrained(tmp_path / "narrow")
        again, _ = load_backbone(str(tmp_path / "narrow"))
        ids = tokenizer(sentences(3), padding=True, return_tensors="pt")
        torch.testing.assert_close(again.eval()(**ids)[0], encoder(**ids)[0])


@pytest.mark.parametrize(("width", "words"), [(33, "multiple of 32"), (0, "multiple of 32"), (4096, "below")])
def test_a_width_that_cannot_be_is_refused(width, words, tmp_path):
    tiny_model(tmp_path / "m")
    with pytest.raises(InputError, match=f"{width} .*{words}"):
        narrow_feed_forward(*load_backbone(str(tmp_path / "m")), sentences(5), width)


def test_another_family_is_refused(tmp_path):
    tiny_albert(tmp_path / "m")
    with pytest.raises(InputError, match="albert"):
        narrow_feed_forward(*load_backbone(str(tmp_path / "m")), sentences(5), 32)


def test_a_student_is_made_narrow_and_trained_in_two_bits(tmp_path):
    """And run.json says so, step by step."""
    tiny_model(tmp_path / "teacher")
    dev = write_pairs(tmp_path / "dev.jsonl", PAIRS)
    (tmp_path / "text.txt").write_text("\n".join(sentences(60)))
    command = f"train distill --teacher {tmp_path / 'teacher'} --data {tmp_path / 'text.txt'} --dev {dev}"
    shape = "--layers 0 --feed_forward 32 --bits 4 --table_bits 2 --steps 2 --batch_size 8"
    cli.run([*command.split(), *shape.split(), "--output_dir", str(tmp_path / "out")])
    steps = {step["step"]: step for step in read_run(tmp_path / "out" / "run.json").compression}
    assert steps["width"]["width"] == 32
    assert steps["bits"] == {"step": "bits", "bits": 4, "table": 2}
    model = load(tmp_path / "out")
    assert model[0].model.config.hidden_dim == 32
    table = model[0].model.get_input_embeddings().weight.detach().numpy()
    assert all(len(np.unique(np.abs(row[:32]).round(6))) <= 2 for row in table)
