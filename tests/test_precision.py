"""Numbers of 16 bits and compiling: what each machine trains in, and that a compiled student learns the same."""

import numpy as np
import pytest
import torch
from runs import train
from safetensors.numpy import load_file
from tiny import sentences, tiny_backbone, write_content

from distilface.model import precision

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("gpu", "bf16", "choice", "expected"),
    [
        (True, True, "auto", (True, False)),
        (True, False, "auto", (False, True)),
        (True, False, "yes", (True, False)),
        (True, True, "no", (False, False)),
        (True, False, "no", (False, False)),
        (False, False, "auto", (False, False)),
        (False, True, "auto", (True, False)),
    ],
)
def test_a_machine_trains_in_the_numbers_it_multiplies(monkeypatch, gpu, bf16, choice, expected):
    """A GPU before Ampere says that it has bf16, and emulates it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: bf16 or including_emulation)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)
    assert (precision.uses_bf16(choice), precision.uses_fp16(choice)) == expected


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_compiled_student_learns_the_same(tmp_path):
    teacher, text = tiny_backbone(tmp_path / "teacher"), write_content(tmp_path / "t.txt", "\n".join(sentences(64)))
    weights = []
    for name in ("plain", "compiled"):
        words = ["--teacher", teacher, "--data", text, "--dev", "none", "--held_out", "8", "--steps", "3"]
        words += ["--layers", "0", "--batch_size", "8", "--bf16", "no", "--compile", str(name == "compiled").lower()]
        train("embedding", [str(word) for word in [*words, "--output_dir", tmp_path / name]])
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    for key, plain in weights[0].items():
        np.testing.assert_allclose(weights[1][key], plain, atol=2e-6, err_msg=key)
