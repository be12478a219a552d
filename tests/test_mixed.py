"""8 bits where 4 lose: which parts take them, the file that holds their codes, and what is refused."""

import copy
import json

import numpy as np
import pytest
import torch
from exported import TEXTS, cosines, few_bits
from refusals import refusal
from tiny import sentences, tiny_model
from transformers.models.bert.modeling_bert import BertPooler

import distilface
from distilface.compression.bits import MORE_BITS, on_grid, rounded_modules
from distilface.compression.gptq import round_weights
from distilface.compression.mixed import lost, more_bits
from distilface.exporters.four_bits import to_q4
from distilface.exporters.onnx import to_onnx
from distilface.light import LightEncoder
from distilface.light.expanding import expand
from distilface.light.ways import runs_here, ways_of
from distilface.runtimes import open_file
from distilface.verbs import export_folder

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "own_home")
SENTENCES = sentences(40)


@pytest.fixture
def text(tmp_path_factory) -> str:
    """Return a file of the sentences, to round by."""
    file = tmp_path_factory.mktemp("text") / "text.txt"
    file.write_text("\n".join(SENTENCES))
    return str(file)


def embed(model) -> np.ndarray:
    return model.encode(SENTENCES, show_progress_bar=False)


def lost_by_numpy(one: np.ndarray, other: np.ndarray) -> float:
    pairs = zip(one.astype(np.float64), other.astype(np.float64), strict=True)
    return 1 - np.mean([np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model whose second layer has a few very large weights, which spoil their blocks of 4 bits; and it in 4 bits."""
    model = tiny_model(tmp_path_factory.mktemp("mixed") / "m").eval()
    with torch.no_grad():
        for name, module in model.named_modules():
            if "layer.1" in name and isinstance(module, torch.nn.Linear):
                module.weight[:, ::16] *= 12
    rounded = copy.deepcopy(model)
    round_weights(rounded, lambda: embed(rounded))
    return model, rounded


def in_eight(model, rounded) -> dict[str, np.ndarray]:
    """Return the weights of a rounded model that are a model's own in 8 bits."""
    own = dict(model.named_modules())
    blocks = {id(module): block for module, block in rounded_modules(rounded)}
    found = {}
    for name, module in rounded.named_modules():
        if id(module) in blocks and torch.equal(
            module.weight, on_grid(own[name].weight, blocks[id(module)], MORE_BITS)
        ):
            found[name] = module.weight.detach().numpy()
    return found


def test_the_grid_of_8_bits_is_that_of_numpy():
    weight = torch.randn(5, 64, generator=torch.Generator().manual_seed(3)) / 20
    weight[0, :32] = 0
    expected = np.zeros((5, 64), np.float32)
    for row, numbers in enumerate(weight.numpy()):
        for start in (0, 32):
            part = numbers[start : start + 32]
            scale = np.float32(np.float16(part[np.abs(part).argmax()] / -128))
            codes = np.clip(np.round(part / scale), -128, 127) if scale else np.zeros(32)
            expected[row, start : start + 32] = codes * scale
    rounded = on_grid(weight, 32, MORE_BITS)
    np.testing.assert_array_equal(rounded.numpy(), expected)
    torch.testing.assert_close(on_grid(rounded, 32, MORE_BITS), rounded, rtol=0, atol=0)


def test_as_few_bytes_as_may_be_take_8_bits(models):
    """Less is lost than may be; with the part in 4 bits that saves most for what it loses, more would be."""
    model, plain = models
    exact, before = embed(model), lost_by_numpy(embed(plain), embed(model))
    assert lost(embed(plain), exact) == pytest.approx(before, abs=1e-6)
    rounded, weights = copy.deepcopy(plain), copy.deepcopy(model.state_dict())
    alone = more_bits(model, rounded, embed, before / 3)
    assert 0 < len(alone) < len(list(rounded_modules(model)))
    assert set(in_eight(model, rounded)) == set(alone)
    assert lost_by_numpy(embed(rounded), exact) <= before / 3
    own, four = dict(rounded.named_modules()), dict(plain.named_modules())
    first = next(iter(alone))
    own[first].weight.data.copy_(four[first].weight)
    assert lost_by_numpy(embed(rounded), exact) > before / 3
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=0)


def test_what_a_part_loses_is_measured_with_all_others_in_8_bits(models):
    model, plain = models
    exact, before = embed(model), lost(embed(plain), embed(model))
    alone = more_bits(model, copy.deepcopy(plain), embed, before / 3)
    others = copy.deepcopy(plain)
    own = dict(model.named_modules())
    names = {id(module): name for name, module in others.named_modules()}
    for module, block in rounded_modules(others):
        module.weight.data.copy_(on_grid(own[names[id(module)]].weight, block, MORE_BITS))
    least = lost_by_numpy(embed(others), exact)
    name = max(alone, key=alone.__getitem__)
    dict(others.named_modules())[name].weight.data.copy_(dict(plain.named_modules())[name].weight)
    assert lost_by_numpy(embed(others), exact) - least == pytest.approx(alone[name], abs=2e-6)


def test_where_4_bits_are_enough_all_stay(models):
    model, plain = models
    rounded = copy.deepcopy(plain)
    assert more_bits(model, rounded, embed, 0.9) == {}
    for one, other in zip(rounded.state_dict().values(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def dequantised(file) -> list[np.ndarray]:
    """Return the weights of 8 bits of a file, from the codes and scales that it holds."""
    weights = []
    for _, flags, stored, scales in few_bits(file):
        if flags.get("bits") == MORE_BITS:
            codes = stored.reshape(len(stored), -1).astype(np.float32) - 128
            weights.append(codes * scales.reshape(len(stored), -1).repeat(flags["block_size"], axis=1))
    return weights


@pytest.mark.parametrize("most", ["a third", "next to nothing"])
def test_the_file_holds_the_codes_and_the_vectors(models, tmp_path, most):
    """Code for code, the table too where it is among them; what a light encoder expands has the same vectors."""
    model, plain = models
    rounded = copy.deepcopy(plain)
    before = lost(embed(plain), embed(model))
    alone = more_bits(model, rounded, embed, before / 3 if most == "a third" else 2e-4)
    to_onnx(rounded, tmp_path / "m.onnx")
    to_q4(tmp_path / "m.onnx", tmp_path / "q4.onnx")
    expected, stored = in_eight(model, rounded), dequantised(tmp_path / "q4.onnx")
    assert len(stored) == len(alone) == len(expected)
    assert most == "a third" or any("embeddings" in name for name in alone)
    for weight in expected.values():
        assert any(weight.shape == each.shape and np.array_equal(weight, each) for each in stored)
    encoder = open_file(tmp_path / "q4.onnx", rounded)
    embeddings = encoder.encode(TEXTS)
    assert cosines(embeddings, rounded.encode(TEXTS)).min() > 0.999, "but for its positions in int8"
    expand(tmp_path / "q4.onnx", tmp_path / "fp32.onnx")
    np.testing.assert_allclose(open_file(tmp_path / "fp32.onnx", rounded).encode(TEXTS), embeddings, atol=1e-5)


def test_an_export_says_what_is_in_8_bits(models, tmp_path, text):
    model, _ = models
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    files = {}
    for most in (None, 0.001):
        distilface.export(tmp_path / "m", formats=["q4"], most_lost=most, calibration=[text])
        files[most] = json.loads((tmp_path / "m" / "export.json").read_text())["files"]["onnx/model_q4.onnx"]
    assert "in_8_bits" not in files[None]
    assert files[0.001]["most_lost"] == 0.001
    named = files[0.001]["in_8_bits"]
    assert named
    assert files[0.001]["what"].endswith(f"of its parts {len(named)} in 8 bits")
    assert files[0.001]["mean_cosine"] > files[None]["mean_cosine"]
    assert len(dequantised(tmp_path / "m" / "onnx" / "model_q4.onnx")) == len(named)


def test_what_cannot_be_is_refused(models, tmp_path):
    model, plain = models
    said = refusal(more_bits, model, copy.deepcopy(plain), embed, 1e-9)
    least = float(said.split("lose ")[1].split(",")[0])
    assert 1e-9 < least < 0.01
    assert "more than --most_lost 1e-09; let them lose more, or take the format int8 or fp16" in said
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    for number in (0.0, 1.0, -0.1):
        said = refusal(distilface.export, tmp_path / "m", formats=["q4"], most_lost=number, output_dir=tmp_path / "x")
        assert said == f"--most_lost {number:g} is out of range; it must be above 0 and below 1"


def test_a_refusal_leaves_nothing_behind(models, tmp_path, text):
    """No file of another format, and no saved model that would be in the way of the next try."""
    models[0].save_pretrained(str(tmp_path / "m"), create_model_card=False)
    before = sorted(tmp_path.rglob("*"))
    words = ["--folder", str(tmp_path / "m"), "--formats", "onnx", "q4", "--most_lost", "1e-9", "--calibration", text]
    assert "more than --most_lost 1e-09" in refusal(export_folder, [*words, "--output-dir", str(tmp_path / "x")])
    assert not (tmp_path / "x").exists()
    assert "more than --most_lost 1e-09" in refusal(export_folder, words)
    assert sorted(tmp_path.rglob("*")) == before


def test_every_way_to_run_such_a_file_has_its_vectors(models, tmp_path, text):
    """Exported on the command line."""
    models[0].save_pretrained(str(tmp_path / "m"), create_model_card=False)
    export_folder(["--folder", str(tmp_path / "m"), "--formats", "q4", "--most_lost", "0.001", "--calibration", text])
    assert dequantised(tmp_path / "m" / "onnx" / "model_q4.onnx")
    ways = {name: way for name, way in ways_of(tmp_path / "m").items() if runs_here(way)}
    assert {name.split(" on ")[0] for name in ways} >= {"q4", "q4 in int8", "q4 in fp32"}
    encoder = LightEncoder(tmp_path / "m", "q4")
    first = encoder.encode(SENTENCES)
    for name, way in ways.items():
        assert cosines(encoder.running(way, 1).encode(SENTENCES), first).min() > 0.99, name


def test_the_pooler_that_no_embedding_reads_is_no_part(models):
    model, plain = (copy.deepcopy(each) for each in models)
    for each in (model, plain):
        bert = each[0].model
        bert.pooler = BertPooler(bert.config)
        torch.nn.init.constant_(bert.pooler.dense.weight, 0.3)
    model[0].model.pooler.dense.weight.data[:, 0] = 0.1
    alone = more_bits(model, plain, embed, 2e-4)
    assert alone
    assert not any("pooler" in name for name in alone)
    assert (plain[0].model.pooler.dense.weight == 0.3).all(), "it stays as it was rounded"


def test_where_it_does_nothing_the_log_says_so(models, tmp_path, text, caplog):
    models[1].save_pretrained(str(tmp_path / "rounded"), create_model_card=False)
    models[0].save_pretrained(str(tmp_path / "m"), create_model_card=False)
    with caplog.at_level("INFO", "distilface"):
        distilface.export(tmp_path / "rounded", formats=["q4"], most_lost=0.2, calibration=[text])
        distilface.export(tmp_path / "m", formats=["q4"], most_lost=0.9, calibration=[text])
        refusal(distilface.export, tmp_path / "none", formats=["onnx"], most_lost=0.9)
    assert "--most_lost 0.2 changes nothing: the weights are on the 4-bit grid already" in caplog.text
    assert "in 4 bits the vectors lose no more than --most_lost 0.9, so none is in 8" in caplog.text
    assert "most_lost has no effect without the format q4" in caplog.text
