"""One folder for a search: queries by a student, documents by its teacher, and only where their spaces are one."""

import json
import shutil

import numpy as np
import pytest
import torch
from refusals import refusal
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tiny import sentences, tiny_model

import distilface
from distilface import cli
from distilface.model.folder import load, save_folder
from distilface.model.static import plain_tokenizer

TEXTS = sentences(40)
QUERIES = sentences(6, seed=1)

pytestmark = pytest.mark.usefixtures("one_thread")


def record(teacher, method="embedding", settings=None, **more):
    """Return what stands in the run.json of a student of a teacher."""
    return {"method": method, "teacher": str(teacher), "settings": settings or {}, **more}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Save a teacher, and students of it: of two layers, behind a map to its width, and without a transformer."""
    place = tmp_path_factory.mktemp("models")
    teacher = tiny_model(place / "raw", seed=0)
    teacher.add_module("2", Normalize())
    teacher.prompts["document"] = "a "
    teacher.save_pretrained(str(place / "teacher"), create_model_card=False)
    small, torch_seed = tiny_model(place / "raw2", seed=1, layers=1), torch.manual_seed(0)
    plain = SentenceTransformer(modules=[*small, Normalize()], device="cpu", prompts={"query": "the "})
    mapped = SentenceTransformer(modules=[*small, Dense(32, 32), Normalize()], device="cpu")
    tokenizer = plain_tokenizer(teacher.tokenizer.backend_tokenizer)
    table = torch.randn(tokenizer.get_vocab_size(), 32, generator=torch_seed)
    static = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table.numpy())], device="cpu")
    for name, model in {"plain": plain, "mapped": mapped, "static": static}.items():
        save_folder(model, place / name, record(place / "teacher", "leaf" if name == "mapped" else "embedding"))
    return place


@pytest.fixture
def student(models, tmp_path):
    """Return what writes the plain student again, with another run.json."""

    def write(run):
        save_folder(load(models / "plain"), tmp_path / "student", run)
        return tmp_path / "student"

    return write


@pytest.mark.parametrize("name", ["plain", "mapped", "static"])
def test_each_side_has_its_own_encoder(models, tmp_path, name):
    """The plain library loads it; a cosine search finds what numpy finds in the teacher's vectors."""
    teacher, student = (SentenceTransformer(str(models / each), device="cpu") for each in ("teacher", name))
    assert distilface.route(models / name, tmp_path / "search") == tmp_path / "search"
    both = SentenceTransformer(str(tmp_path / "search"), device="cpu")
    queries, documents = both.encode_query(QUERIES), both.encode_document(TEXTS)
    np.testing.assert_allclose(queries, student.encode_query(QUERIES), atol=1e-6)
    np.testing.assert_allclose(documents, teacher.encode_document(TEXTS), atol=1e-6)
    np.testing.assert_allclose(both.encode(TEXTS), teacher.encode(TEXTS), atol=1e-6)
    ours, theirs = student.encode_query(QUERIES), teacher.encode([f"a {text}" for text in TEXTS])
    cosines = (ours / np.linalg.norm(ours, axis=1, keepdims=True)) @ theirs.T
    np.testing.assert_array_equal(both.similarity(queries, documents).argmax(1), cosines.argmax(1))
    assert np.abs(queries - teacher.encode(QUERIES)).max() > 0.01, "the two encoders differ"


def test_the_prompts_are_those_of_each_side(models, tmp_path):
    distilface.route(models / "plain", tmp_path / "search")
    both, student = (SentenceTransformer(str(each), device="cpu") for each in (tmp_path / "search", models / "plain"))
    words = [f"the {query}" for query in QUERIES]
    np.testing.assert_allclose(both.encode_query(QUERIES), student.encode(words), atol=1e-6)
    assert np.abs(both.encode_query(QUERIES) - student.encode(QUERIES)).max() > 0.01


