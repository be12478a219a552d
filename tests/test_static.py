"""Static students: how they start and their vectors, against numpy; their folder, files, training, card, refusals."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import PAIRS_SET
from refusals import refusal
from runs import stopped_at
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny import on_one_thread, sentences, tiny_model, write_pairs
from tokenizers import Tokenizer

import distilface
from distilface.cards.card import make_card
from distilface.cards.info import folder_lines
from distilface.compression.bits import on_grid
from distilface.compression.static import SMOOTHING, piece_embeddings, static_student, weighted_rows
from distilface.data.texts import as_texts
from distilface.exporters import export
from distilface.exporters.parity import EDGES
from distilface.hub.checks import publishable
from distilface.light import LightEncoder
from distilface.methods.embedding import Distillation, DistillSettings
from distilface.model.folder import load, open_folder, save_folder
from distilface.model.static import length_limit
from distilface.runtimes import FILES, open_file
from distilface.settings import parse
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
#: Of the numbers of a vector, by the format of a file; the other formats are made as one of these.
TOLERANCES = {"onnx": 1e-6, "q4": 1e-6, "fp16": 2e-3, "openvino": 2e-3, "int8": 2e-2, "avx2": 2e-2}
#: A text without a piece among others, one of unknown pieces, and one that a transformer would cut.
TEXTS = ["a dog", "", "the tired man and the river", "漢字", " ", "dog " * 300]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Make a teacher, a text, scored pairs, and a static student that was trained on the grid and exported to all."""
    place = tmp_path_factory.mktemp("static")
    model = SentenceTransformer(modules=[*tiny_model(place / "backbone"), Normalize()], device="cpu")
    model.tokenizer.backend_tokenizer.enable_truncation(16)  # as the tokenizer.json of many a teacher has
    save_folder(model, place / "teacher")
    (place / "text.txt").write_text("\n".join(sentences(300, seed=1)) + "\n")
    write_pairs(place / "pairs.jsonl")
    with on_one_thread():
        train(place, "m", "--bits", "4", "--vocabulary", "90")
        export(place / "m", PAIRS_SET, list(TOLERANCES))
    return place


def settings(place: Path, output: str, *more: str) -> DistillSettings:
    files = {"teacher": "teacher", "data": "text.txt", "dev": "pairs.jsonl", "cache_dir": "cache", "output_dir": output}
    words = [word for name, file in files.items() for word in (f"--{name}", str(place / file))]
    return parse(DistillSettings, [*words, "--static", "true", *more], "")


def train(place: Path, output: str, *more: str) -> dict:
    options = ["--steps", "30", "--eval_steps", "15", "--learning_rate", "5e-3", "--metric", "cosine"]
    return Distillation().train(settings(place, output, *options, *more))


def table_of(folder: Path) -> np.ndarray:
    return load(folder)[0].embedding.weight.detach().numpy()


def by_numpy(folder: Path, texts: list[str]) -> np.ndarray:
    """Embed texts by the folder's table and its tokenizer's tokens: their mean, of length 1."""
    table, tokenizer = table_of(folder).astype(np.float64), Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    means = np.stack([table[row].mean(0) if row else np.zeros(table.shape[1]) for row in rows])
    return means / np.linalg.norm(means, axis=1, keepdims=True).clip(1e-12)


