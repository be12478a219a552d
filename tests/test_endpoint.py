"""A model behind an endpoint on loopback: its requests, its failures, and students of it."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from datasets import Dataset
from endpoints import Endpoint, serving
from refusals import refusal
from runs import Materials, train
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from suites import write_search
from tiny import sentences

from distilface.cards.card import make_card
from distilface.embedding import teacher_cache
from distilface.embedding.teacher_cache import embed
from distilface.evaluation.reports import compare
from distilface.evaluation.scores import as_encoder
from distilface.hub_ids import check_hub_id
from distilface.methods import find_method
from distilface.model.folder import load
from distilface.model.identity import fingerprint
from distilface.model.pooling import is_normalized
from distilface.runtimes import endpoint_client as module
from distilface.runtimes.endpoint import PROBE, EndpointEncoder
from distilface.runtimes.endpoint_client import EndpointClient, parse_address
from distilface.settings import parse
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
WIDTH = 6


def _vectors(texts: list[str]) -> list[list[float]]:
    """Embed a text by its letters alone, of no unit length, so that a row in another's place is seen."""
    return [[float(text.count(letter)) for letter in "abde "] + [1.0] for text in texts]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(module, "WAITS", (0.0, 0.01, 0.02))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(Endpoint(_vectors)) as server:
        yield server


def _client(endpoint: Endpoint) -> EndpointClient:
    return EndpointClient(f"{endpoint.url}#letters")


def test_the_order_is_that_of_index(endpoint: Endpoint):
    texts = sentences(300)
    client = _client(endpoint)
    assert np.array_equal(client.embed(texts), np.array(_vectors(texts), np.float32))
    assert [len(request["input"]) for request in endpoint.requests] == [128, 128, 44]
    first = {**endpoint.requests[0], "input": None}
    assert first == {"model": "letters", "input": None, "encoding_format": "float"}
    assert endpoint.keys == [None] * 3
    assert client.embed([]).shape == (0, WIDTH)


def test_the_key_is_sent_and_never_shown(endpoint: Endpoint, monkeypatch, tmp_path):
    """A password of ~/.netrc takes the place of a header that is merely set; a server may repeat the key to us."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password other\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    client = _client(endpoint)
    client.embed(["a"])
    endpoint.failures = [(401, {}, {"error": {"message": "wrong key:\nsk-secret"}})]
    sentence = refusal(client.embed, ["a"])
    assert endpoint.keys == ["Bearer sk-secret"] * 2
    remedy = "set OPENAI_API_KEY to a key that it knows"
    assert sentence == f"{endpoint.url} refuses letters (status 401: wrong key: ...); {remedy}"


@pytest.mark.parametrize(
    "failure", [(429, {"Retry-After": "0.2"}, {}), (503, {"Retry-After": "Mon, 1 Jan 2024 00:00:00 GMT"}, ""), None]
)
def test_a_failure_that_passes_is_tried_again(endpoint: Endpoint, monkeypatch, caplog, failure):
    """A cut connection ends in the middle of an answer, which is none of the errors of connecting."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "sleep", waits.append)
    endpoint.failures = [failure, failure]
    assert np.array_equal(_client(endpoint).embed(["a dog", "bee"]), np.array(_vectors(["a dog", "bee"])))
    assert waits == ([0.2, 0.2] if failure and failure[0] == 429 else [0.0, 0.01])
    assert len(endpoint.requests) == 1
    assert caplog.text.count("trying again in") == 2


def test_after_the_last_try_it_is_one_sentence(endpoint: Endpoint):
    endpoint.failures = [(429, {}, {"error": {"message": "no quota"}})] * 4
    sentence = refusal(_client(endpoint).embed, ["a"])
    assert "gave no embeddings in 4 tries (status 429: no quota); run the same again" in sentence
    gone = EndpointClient("http://127.0.0.1:9/v1#letters")
    assert "gave no embeddings in 4 tries (ConnectionError)" in refusal(gone.embed, ["a"])


@pytest.mark.parametrize("status", [413, 422])
def test_a_server_of_smaller_batches_gets_them(endpoint: Endpoint, status: int):
    """Text Embeddings Inference takes 32 texts at a time."""
    endpoint.failures = [(status, {}, "batch size 128 > maximum allowed batch size 32")] * 2
    client, texts = _client(endpoint), sentences(70)
    assert np.array_equal(client.embed(texts), np.array(_vectors(texts), np.float32))
    assert [len(request["input"]) for request in endpoint.requests] == [17, 17, 17, 17, 2]
    endpoint.failures = [(status, {}, "too long")]
    assert f"(status {status}: too long)" in refusal(client.embed, ["a"])


