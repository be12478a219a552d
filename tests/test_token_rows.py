"""The tokens on which an encoder is looked at."""

from pathlib import Path

from distilface.light import LightEncoder
from distilface.light.samples import TEXT, token_rows


def test_the_grid_holds_the_first_token_of_a_text():
    """Its row is larger than any other's, and no random token stands for it."""
    file = Path("models/minilm-5mb/onnx/model_q4.onnx")
    rows, alone = token_rows(file, 17_800)
    assert rows.shape[1] == 24
    tokens = LightEncoder("models/minilm-5mb")._tokens.ids([TEXT])[0]
    assert (rows[64:, 0] == tokens[0]).all()
    assert (rows[64:, -1] == tokens[-1]).all()
    assert rows[64:, 1:-1].ravel()[:100].tolist() == tokens[1:101]
    assert max(rows.max(), alone.max()) < 17_800
    assert alone.shape == (600, 3)
    assert {(first, last) for first, _, last in alone.tolist()} == {(tokens[0], tokens[-1])}
    assert len(set(alone[:, 1])) > 550


def test_the_tokenizer_is_found_where_a_file_is_a_link(tmp_path):
    """As in the Hub's cache."""
    real = Path("models/minilm-5mb").absolute()
    (tmp_path / "onnx").mkdir()
    for name in ("tokenizer.json", "onnx/model_q4.onnx"):
        (tmp_path / name).symlink_to(real / name)
    assert len(token_rows(tmp_path / "onnx" / "model_q4.onnx", 17_800)[0]) > 64


def test_without_a_tokenizer_the_tokens_are_random(tmp_path):
    rows, alone = token_rows(tmp_path / "model.onnx", 50)
    assert (rows.shape, alone.shape) == ((64, 24), (600, 1))
    assert {(each.min(), each.max()) for each in (rows, alone)} == {(0, 49)}
