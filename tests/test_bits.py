"""Weights of 4 bits: the grid, the training on it, the rounding without training, and the file that holds the codes."""

import copy

import numpy as np
import onnx
import pytest
import torch
from exported import TEXTS, cosines, few_bits
from tiny import sentences, tiny_model
from torch import nn

from distilface.compression.bits import BLOCK, Rounding, on_grid, rounded_modules, table_bits, table_block
from distilface.compression.gptq import gptq, round_weights, second_moments
from distilface.compression.positions import cut_positions
from distilface.exporters.four_bits import to_q4
from distilface.exporters.onnx import to_onnx
from distilface.model.folder import load, save_folder
from distilface.runtimes import open_file

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def rounded_by_numpy(weight: np.ndarray, block: int) -> np.ndarray:
    """Round block by block, each number on its own."""
    out = np.empty_like(weight)
    for row, numbers in enumerate(weight):
        for start in range(0, len(numbers), block):
            part = numbers[start : start + block]
            scale = np.float32(np.float16(part[np.abs(part).argmax()] / -8))
            codes = [min(7, max(-8, round(float(number / scale)))) if scale else 0 for number in part]
            out[row, start : start + block] = np.float32(codes) * scale
    return out


def random_weight(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    weight = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) / 20
    weight[0, :BLOCK] = 0  # a block without a scale
    return weight


@pytest.fixture
def model(tmp_path):
    return tiny_model(tmp_path / "m").eval()


def test_the_grid_is_that_of_numpy_and_stays():
    weight = random_weight(7, 96)
    rounded = on_grid(weight, 32)
    np.testing.assert_array_equal(rounded.numpy(), rounded_by_numpy(weight.numpy(), 32))
    torch.testing.assert_close(on_grid(rounded, 32), rounded, rtol=0, atol=0)


def test_a_grid_stored_in_fp16_is_found_again():
    """A folder may be stored in fp16: the file made of it holds the same codes."""
    rounded = on_grid(random_weight(50, 64), 32)
    again = on_grid(rounded.half().float(), 32)
    torch.testing.assert_close(again, rounded, rtol=0, atol=0)


def two_bits_by_numpy(part: np.ndarray) -> np.ndarray:
    """Round a block to 2 bits: of all scales that are tried, the one of least error."""
    best, least = np.zeros_like(part), np.inf
    for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4):
        half = torch.tensor(np.float16(np.float32(np.abs(part).max() * np.float32(share / 1.5))))
        scale = half.bfloat16().float().item()
        levels = np.float32([-1.5, -0.5, 0.5, 1.5]) * np.float32(scale)
        rounded = levels[np.abs(part[:, None] - levels).argmin(1)]
        error = np.square(np.float64(rounded - part)).sum()
        if error < least * (1 - 1e-6):
            best, least = rounded, error
    return best


def test_two_bits_take_the_scale_of_least_error():
    """The four levels are even about zero; what is on the grid stays, also after fp16, which holds it exactly."""
    weight = random_weight(6, 64)
    rounded = on_grid(weight, 32, 2)
    expected = np.stack([[two_bits_by_numpy(part) for part in row.reshape(2, 32)] for row in weight.numpy()])
    np.testing.assert_allclose(rounded.numpy(), expected.reshape(6, 64), rtol=1e-6, atol=0)
    for again in (on_grid(rounded, 32, 2), rounded.half().float()):
        torch.testing.assert_close(again, rounded, rtol=0, atol=0)
    bits4 = on_grid(weight, 32)
    assert 0.05 < (rounded - weight).square().sum() / weight.square().sum() < 0.2
    assert (bits4 - weight).square().sum() < 0.2 * (rounded - weight).square().sum()


def test_linear_maps_and_the_token_table_are_rounded(model):
    modules = dict(rounded_modules(model))
    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert set(modules) == {*linears, model[0].model.get_input_embeddings()}
    assert [table_block(width) for width in (384, 96, 100)] == [64, 32, 0]


