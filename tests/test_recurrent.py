"""The recurrent bottleneck student: its layers and their order, its embedding layer, its folder."""

import numpy as np
import pytest
import torch
from forks import run_forked
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import random_bert, tiny_backbone, tiny_bert
from transformers import AlbertConfig, AlbertModel, BertModel

from distilface.compression.recurrent import recurrent_encoder, recurrent_student
from distilface.compression.student import load_backbone, load_student
from distilface.model.folder import load, save_folder
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")


def at_the_start(encoder: BertModel, ids: torch.Tensor, size: int) -> list[torch.Tensor]:
    """Give what enters the layers of an encoder, and of its student under an embedding layer of ``size``."""
    albert = recurrent_encoder(encoder, 1, 1, size).eval()
    with torch.no_grad():
        ours = albert.encoder.embedding_hidden_mapping_in(albert.embeddings(ids))
        return [encoder.embeddings(ids), ours]


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_a_kept_layer_computes_what_it_did(kind, tmp_path):
    encoder = random_bert() if kind == "bert" else load_backbone(str(tiny_backbone(tmp_path / "backbone")))[0].eval()
    albert = recurrent_encoder(encoder, 2, 2, 8, dropout=0.1).eval()
    theirs = encoder.encoder.layer if kind == "bert" else encoder.transformer.layer
    hidden = torch.randn(3, 7, 32)
    ours = albert.encoder.albert_layer_groups[0].albert_layers
    assert len(ours) == 2
    for mine, original in zip(ours, theirs[:2], strict=True):
        expected = original(hidden)
        expected = expected if isinstance(expected, torch.Tensor) else expected[0]
        assert (mine(hidden) - expected).abs().max() < 1e-5
    assert albert.config.hidden_dropout_prob == albert.config.attention_probs_dropout_prob == 0.1


def test_the_layers_run_abcabc():
    """In the order aabbcc the weights are the same, and it would train as well."""
    encoder = random_bert()
    albert = recurrent_encoder(encoder, 3, 2, 8).eval()
    ids = torch.tensor([[1, 5, 7, 9, 2]])
    with torch.no_grad():
        hidden = albert.encoder.embedding_hidden_mapping_in(albert.embeddings(ids))
        aabbcc = hidden
        for _ in range(2):
            for layer in encoder.encoder.layer[:3]:
                output = layer(hidden)
                hidden = output if isinstance(output, torch.Tensor) else output[0]
        for layer in albert.encoder.albert_layer_groups[0].albert_layers:
            aabbcc = layer(layer(aabbcc))
        states = albert(ids).last_hidden_state
    assert (states - hidden).abs().max() < 1e-5
    assert (states - aabbcc).abs().max() > 1e-2


def test_parameters_are_as_published():
    """MiniLM with a vocabulary of 250,037: 37.6M at e = 128 and 3 layers."""
    layers = {"num_hidden_layers": 4, "inner_group_num": 3, "num_attention_heads": 12}
    widths = {"embedding_size": 128, "hidden_size": 384, "intermediate_size": 1536}
    with torch.device("meta"):
        albert = AlbertModel(AlbertConfig(vocab_size=250_037, **layers, **widths))
    assert sum(p.numel() for p in albert.parameters()) / 1e6 == pytest.approx(37.6, abs=0.02)


def test_the_narrow_table_starts_at_the_principal_components():
    """Every token at the mean position gives what the best approximation of that rank gives, norms and all."""
    encoder = random_bert()
    positions = encoder.embeddings.position_embeddings.weight.data
    positions[:] = positions.mean(0)
    wide, ours = (rows[:, 0].double().numpy() for rows in at_the_start(encoder, torch.arange(95)[:, None], 12))
    mean = wide.mean(0)
    u, s, v = np.linalg.svd(wide - mean, full_matrices=False)
    best = mean + (u[:, :10] * s[:10]) @ v[:10]
    assert np.abs(ours - best).max() < 1e-4


def test_positions_enter_the_narrow_table():
    """Left out, a token would start alike wherever it stands."""
    wide, ours = (rows[0] for rows in at_the_start(random_bert(), torch.full((1, 64), 5), 32))
    rest = (ours - wide).square().sum() / (wide - wide.mean(0)).square().sum()
    assert rest < 0.5


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((5, 1, 8), "--keep_layers 5 is out of range; the assistant has 4 layers"),
        ((0, 1, 8), "--keep_layers 0 is out of range"),
        ((1, 0, 8), "--repeats 0 is out of range"),
        ((1, 1, 33), "--embedding_size 33 is out of range; it must be from 4 to 32"),
        ((1, 1, 3), "--embedding_size 3 is out of range"),
    ],
)
def test_what_cannot_be_made(numbers, message):
    with pytest.raises(InputError, match=message):
        recurrent_encoder(random_bert(), *numbers)


def test_another_family_is_refused():
    albert = recurrent_encoder(random_bert(1), 1, 1, 8)
    with pytest.raises(InputError, match="albert layers do not fit an ALBERT"):
        recurrent_encoder(albert, 1, 1, 8)


TEXTS = ["a dog runs in the park", "the old cat", "a child sings with a happy bird near the green river " * 9]


ALONE = """
import sys
sys.modules["distilface"] = sys.modules["sentence_transformers"] = None  # whoever imports one of them fails
import torch
from transformers import AutoModel, AutoTokenizer

folder = sys.argv[1]
tokenizer, encoder = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
inputs = tokenizer(sys.argv[2:], padding=True, truncation=True, return_tensors="pt")
assert {"input_ids", "attention_mask"} <= set(inputs) <= {"input_ids", "attention_mask", "token_type_ids"}
with torch.no_grad():
    output = encoder(**inputs)
mask = inputs["attention_mask"].unsqueeze(-1)
pooled = (output.last_hidden_state * mask).sum(1) / mask.sum(1)
print(type(encoder).__name__, torch.nn.functional.normalize(pooled, dim=1).tolist())
"""


def test_the_folder_comes_back_with_and_without_our_code(tmp_path):
    assistant = load_student(tiny_bert(tmp_path / "bert"), normalize=True).cpu()
    student = recurrent_student(assistant, 2, 2, 8).eval()
    assert isinstance(student[-1], Normalize)
    assert student.max_seq_length == assistant.max_seq_length == 64
    expected = student.encode(TEXTS)
    assert np.linalg.norm(expected, axis=1) == pytest.approx(1, abs=1e-5)
    save_folder(student, tmp_path / "model")
    assert np.abs(load(tmp_path / "model").encode(TEXTS) - expected).max() < 1e-5
    done = run_forked(ALONE, tmp_path / "model", *TEXTS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kind, _, vectors = done.stdout.partition(" ")
    assert kind == "AlbertModel"
    assert np.abs(np.array(eval(vectors)) - expected).max() < 1e-5
