"""A start from the mean of several students' weights: the mean against numpy, the training, refusals."""

import numpy as np
import pytest
import torch
from refusals import refusal
from runs import train
from safetensors.numpy import load_file
from tiny import sentences, tiny_backbone, write_content

from distilface.cards.card import make_card
from distilface.compression.student import load_backbone
from distilface.run import read_run

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make three students of one shape, which differ by noise, and a text; the first is the others' teacher."""
    place = tmp_path_factory.mktemp("averaging")
    tiny_backbone(place / "a")
    encoder, tokenizer = load_backbone(str(place / "a"))
    draw = torch.Generator().manual_seed(1)
    for name in ("b", "c"):
        with torch.no_grad():
            for weight in encoder.parameters():
                weight += 0.1 * torch.randn(weight.shape, generator=draw)
        encoder.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    write_content(place / "text.txt", "\n".join(sentences(60)))
    return place


def words(place, *more: str) -> list[str]:
    options = (
        f"--teacher {place / 'a'} --backbone {place / 'a'} --data {place / 'text.txt'} --output_dir {place / 'out'}"
    )
    return [*options.split(), *["--dev", "none", "--held_out", "9", "--steps", "1", "--batch_size", "16"], *more]


def test_a_student_starts_from_the_mean(place):
    """Of three, the backbone included; run.json and the card say so."""
    others = [str(place / "b"), str(place / "c")]
    train("embedding", words(place, "--average_with", *others, "--untrained_dir", str(place / "untrained")))
    start = load_file(place / "untrained" / "model.safetensors")
    each = [load_file(place / name / "model.safetensors") for name in "abc"]
    assert len(start) >= 20, "weights of an encoder"
    for name, weight in start.items():
        np.testing.assert_allclose(weight, np.mean([one[name] for one in each], axis=0), rtol=1e-5, atol=1e-6)
        assert not np.array_equal(weight, each[0][name])
    run = read_run(place / "out" / "run.json")
    assert run.compression == [{"step": "average", "with": others}]
    assert [source.name for source in run.averaged] == others
    card = make_card(place / "out", "org/out")[0]
    assert "Its weights start from the mean of those of its teacher, `" in card
    assert card.count("The mean is also of those of") == 2


def test_what_has_no_mean_is_refused(place, tmp_path):
    encoder, tokenizer = load_backbone(str(place / "a"), [0])
    encoder.save_pretrained(tmp_path / "cut")
    tokenizer.save_pretrained(tmp_path / "cut")
    said = refusal(train, "embedding", words(place, "--overwrite", "--average_with", str(tmp_path / "cut")))
    assert "cut has another shape than the student, so they have no mean" in said
    encoder, tokenizer = load_backbone(str(place / "a"))
    encoder.save_pretrained(tmp_path / "renamed")
    tokenizer.save_pretrained(tmp_path / "renamed")
    file = tmp_path / "renamed" / "tokenizer.json"
    piece = next(each for each in tokenizer.get_vocab() if each.isalpha() and len(each) > 3)
    file.write_text(file.read_text().replace(f'"{piece}"', '"quokka"'))
    said = refusal(train, "embedding", words(place, "--overwrite", "--average_with", str(tmp_path / "renamed")))
    assert "renamed has other pieces than the student" in said
    assert "none/there" in refusal(train, "embedding", words(place, "--average_with", "none/there", "--overwrite"))
