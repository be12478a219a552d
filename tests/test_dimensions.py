"""Vectors of fewer numbers: ``truncate_dim`` in a training, its folder, its files, every runtime, the card."""

import json
import logging
import shutil

import numpy as np
import onnx
import pytest
from exported import PAIRS_SET, TEXTS
from refusals import refusal
from runs import train
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from suites import write_search
from tiny import on_one_thread, tiny_model

from distilface.cards.card import make_card, write_card
from distilface.cards.info import folder_lines
from distilface.cards.snippets import snippets
from distilface.data.pairs import read_sts
from distilface.evaluation.reports import compare
from distilface.evaluation.scores import as_encoder
from distilface.exporters.exporting import export
from distilface.light import LightEncoder
from distilface.methods import find_method
from distilface.model.folder import load, open_folder, save_folder
from distilface.model.static import plain_tokenizer
from distilface.run import read_run
from distilface.runtimes import open_file
from distilface.settings import parse

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
COUNT, WIDTH = 12, 32
ONNX = "onnx/model.onnx"


def shortened(vectors: np.ndarray, unit: bool, count: int = COUNT) -> np.ndarray:
    """Cut vectors by numpy."""
    short = vectors[:, :count].astype(np.float64)
    return short / np.linalg.norm(short, axis=1, keepdims=True) if unit else short


def whole(folder) -> np.ndarray:
    return np.asarray(SentenceTransformer(str(folder), truncate_dim=WIDTH, device="cpu").encode(TEXTS))


@pytest.fixture(scope="module")
def rotated(materials, tmp_path_factory):
    """Train a rotated student that gives 12 of 32 numbers, of unit length; export it."""
    place = tmp_path_factory.mktemp("short")
    teacher = SentenceTransformer(modules=[*tiny_model(place / "t0", seed=7), Normalize()], device="cpu")
    teacher.save_pretrained(str(place / "teacher"), create_model_card=False)
    with on_one_thread():
        own = ["--teacher", str(place / "teacher"), "--projection", "false", "--cache_dir", str(place / "cache")]
        more = ["--rotate", "true", "--truncate_dim", str(COUNT)]
        run = train("embedding", materials.words("embedding", place / "m", *own, *more))
        export(place / "m", PAIRS_SET, ["onnx"])
    return place / "m", run, place / "teacher"


def test_the_folder_is_cut_as_upstream_cuts_it(rotated):
    folder, run, _ = rotated
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["truncate_dim"] == COUNT
    vectors = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(vectors, whole(folder)[:, :COUNT], atol=1e-6)
    assert {"step": "dimensions", "width": COUNT, "of": WIDTH} in run["compression"]


def test_every_runtime_gives_the_first_numbers(rotated):
    """By numpy on the whole vectors, and of length 1, as the folder ends so; the graph itself cuts."""
    folder = rotated[0]
    expected = shortened(whole(folder), True)
    shape = onnx.load(folder / ONNX).graph.output[1].type.tensor_type.shape
    assert shape.dim[1].dim_value == COUNT
    for encoder in (as_encoder(str(folder)), open_file(folder / ONNX, folder), LightEncoder(folder, "onnx")):
        assert encoder.dimension == COUNT
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def test_a_static_file_is_cut(tmp_path):
    pieces = tiny_model(tmp_path / "made").tokenizer.backend_tokenizer
    table = StaticEmbedding(plain_tokenizer(pieces), embedding_dim=WIDTH)
    model = SentenceTransformer(modules=[table, Normalize()], device="cpu", truncate_dim=COUNT)
    folder = save_folder(model, tmp_path / "m").path
    export(folder, PAIRS_SET, ["onnx"])
    np.testing.assert_allclose(LightEncoder(folder, "onnx").encode(TEXTS), shortened(whole(folder), True), atol=2e-5)
    assert "numpy" in snippets(write_card(folder).read_text())


@pytest.mark.parametrize(("kind", "unit"), [("mean", False), ("dense", True)])
def test_a_file_older_than_the_cut_is_cut_too(students, tmp_path, kind, unit):
    """As one of the Hub, beside whose config someone has put truncate_dim: its numbers would be too many."""
    folder = shutil.copytree(students[kind], tmp_path / "m")
    expected = shortened(load(folder).encode(TEXTS), unit, 5)
    config = folder / "config_sentence_transformers.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"truncate_dim": 5}))
    for encoder in (as_encoder(str(folder)), LightEncoder(folder, "onnx"), open_file(folder / ONNX, folder)):
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=2e-5)


def test_the_scores_are_of_the_cut_model(rotated, materials, tmp_path):
    """Against scipy on the cut vectors; the run says what each width keeps."""
    folder, run, teacher = rotated
    pairs = read_sts(str(materials.pairs))
    for count in (COUNT, WIDTH):
        one, other = (
            SentenceTransformer(str(folder), truncate_dim=count, device="cpu").encode(pairs[name])
            for name in ("sentence1", "sentence2")
        )
        cosines = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
        expected = 100 * spearmanr(cosines, pairs["score"])[0]
        assert run["dimensions"]["scores"][str(count)] == pytest.approx(expected, abs=1e-3)
    assert run["dimensions"]["score"] == "stsb_dev"
    assert run["scores"]["stsb_dev"] == pytest.approx(run["dimensions"]["scores"][str(COUNT)], abs=1e-3)
    assert run["agreement"]["after"]["cosine"] is None  # of other widths
    assert read_run(folder / "run.json").dimensions == run["dimensions"]
    report = compare(str(folder), None, list(write_search(tmp_path)), ["onnx"], str(teacher))
    assert {name: row["dimension"] for name, row in report["encoders"].items()} == {
        "teacher": WIDTH,
        "model": COUNT,
        "onnx": COUNT,
    }


def test_the_card_and_info_say_how_many_numbers(rotated):
    folder, run, _ = rotated
    text = write_card(folder, license="mit").read_text()
    words = " ".join(text.split())
    assert f"| dimension | {COUNT}, the first of {WIDTH}, of length 1 |" in text
    assert f"Of its {WIDTH} numbers it gives the first {COUNT} (`truncate_dim`)" in words
    part, all_ = (run["dimensions"]["scores"][str(count)] for count in (COUNT, WIDTH))
    assert f"the first {COUNT} give {part:.2f} ({100 * part / all_:.2f}%)" in words
    assert f"would give all {WIDTH} numbers" in words
    assert {"transformers", "onnxruntime", "sentence-transformers"} <= set(snippets(text))
    assert "fastembed" not in snippets(text)
    assert f"the first {COUNT} of {WIDTH} dimensions" in folder_lines(open_folder(folder))[0]


def test_the_card_of_a_whole_model_says_nothing_of_it(tmp_path):
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    assert "truncate_dim" not in make_card(tmp_path / "m")[0]
    assert load(tmp_path / "m").truncate_dim is None


@pytest.mark.parametrize(("count", "problem"), [("32", "the student's vectors have 32 numbers"), ("0", "above 0")])
def test_a_count_out_of_range_is_refused(materials, tmp_path, count, problem):
    method = find_method("distill")
    words = materials.words("embedding", tmp_path / "m", "--truncate_dim", count)
    assert problem in refusal(method.train, parse(method.Settings, words, ""))


def test_axes_that_are_not_the_best_are_said(materials, tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="distilface")
    run = train("leaf", materials.words("leaf", tmp_path / "m", "--truncate_dim", "8", "--steps", "3"))
    assert "--truncate_dim 8 keeps the first numbers of the teacher's own axes" in caplog.text
    assert list(run["dimensions"]["scores"]) == ["8", "48"]