def test_a_pass_computes_with_rounded_weights_alone(model):
    """And the gradient at the rounded weights goes to the weights, which a checkpoint keeps as they were."""
    by_hand, before = copy.deepcopy(model), copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for module, block in rounded_modules(by_hand):
            module.weight.copy_(torch.from_numpy(rounded_by_numpy(module.weight.numpy(), block)))
    rounding = Rounding(model)
    outputs = []
    for each in (model, by_hand):
        features = each.preprocess(TEXTS[:4])
        outputs.append(each(features)["sentence_embedding"])
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    for (name, one), (_, other) in zip(model.named_parameters(), by_hand.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=0, msg=name)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    rounding.write()
    assert all(torch.equal(by_hand.state_dict()[name], weight) for name, weight in model.state_dict().items())
    rounding.remove()
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_a_pass_that_fails_gives_the_weights_back(model):
    Rounding(model)
    linear = next(module for module in model.modules() if isinstance(module, nn.Linear))
    weight = linear.weight
    with pytest.raises(RuntimeError, match="shape"):
        linear(torch.zeros(2, 3))
    assert linear.weight is weight


def optimal_brain(weight: np.ndarray, moments: np.ndarray, damping: float) -> np.ndarray:
    """Round column by column with the inverse eliminated step by step (Optimal Brain Quantization), in float64."""
    weight, out = weight.astype(np.float64), np.empty_like(weight)
    inverse = np.linalg.inv(moments + damping * np.diag(moments).mean() * np.eye(len(moments)))
    for column in range(weight.shape[1]):
        block = slice(column - column % BLOCK, column - column % BLOCK + BLOCK)
        if column % BLOCK == 0:
            first = np.abs(weight[:, block]).argmax(1)
            scales = np.float16(np.float32(weight[np.arange(len(weight)), block.start + first]) / -8).astype(np.float64)
        codes = np.clip(np.round(weight[:, column] / scales), -8, 7)
        codes[first == column % BLOCK] = -8
        out[:, column] = codes * scales
        error = (weight[:, column] - out[:, column]) / inverse[column, column]
        weight -= np.outer(error, inverse[column])
        inverse -= np.outer(inverse[:, column], inverse[column]) / inverse[column, column]
        inverse[column, column] = 1  # never read again
    return out


def test_gptq_is_optimal_brain_quantization_in_order():
    """Its Cholesky factor gives what eliminating each column from the inverse gives (arXiv 2210.17323, section 3)."""
    inputs = np.random.default_rng(0).normal(size=(400, 64)) @ np.random.default_rng(1).normal(size=(64, 64))
    moments = (inputs.T @ inputs).astype(np.float32)
    weight = random_weight(20, 64)[1:]
    rounded = gptq(weight, torch.from_numpy(moments), BLOCK).numpy()
    other = optimal_brain(weight.numpy(), moments.astype(np.float64), 0.01)
    assert (np.abs(rounded - other) < 1e-6).mean() > 0.99, "but where a code is decided by the last bits"
    plain = on_grid(weight, BLOCK).numpy()
    errors = [np.square(inputs @ (weight.numpy() - each).T).sum() for each in (rounded, plain)]
    assert errors[0] < 0.5 * errors[1]
    np.testing.assert_array_equal(on_grid(torch.from_numpy(rounded), BLOCK).numpy(), rounded)


def test_second_moments_are_those_of_the_inputs(model):
    linear = next(module for module in model.modules() if isinstance(module, nn.Linear))
    seen = []
    handle = linear.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().numpy()))
    (moments,) = second_moments([linear], lambda: model.encode(TEXTS, show_progress_bar=False))
    handle.remove()
    rows = np.concatenate([each.reshape(-1, each.shape[-1]) for each in seen]).astype(np.float64)
    np.testing.assert_allclose(moments.numpy(), rows.T @ rows, rtol=1e-4, atol=1e-4)
    assert not linear._forward_pre_hooks