def test_it_starts_from_the_teachers_pieces(place):
    """Against a count of words and the teacher's own ``encode`` of each: all of these words are pieces."""
    teacher, texts = load_teacher(str(place / "teacher"), "cpu"), sentences(200, seed=3)
    student = static_student(teacher, as_texts(texts)[1], normalize=True)
    counts = Counter(word for text in texts for word in text.split())
    total, words = sum(counts.values()), sorted(counts)
    alone = dict(zip(words, teacher.encode(words).astype(np.float64), strict=True))
    parts = {word: count / total * SMOOTHING / (SMOOTHING + count / total) for word, count in counts.items()}
    common = sum(parts[word] * alone[word] for word in words) / sum(parts.values())
    for word in words:
        weight = SMOOTHING / (SMOOTHING + counts[word] / total)
        row = student[0].embedding.weight[student.tokenizer.token_to_id(word)].detach().numpy()
        np.testing.assert_allclose(row, weight * (alone[word] - common), atol=1e-6)
    assert student.get_embedding_dimension() == teacher.get_embedding_dimension()
    marks = [student.tokenizer.token_to_id(mark) for mark in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    assert not student[0].embedding.weight[marks].any()
    assert student[0].embedding.weight[student.tokenizer.token_to_id("[UNK]")].any(), "a text may be all unknown"


def test_the_mean_of_all_texts_is_taken_off():
    """By the weighted rows of all the tokens of a text, drawn by their counts."""
    rows, counts = np.random.default_rng(0).normal(size=(5, 4)) + 3, np.asarray([50, 20, 20, 10, 0])
    table = weighted_rows(rows, counts, 0.1)
    np.testing.assert_allclose(np.repeat(table, counts, axis=0).mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(table[1] / (0.1 / 0.3) - table[3] / (0.1 / 0.2), rows[1] - rows[3], rtol=1e-5)
    assert np.isfinite(weighted_rows(rows, 0 * counts)).all()


def test_pieces_stand_between_special_tokens(place):
    """A piece inside a word cannot be written as a text: "##a" alone would be read as three pieces."""
    teacher = load_teacher(str(place / "teacher"), "cpu")
    ids = teacher.tokenizer.convert_tokens_to_ids(["dog", "##a"])
    features = {"input_ids": torch.tensor([[2, ids[1], 3]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    expected = [teacher.encode("dog"), teacher(features)["sentence_embedding"][0].numpy()]
    np.testing.assert_allclose(piece_embeddings(teacher, torch.tensor(ids)), expected, atol=1e-6)


def test_the_folder_is_plain(place):
    """It loads in sentence-transformers itself; nothing else than the table and the tokenizer decides its vectors."""
    folder = open_folder(place / "m")
    model = SentenceTransformer(str(folder.path), device="cpu")
    assert [type(module) for module in model] == [StaticEmbedding, Normalize]
    np.testing.assert_allclose(model.encode(TEXTS), by_numpy(folder.path, TEXTS), atol=1e-6)
    rules = json.loads((folder.path / "tokenizer.json").read_text())
    assert (rules["truncation"], rules["post_processor"]) == (None, None), "the teacher's would cut at 16 tokens"
    assert (folder.parameters, length_limit(model)) == (90 * 32, None)
    types = [module["type"] for module in json.loads((folder.path / "modules.json").read_text())]
    assert types == [f"sentence_transformers.models.{name}" for name in ("StaticEmbedding", "Normalize")]
    saved = save_folder(model, place / "again")
    assert saved.fingerprint == folder.fingerprint
    model[0].embedding.weight.data[7] += 1
    assert save_folder(model, place / "other").fingerprint != folder.fingerprint


@pytest.mark.parametrize(
    ("name", "light"), [*((name, False) for name in TOLERANCES), *((name, True) for name in ("q4", "int8", "onnx"))]
)
def test_every_file_gives_the_vectors_of_the_folder(place, name, light):
    """On its runtime, and in the encoder that runs without torch."""
    folder, path = place / "m", FILES[name].path
    assert json.loads((folder / "export.json").read_text())["files"][path]["refused"] is None
    encoder = distilface.load(folder, variant=name) if light else open_file(folder / path, folder)
    assert isinstance(encoder, LightEncoder) == light
    assert encoder.dimension == 32
    assert not encoder.encode("").any()
    texts, tolerance = [*TEXTS, *EDGES], TOLERANCES[name]
    expected = by_numpy(folder, texts)
    for size in (1, 3, 5, 32):
        vectors = encoder.encode(texts, size)
        np.testing.assert_allclose(vectors[:-1], expected[:-1], atol=tolerance)
        np.testing.assert_allclose(vectors[-1], expected[-1], atol=tolerance + 5e-5, err_msg="a sum of 9,000 in fp32")
    prompted = encoder.encode(["dog"], prompt="the old ")
    np.testing.assert_allclose(prompted, by_numpy(folder, ["the old dog"]), atol=tolerance)


def test_a_foreign_tokenizer_adds_no_special_tokens(place, tmp_path):
    """``StaticEmbedding`` leaves out what the file's post-processor would add: its vectors would be of other tokens."""
    save_folder(load(place / "m"), tmp_path / "m")
    (tmp_path / "m" / "onnx").mkdir()
    (tmp_path / "m" / "onnx" / "model.onnx").write_bytes((place / "m" / "onnx" / "model.onnx").read_bytes())
    file = tmp_path / "m" / "tokenizer.json"
    whole = json.loads((place / "teacher" / "tokenizer.json").read_text())["post_processor"]
    assert whole is not None
    file.write_text(json.dumps(json.loads(file.read_text()) | {"post_processor": whole}))
    expected = SentenceTransformer(str(tmp_path / "m"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(LightEncoder(tmp_path / "m").encode(TEXTS), expected, atol=1e-6)


def test_the_4_bit_file_holds_what_was_trained(place):
    """Code for code: the folder's table is on the grid."""
    table = torch.from_numpy(table_of(place / "m"))
    torch.testing.assert_close(on_grid(table, 32), table, rtol=0, atol=0)
    rows = json.loads((place / "m" / "export.json").read_text())["files"]
    assert rows[FILES["q4"].path]["min_cosine"] == 1


def test_int8_has_a_scale_a_row(place, tmp_path):
    """The rows weight their pieces: with one scale for all, a frequent piece would be rounded to nothing."""
    model = load(place / "m")
    weight = model[0].embedding.weight.data
    weight[7] = weight[7] / 1000
    save_folder(model, tmp_path / "m")
    export(tmp_path / "m", PAIRS_SET, ["int8", "avx2"])
    [piece] = [word for word, number in model.tokenizer.get_vocab().items() if number == 7]
    for name in ("int8", "avx2"):
        vector = open_file(tmp_path / "m" / FILES[name].path, tmp_path / "m").encode([piece])
        np.testing.assert_allclose(vector, by_numpy(tmp_path / "m", [piece]), atol=5e-3)


def test_training_brings_it_nearer_its_teacher(place):
    run = json.loads((place / "m" / "run.json").read_text())
    assert [step["step"] for step in run["compression"]] == ["vocabulary", "static", "bits"]
    assert run["parameters"] == 90 * 32
    assert run["agreement"]["after"]["cosine"] > run["agreement"]["before"]["cosine"] + 0.01
    teacher, texts = load_teacher(str(place / "teacher"), "cpu"), sentences(50, seed=1)
    cosines = (load(place / "m").encode(texts) * teacher.encode(texts)).sum(1)
    assert cosines.mean() > run["agreement"]["before"]["cosine"]


def test_it_learns_the_relations_of_a_batch(place, tmp_path, caplog):
    """Texts that it reads alike are dropped first, and it reads them to their ends."""
    long = "dog " * 80
    rows = [*sentences(300, seed=1), "THE   tired man", "the tired man", long + "and cat", long + "and bird"]
    (tmp_path / "text.txt").write_text("\n".join(dict.fromkeys(rows)) + "\n")
    more = ["--relation_weight", "0.6", "--relation_bank", "64", "--data", str(tmp_path / "text.txt")]
    run = train(place, str(tmp_path / "m"), "--bits", "4", *more)
    count = len(dict.fromkeys(row.lower() for row in rows)) - 1
    assert (
        f"1 of {count + 1} texts dropped: the student reads each as an earlier one (case or white space)" in caplog.text
    )
    assert run["data"][1]["rows"] == count
    assert run["loss_settings"]["relation_weight"] == 0.6
    (_, first), *_, (_, last) = run["loss"]
    assert last < first


def test_a_stopped_training_goes_on_to_the_same_table(place):
    with stopped_at(20):
        train(place, "stopped", "--bits", "4", "--vocabulary", "90")
    train(place, "stopped", "--bits", "4", "--vocabulary", "90", "--resume", "true")
    np.testing.assert_array_equal(table_of(place / "stopped"), table_of(place / "m"))


def test_its_card_info_and_encode(place, tmp_path):
    text, _ = make_card(place / "m", run_snippets=True)
    assert "There is no snippet for" not in text, "each gives the vectors of the folder"
    for part in ("### numpy", "text of any length", "| any number |", "order of words", "It has no transformer"):
        assert part in text
    assert "### transformers\n" not in text
    assert "transformers.js\n-" not in text.split("---")[1]
    assert " inf" not in text
    names = {upload.name for upload in publishable(save_folder(load(place / "m"), tmp_path / "m"))}
    assert {"README.md", "model.safetensors", "tokenizer.json", "1_Normalize/config.json"} <= names
    shape = folder_lines(open_folder(place / "m"))[0]
    assert "static, a vector of 32 for each of 90 pieces; their mean, Normalize" in shape
    (tmp_path / "in.txt").write_text("a dog\n\nthe river\n")
    report = distilface.encode(place / "m", tmp_path / "in.txt", tmp_path / "out.npy")
    assert (report.rows, report.empty, report.truncated, report.limit) == (3, 1, 0, None)
    assert "none cut" in str(report)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy")[2], by_numpy(place / "m", ["the river"])[0], atol=1e-6)


def test_it_is_scored_beside_its_teacher(place, tmp_path, caplog):
    """In a search of its own text, by mteb, which would report that it cannot count a static model's table."""
    texts = sentences(12, seed=1)
    documents = [json.dumps({"_id": f"d{row}", "text": text}) for row, text in enumerate(texts)]
    queries = [json.dumps({"_id": f"q{row}", "text": text}) for row, text in enumerate(texts)]
    judged = ["query-id\tcorpus-id\tscore", *(f"q{row}\td{row}\t1" for row in range(len(texts)))]
    files = {"q.jsonl": queries, "d.jsonl": documents, "r.tsv": judged}
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    report = distilface.compare(place / "m", search=[tmp_path / name for name in files], variants=["q4"])
    scores = next(iter(report["scores"].values()))
    assert scores["model"] == scores["q4"] > 95, "a text finds itself"
    assert "teacher" in scores
    assert "vocab size" not in caplog.text


@pytest.mark.parametrize(
    ("name", "value"),
    [("layers", "0"), ("pooling", "cls"), ("max_seq_length", "64"), ("dropout", "0.1"), ("train_max_length", "32")],
)
def test_what_only_a_transformer_has_is_refused(place, name, value):
    seen = refusal(settings, place, "x", f"--{name}", value)
    assert f"--{name}" in seen
    assert "--static" in seen


def test_a_teacher_without_a_transformer_is_refused(place, tmp_path):
    chosen = settings(place, str(tmp_path / "x"), "--teacher", str(place / "m"))
    assert "needs a teacher with a transformer inside" in refusal(Distillation().train, chosen)


def test_what_its_folder_cannot_hold_is_refused(place, tmp_path):
    model = load(place / "m")
    assert "max_seq_length 64" in refusal(save_folder, model, tmp_path / "a", max_seq_length=64)
    wider = SentenceTransformer(modules=[model[0], Dense(32, 8)], device="cpu")
    assert "StaticEmbedding, then Normalize" in refusal(save_folder, wider, tmp_path / "a")
    model.tokenizer.enable_truncation(8)
    assert "cuts texts at 8 tokens" in refusal(save_folder, model, tmp_path / "a")
    (place / "m" / "tokenizer.json").rename(tmp_path / "kept.json")
    try:
        assert "has no tokenizer.json" in refusal(load, place / "m")
    finally:
        (tmp_path / "kept.json").rename(place / "m" / "tokenizer.json")
