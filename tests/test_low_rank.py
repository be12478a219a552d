"""A token table of low rank in an Electra, and linear maps of 2 bits: exact where they can be, and the file of both."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import PAIRS_SET, TEXTS, cosines
from onnx import numpy_helper
from refusals import refusal
from runs import train
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny import on_one_thread, save_bert, sentences, write_content
from transformers import AutoModel, AutoTokenizer

from distilface.cards.card import make_card
from distilface.compression.bits import BLOCK, Rounding, on_grid
from distilface.compression.gptq import gptq, round_weights
from distilface.compression.low_rank import factor_table
from distilface.compression.student import load_backbone
from distilface.exporters import exporting
from distilface.light import LightEncoder
from distilface.methods import find_method
from distilface.model.folder import load
from distilface.settings import InputError, parse

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
WIDTH, RANK = 64, 32


def states(encoder: torch.nn.Module, tokenizer) -> torch.Tensor:
    """Return the hidden states of texts of two lengths, those of padding left out."""
    rows = tokenizer(TEXTS[:8], padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        return encoder(**rows).last_hidden_state[rows["attention_mask"] == 1]


def embedded(encoder, ids: list[int]) -> np.ndarray:
    """Return what the embeddings of an encoder give for one text."""
    with torch.no_grad():
        rows = encoder.embeddings(torch.tensor([ids]))
        return getattr(encoder, "embeddings_project", torch.nn.Identity())(rows)[0].double().numpy()


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


def test_it_is_the_encoder_where_the_table_has_that_rank(bert):
    """All of it: types, positions, the scale and shift of LayerNorm, the layers."""
    encoder, tokenizer = load_backbone(str(bert))
    draw = torch.Generator().manual_seed(0)
    basis = torch.randn(RANK - 1, WIDTH, generator=draw)
    with torch.no_grad():
        for name in ("word", "position", "token_type"):
            table = getattr(encoder.embeddings, f"{name}_embeddings").weight
            shift = torch.randn(len(table), 1, generator=draw)  # which centring takes away
            table.copy_(torch.randn(len(table), RANK - 1, generator=draw) @ basis + shift)
        encoder.embeddings.LayerNorm.weight.copy_(1 + torch.rand(WIDTH, generator=draw))
        encoder.embeddings.LayerNorm.bias.copy_(torch.randn(WIDTH, generator=draw))
    student, record = factor_table(encoder, tokenizer, TEXTS, RANK)
    assert record == {"rank": RANK, "of": WIDTH, "missed": 0.0}
    torch.testing.assert_close(states(student.eval(), tokenizer), states(encoder.eval(), tokenizer), atol=1e-4, rtol=0)


def test_what_is_missed_is_less_than_of_a_plain_svd(bert):
    """By numpy: the share of the squared length of what the embeddings give, and of the table's own best."""
    encoder, tokenizer = load_backbone(str(bert))
    student, record = factor_table(encoder, tokenizer, TEXTS, RANK)
    ids = [tokenizer(text, truncation=True, max_length=64)["input_ids"] for text in TEXTS]
    want, seen = (np.concatenate([embedded(each.eval(), row) for row in ids]) for each in (encoder, student))
    about = ((want - want.mean(0)) ** 2).sum()
    missed = ((want - seen) ** 2).sum() / about
    assert record["missed"] == pytest.approx(missed, abs=1e-3)
    table = encoder.embeddings.word_embeddings.weight.data
    left, values, right = np.linalg.svd(table.numpy(), full_matrices=False)
    table.copy_(torch.from_numpy((left[:, :RANK] * values[:RANK]) @ right[:RANK]))
    plain = np.concatenate([embedded(encoder, row) for row in ids])
    assert missed < 0.95 * ((want - plain) ** 2).sum() / about


@pytest.mark.parametrize("rank", [24, 40, 64])
def test_a_rank_that_cannot_be_is_refused(bert, rank):
    with pytest.raises(InputError, match=rf"--table_rank {rank} must be a multiple of 32 below the encoder's 64"):
        factor_table(*load_backbone(str(bert)), TEXTS, rank)