def test_its_files_have_the_older_names(models, tmp_path):
    """sentence-transformers 5 fails on the newer names of classes and settings."""
    distilface.route(models / "mapped", tmp_path / "search")
    settings = json.loads((tmp_path / "search" / "router_config.json").read_text())
    (module,) = json.loads((tmp_path / "search" / "modules.json").read_text())
    kinds = [*settings["types"].values(), module["type"]]
    assert all(kind.startswith("sentence_transformers.models.") for kind in kinds)
    assert {kind.rpartition(".")[2] for kind in kinds} == {"Transformer", "Pooling", "Dense", "Normalize", "Router"}
    assert settings["structure"]["query"] == [
        *("query_0_Transformer", "query_1_Pooling", "query_2_Dense", "query_3_Normalize"),
    ]
    assert settings["parameters"] == {"default_route": "document", "allow_empty_key": True}, "5.1 has no other"
    pooling = json.loads((tmp_path / "search" / "query_1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_mean_tokens"] is True
    assert not (tmp_path / "search" / "config.json").exists(), "no one takes it for an encoder"
    card = (tmp_path / "search" / "README.md").read_text()
    assert 'SentenceTransformer("search")' in card
    assert "one space of 32 dimensions" in card


def test_the_command_takes_the_same_teacher_by_another_name(models, tmp_path, capsys):
    copied = shutil.copytree(models / "teacher", tmp_path / "copied")
    words = ["route", models / "plain", tmp_path / "search", "--teacher", copied]
    assert cli.run([str(word) for word in words]) == tmp_path / "search"
    assert "encode_query is the student's" in capsys.readouterr().out
    assert distilface.load(tmp_path / "search").encode_query(QUERIES).shape == (6, 32)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"method": "simcse"}, "was trained by simcse, not to have the embeddings of"),
        ({"settings": {"projection": True}}, "distil it by distill or leaf, without a projection"),
        ({"method": "codir", "settings": {"base": "simcse"}}, "was trained by codir"),
        ({"method": "of later"}, "was trained by of later"),
        ({"space": {"axes": 32}}, "on other axes, so it cannot search its teacher's index"),
        ({"teacher": ["a/b", "c/d"]}, "has learned from 2 teachers"),
        ({"teacher": None}, "has learned from 0 teachers"),
        ({"teacher": "http://127.0.0.1:1/v1#m"}, "is an endpoint, whose weights no folder can hold"),
    ],
)
def test_another_space_is_refused(models, student, tmp_path, change, sentence):
    folder = student({**record(models / "teacher"), **change})
    assert sentence in refusal(distilface.route, folder, tmp_path / "search")
    assert not (tmp_path / "search").exists()


def test_another_teacher_is_refused(models, student, tmp_path):
    tiny_model(tmp_path / "other", seed=5)
    sentence = refusal(distilface.route, models / "plain", tmp_path / "search", tmp_path / "other")
    assert "has learned the space of" in sentence
    gone = student(record("owner/gone"))
    assert "not that of" in refusal(distilface.route, gone, tmp_path / "search", tmp_path / "other")
    narrow = SentenceTransformer(modules=[*load(models / "plain"), Dense(32, 8)], device="cpu")
    save_folder(narrow, tmp_path / "narrow", record(models / "teacher"))
    assert "have 8 dimensions and those of" in refusal(distilface.route, tmp_path / "narrow", tmp_path / "search")
    assert "has no run.json" in refusal(distilface.route, models / "teacher", tmp_path / "search")


def test_codir_beside_the_embeddings_shares_the_space(models, student, tmp_path):
    folder = student(record(models / "teacher", "codir", {"base": "embedding", "projection": False}))
    assert distilface.route(folder, tmp_path / "search").is_dir()
    assert "is not empty" in refusal(distilface.route, folder, tmp_path / "search")


@pytest.mark.parametrize("verb", ["info", "export", "card", "encode", "evaluate", "push"])
def test_a_verb_of_one_encoder_says_so(models, tmp_path, verb):
    distilface.route(models / "static", tmp_path / "search")
    (tmp_path / "lines.txt").write_text("a dog\n")
    more = {"encode": ["lines.txt", "vectors.npy"], "push": ["--repo-id", "a/b", "--dry-run"]}.get(verb, [])
    words = [verb, str(tmp_path / "search"), *(str(tmp_path / w) if w.endswith((".txt", ".npy")) else w for w in more)]
    assert "holds two encoders, one for queries and one for documents" in refusal(cli.run, words)