def test_a_model_on_the_grid_is_not_rounded_again(model):
    texts = sentences(50)
    round_weights(model, lambda: model.encode(texts, show_progress_bar=False))
    weights = copy.deepcopy(model.state_dict())
    for module, block in rounded_modules(model):
        torch.testing.assert_close(on_grid(module.weight, block), module.weight, rtol=0, atol=0)

    def read() -> None:
        raise AssertionError("the text is read again")

    round_weights(model.half().float(), read)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=2**-10, atol=1e-7)


def dequantised(file) -> list[np.ndarray]:
    """Return the 4-bit weights of a file, each (outputs, inputs), from the codes and scales that it holds."""
    weights = []
    for kind, flags, stored, scales in few_bits(file):
        if kind == "MatMulNBits":
            shape = (flags["N"], flags["K"])
            codes = np.stack([stored & 15, stored >> 4], -1).reshape(shape).astype(np.float32) - 8
        else:
            codes, shape = stored.astype(np.float32), stored.shape
        weights.append(codes * scales.reshape(shape[0], -1).repeat(flags["block_size"], axis=1))
    return weights


def test_the_file_holds_the_codes_that_were_trained(model, tmp_path):
    """Code for code: each weight of the folder stands in the file as it is."""
    Rounding(model).write()
    save_folder(model, tmp_path / "folder")
    folder = load(tmp_path / "folder")
    to_onnx(folder, tmp_path / "m.onnx")
    to_q4(tmp_path / "m.onnx", tmp_path / "q4.onnx")
    stored = dequantised(tmp_path / "q4.onnx")
    own = [module.weight.detach().numpy() for module, _ in rounded_modules(folder)]
    assert len(stored) == len(own) > 10
    for weight in own:
        assert any(weight.shape == each.shape and np.array_equal(weight, each) for each in stored)
    encoder = open_file(tmp_path / "q4.onnx", folder)
    assert cosines(encoder.encode(TEXTS), folder.encode(TEXTS)).min() > 0.999, "but for its positions in int8"


def test_a_table_of_two_bits_stands_so_in_the_file(model, tmp_path):
    """Four codes a byte, unpacked by ONNX's own operators; the folder's table is found on its grid again."""
    Rounding(model, 2).write()
    save_folder(model, tmp_path / "folder")
    folder = load(tmp_path / "folder")
    table = folder[0].model.get_input_embeddings()
    kept = table.weight.detach().clone()
    round_weights(folder, lambda: None)
    assert table_bits(table) == 2
    torch.testing.assert_close(table.weight, kept, rtol=0, atol=0)
    to_onnx(folder, tmp_path / "m.onnx")
    to_q4(tmp_path / "m.onnx", tmp_path / "q4.onnx")
    tensors = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "q4.onnx").graph.initializer
    }
    packed, scales = tensors["table_2bit"], tensors["table_scales"].astype(np.float32)
    assert packed.nbytes == kept.numel() // 4
    codes = np.concatenate([(packed >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1) - 1.5
    np.testing.assert_array_equal(codes * scales.repeat(kept.shape[1] // scales.shape[1], axis=1), kept.numpy())
    encoder = open_file(tmp_path / "q4.onnx", folder)
    assert cosines(encoder.encode(TEXTS), folder.encode(TEXTS)).min() > 0.999, "but for its positions in int8"


def test_positions_are_cut_to_the_length(model, tmp_path):
    model.max_seq_length = 24
    before = model.encode(TEXTS)
    assert cut_positions(model) == 24
    assert cut_positions(model) is None, "nothing is left to cut"
    np.testing.assert_array_equal(model.encode(TEXTS), before)
    save_folder(model, tmp_path / "cut", max_seq_length=24)
    cut = load(tmp_path / "cut")
    assert (
        cut[0].model.embeddings.position_embeddings.weight.shape[0] == cut[0].model.config.max_position_embeddings == 24
    )
    np.testing.assert_allclose(cut.encode(TEXTS), before, atol=1e-6)