def by_numpy(weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Round to the nearest of four even levels, number by number."""
    levels = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)
    blocks = weight.reshape(*scale.shape, BLOCK)
    nearest = np.abs(blocks[..., None] / scale[..., None, None] - levels).argmin(-1)
    return (levels[nearest] * scale[..., None]).reshape(weight.shape)


def test_gptq_in_2_bits_is_on_the_grid_and_nearer():
    draw = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(24, 96, generator=draw), torch.randn(400, 96, generator=draw)
    inputs = inputs @ torch.randn(96, 96, generator=draw)
    rounded, plain = gptq(weight, inputs.T @ inputs, BLOCK, 2), on_grid(weight, BLOCK, 2)
    torch.testing.assert_close(on_grid(rounded, BLOCK, 2), rounded, rtol=0, atol=0)
    scale = np.abs(rounded.numpy().reshape(24, 3, BLOCK)).max(2) / 1.5
    np.testing.assert_array_equal(by_numpy(rounded.numpy(), scale), rounded.numpy())
    lost = [((inputs @ (each - weight).T) ** 2).sum() for each in (rounded, plain)]
    assert lost[0] < 0.7 * lost[1]


def test_linear_maps_train_in_2_bits(bert):
    """The passes compute with four levels, the gradient goes to the weight itself."""
    encoder, tokenizer = load_backbone(str(bert))
    layer = encoder.encoder.layer[0].intermediate.dense
    before = layer.weight.detach().clone()
    rounding = Rounding(encoder, 2, 2)
    encoder(**tokenizer(["a dog"], return_tensors="pt")).last_hidden_state[..., 0].sum().backward()
    assert layer.weight.grad.abs().max() > 0
    torch.testing.assert_close(layer.weight.detach(), before)
    rounding.write()
    torch.testing.assert_close(layer.weight.detach(), on_grid(before, BLOCK, 2))


@pytest.fixture(scope="module")
def small(bert, materials, tmp_path_factory):
    """Train an Electra of rank 32, all in 2 bits, and export it."""
    place = tmp_path_factory.mktemp("small")
    transformer = Transformer(str(bert))
    modules = [transformer, Pooling(WIDTH, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(place / "teacher"), create_model_card=False)
    text = write_content(place / "text.txt", "\n".join(dict.fromkeys(sentences(120))) + "\n")
    words = ["--teacher", place / "teacher", "--cache_dir", place / "cache", "--data", text]
    words += ["--output_dir", place / "m"]
    words += ["--table_rank", RANK, "--bits", "2", "--table_bits", "2", "--dev", materials.pairs, "--steps", "12"]
    words += ["--eval_steps", "6", "--batch_size", "8", "--bf16", "no"]
    traced: list[Path] = []
    real = exporting.to_onnx
    with on_one_thread(), pytest.MonkeyPatch.context() as patch:
        run = train("embedding", [str(word) for word in words])
        patch.setattr(exporting, "to_onnx", lambda model, file: traced.append(file) or real(model, file))
        results = exporting.export(place / "m", PAIRS_SET, ["q4"])
    assert len(traced) == 1, "it is on the grid, so its file is the one to be written in 2 bits"
    return place / "m", run, results["q4"]


def test_the_folder_is_a_plain_electra(small):
    folder, run, _ = small
    encoder, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert (encoder.config.model_type, encoder.config.embedding_size, encoder.config.hidden_size) == ("electra", 32, 64)
    rows = tokenizer(TEXTS, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        output = encoder.eval()(**rows).last_hidden_state.double().numpy()
    mask = rows["attention_mask"].numpy()[..., None]
    pooled = (output * mask).sum(1) / mask.sum(1)
    assert cosines(pooled, load(folder).encode(TEXTS)).min() > 1 - 1e-6
    steps = {step["step"]: step for step in run["compression"]}
    assert (steps["low rank"]["rank"], steps["low rank"]["of"]) == (32, 64)
    assert steps["bits"] == {"step": "bits", "bits": 2, "table": 2}
    missed = f"{100 * steps['low rank']['missed']:.2f}%"
    card = " ".join(make_card(folder)[0].split())
    assert (
        f"Its token table has 32 numbers a piece, which a linear map turns into 64; on text this lost {missed}" in card
    )
    assert (
        "It was trained on the grid of 2-bit weights: a 2-bit file holds its linear maps and its token table as" in card
    )


def test_the_file_holds_the_codes_of_2_bits(small):
    """Unpacked by numpy, bit by bit, they are the folder's own weights."""
    folder, _, parity = small
    assert parity.refused is None
    graph = onnx.load(folder / "onnx" / "model_q4.onnx").graph
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(nodes) == 13  # six of each layer, and the map from the table
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in tensors]
    halves = {node.output[0]: tensors[node.input[0]] for node in casts}
    held = []
    for node in nodes:
        assert {flag.name: flag.i for flag in node.attribute}["bits"] == 2
        codes, scale = tensors[node.input[1]], halves[node.input[2]].astype(np.float32)
        levels = (codes[..., None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(*scale.shape, BLOCK) - 1.5
        held.append((levels * scale[..., None]).reshape(len(scale), -1))
    linears = [module for module in load(folder).modules() if isinstance(module, torch.nn.Linear)]
    for linear in linears:
        weight = linear.weight.detach().numpy()
        assert any(each.shape == weight.shape and np.array_equal(each, weight) for each in held)
    assert sum(linear.weight.numel() for linear in linears) == sum(each.size for each in held)
    vectors = LightEncoder(folder, "q4").encode(TEXTS)
    assert cosines(vectors, load(folder).encode(TEXTS)).min() > 0.9999  # its positions are in int8


def test_a_model_in_2_bits_is_not_rounded_to_4(small):
    model = load(small[0])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    round_weights(model, lambda: model.encode(TEXTS))
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_bits_that_no_file_holds_are_refused(materials, tmp_path):
    method = find_method("distill")
    words = materials.words("embedding", tmp_path / "m", "--bits", "3")
    assert "or leave it out, or give 2" in refusal(method.train, parse(method.Settings, words, ""))
    words = ["--static", "true", "--bits", "2", "--output_dir", str(tmp_path / "m")]
    assert "set --bits 4 --table_bits 2" in refusal(method.train, parse(method.Settings, words, ""))