def _without_last(answer):
    return {**answer, "data": answer["data"][1:]}


def _with_first(answer, **changes):
    return {**answer, "data": [answer["data"][0] | changes, *answer["data"][1:]]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_without_last, "answers with 1 embeddings for 2 texts"),
        (lambda answer: _with_first(answer, index=0), "answers with 2 embeddings for 2 texts"),
        (lambda answer: _with_first(answer, embedding=[1.0]), "something else than OpenAI's embeddings (ValueError)"),
        (lambda answer: _with_first(answer, embedding=[math.nan] * WIDTH), "gives NaN or infinity"),
        (lambda answer: _with_first(answer, embedding=[None] * WIDTH), "gives NaN or infinity"),
        (lambda answer: {"embeddings": []}, "something else than OpenAI's embeddings (KeyError)"),
        (lambda answer: "<html>", "something else than OpenAI's embeddings"),
        (lambda answer: [1, 2], "something else than OpenAI's embeddings (TypeError)"),
    ],
)
def test_another_answer_than_embeddings_is_refused(endpoint: Endpoint, change, problem: str):
    endpoint.change = change
    assert problem in refusal(_client(endpoint).embed, ["a dog", "bee"])


def test_another_width_than_before_is_refused(endpoint: Endpoint):
    """The second shard of a cache would have another shape than the first."""
    client = _client(endpoint)
    client.embed(["a"])
    endpoint.vectors = lambda texts: [[1.0, 2.0] for _ in texts]
    assert "embeddings of shape (1, 2), before of 6 numbers each" in refusal(client.embed, ["a"])


def test_a_redirection_is_not_followed(endpoint: Endpoint):
    """It would come as a GET without the texts, and take the key to another server."""
    endpoint.failures = [(302, {"Location": "/v1/other"}, "")]
    assert "refuses letters (status 302)" in refusal(_client(endpoint).embed, ["a"])
    assert len(endpoint.keys) == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        (
            "http://localhost:8000/v1",
            "does not say which model of the endpoint; write it as http://localhost:8000/v1#M",
        ),
        ("http://localhost:8000/v1#", "does not say which model"),
        ("https:///v1#a", "does not say which model"),
        ("https://me:secret@host/v1#a", "the URL of https://host holds a user or a query, which would be published"),
        ("https://host/v1?key=secret#a", "the URL of https://host holds a user or a query"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(name: str, problem: str):
    sentence = refusal(parse_address, name)
    assert problem in sentence
    assert "secret" not in sentence


def test_an_endpoint_is_an_encoder(endpoint: Endpoint, caplog, tmp_path):
    encoder = as_encoder(f"{endpoint.url}/#letters")
    assert isinstance(encoder, EndpointEncoder)
    assert (encoder.dimension, encoder.megabytes, is_normalized(encoder.model)) == (WIDTH, 0.0, False)
    assert endpoint.sent == list(PROBE)
    texts = sentences(10)
    assert np.array_equal(encoder.encode(texts, prompt="q: "), np.array(_vectors([f"q: {text}" for text in texts])))
    characters = sum(map(len, texts))
    assert f"{endpoint.url}#letters: 10 texts, about {characters / 4:.0f} tokens, in about 1 requests" in caplog.text
    assert encoder.encode([]).shape == (0, WIDTH)
    other = EndpointEncoder(f"{endpoint.url}#other")
    assert encoder.fingerprint == fingerprint(load_teacher(f"{endpoint.url}#letters")) != other.fingerprint
    assert "it cannot be saved" in refusal(encoder.model.save_pretrained, str(tmp_path / "never"))


def test_unit_length_is_noticed(endpoint: Endpoint):
    endpoint.vectors = lambda texts: [[0.6, 0.8] for _ in texts]
    assert is_normalized(EndpointEncoder(f"{endpoint.url}#unit").model)


def test_an_interrupted_pass_goes_on(endpoint: Endpoint, tmp_path, monkeypatch, caplog):
    """What was paid for is kept, also for a machine that would compute in another precision."""
    monkeypatch.setattr(teacher_cache, "ENDPOINT_SHARD", 8)
    texts = list(dict.fromkeys(sentences(40)))[:30]
    name, rows = f"{endpoint.url}#letters", Dataset.from_dict({"text": texts})
    endpoint.most = 1 + 3
    assert "run the same again when it is back" in refusal(embed, load_teacher(name), rows, tmp_path, bf16=True)
    assert "30 texts, about" in caplog.text
    endpoint.most = None
    endpoint.requests.clear()
    labels = np.asarray(embed(load_teacher(name), rows, tmp_path, bf16=False)["label"], np.float32)
    assert np.array_equal(labels, np.array(_vectors(texts), np.float32))
    assert sorted(endpoint.sent) == sorted([*PROBE, *texts[24:]])
    assert "6 texts, about" in caplog.text


def test_text_that_was_sent_before_among_other_text_is_not_sent_again(endpoint: Endpoint, tmp_path, caplog):
    texts = list(dict.fromkeys(sentences(40)))[:30]
    name = f"{endpoint.url}#letters"
    embed(load_teacher(name), Dataset.from_dict({"text": texts}), tmp_path)
    endpoint.requests.clear()
    caplog.clear()
    more = ["the first", *texts, "the last"]
    labels = np.asarray(embed(load_teacher(name), Dataset.from_dict({"text": more}), tmp_path)["label"], np.float32)
    assert np.array_equal(labels, np.array(_vectors(more), np.float32))
    assert sorted(endpoint.sent) == sorted([*PROBE, "the first", "the last"])
    assert "2 texts, about" in caplog.text


@pytest.fixture
def taught(endpoint: Endpoint, materials: Materials) -> Endpoint:
    """Serve the teacher of the small trainings."""
    model = SentenceTransformer(str(materials.teacher), device="cpu")
    endpoint.vectors = lambda texts: model.encode(texts, show_progress_bar=False).tolist()
    return endpoint


def test_a_student_of_an_endpoint(taught: Endpoint, materials: Materials, tmp_path, caplog):
    """It is the student that the same teacher makes as a folder, for its vectors are the same but for the last bits."""
    name = f"{taught.url}#tiny"
    words = materials.words("embedding", tmp_path / "m", "--teacher", name, "--cache_dir", str(tmp_path / "cache"))
    run, local = train("embedding", words), train("embedding", materials.words("embedding", tmp_path / "local"))
    assert run["teacher"] == run["settings"]["teacher"] == name
    assert {"role": "teacher", "name": name, "hub": False, "revision": None} in run["sources"]
    scores, expected = ({**each["scores"], **each["agreement"]["after"]} for each in (run, local))
    assert scores == pytest.approx(expected, abs=0.01)
    texts = [text for text in taught.sent if text in materials.text.read_text().splitlines()]
    assert len(texts) == len(set(texts)) == 28
    announced = [int(line.split(" texts, about")[0].split()[-1]) for line in caplog.messages if " texts, about" in line]
    assert sum(announced) >= len(taught.sent) - len(PROBE)
    card, _ = make_card(tmp_path / "m")
    assert f"Its teacher is `tiny at {taught.url}`; its licence is not known." in card
    assert "base_model" not in card, "it is not the Hub's"


def test_leaf_of_an_endpoint_and_its_evaluation(taught: Endpoint, materials: Materials, tmp_path):
    """The student ends in its teacher's width, so that it can search what the endpoint has embedded."""
    name = f"{taught.url}#tiny"
    train("leaf", materials.words("leaf", tmp_path / "m", "--teacher", name, "--cache_dir", str(tmp_path / "cache")))
    assert [type(module) for module in load(tmp_path / "m")][-2:] == [Dense, Normalize]
    files = [str(file) for file in write_search(tmp_path / "search")]
    report = compare(str(tmp_path / "m"), None, files, teacher=name)
    same = compare(str(tmp_path / "m"), None, files, teacher=str(materials.teacher))
    assert report["encoders"]["teacher"]["runtime"] == "endpoint"
    assert report["scores"] == same["scores"]


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        ("embedding", "of which no student can be made; name what it is made of with --backbone"),
        ("leaf", "of which no student can be made"),
        ("codir", "this method reads more of its teacher than embeddings"),
        ("online", "this method reads more of its teacher than embeddings"),
        ("multistage", "this method reads more of its teacher than embeddings"),
    ],
)
def test_an_endpoint_that_cannot_teach_is_refused(tmp_path, method: str, problem: str):
    """Before anything is read: no server is there."""
    option = "--teachers" if method == "online" else "--teacher"
    words = [option, "http://127.0.0.1:9/v1#m", "--data", "none.txt", "--output_dir", str(tmp_path / "m")]
    chosen = find_method(method)
    assert problem in refusal(chosen.train, parse(chosen.Settings, words, ""))
    assert not list(tmp_path.iterdir())


def test_an_endpoint_is_not_a_backbone():
    assert refusal(check_hub_id, "http://127.0.0.1:9/v1#m").startswith("an endpoint gives embeddings and no weights")
