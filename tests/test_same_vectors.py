"""One model, one vector: whatever its prompts, pooling and stored precision, through every door of a folder."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import PAIRS_SET, TEXTS, cosines
from sentence_transformers import SentenceTransformer
from tiny import tiny_model

from distilface import cli
from distilface.cards import card, snippets
from distilface.cards import model as card_model
from distilface.evaluation.scores import as_encoder
from distilface.exporters import exporting, parity
from distilface.exporters.contents import contents_refusal, read_contents
from distilface.exporters.exporting import export
from distilface.exporters.smaller import to_fp16, to_int8
from distilface.model.folder import Folder, load, save_folder
from distilface.model.identity import fingerprint
from distilface.runtimes import FILES, TorchEncoder, open_file
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
ONNX = FILES["onnx"].path
PROMPT = "the old dog runs: "


def edit(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def instructed(tmp_path) -> Path:
    """Save a model with a default prompt, of which the pooling leaves out the tokens."""
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "m")
    edit(tmp_path / "m" / "config_sentence_transformers.json", prompts={"query": PROMPT}, default_prompt_name="query")
    edit(tmp_path / "m" / "1_Pooling" / "config.json", include_prompt=False)
    return tmp_path / "m"


@pytest.fixture
def half(tmp_path) -> Path:
    """Save a model whose weights are stored in fp16, as ``SentenceTransformer.half().save_pretrained`` leaves it."""
    save_folder(tiny_model(tmp_path / "made"), tmp_path / "whole")
    SentenceTransformer(str(tmp_path / "whole"), device="cpu").half().save_pretrained(str(tmp_path / "half"))
    return tmp_path / "half"


# ---- a prompt that is not pooled


def test_a_prompt_that_is_not_pooled_is_refused(instructed, students, tmp_path):
    """A file does not know how many tokens the prompt has; its vectors were 0.66 to 0.92 from the folder's."""
    with pytest.raises(InputError, match=r"m cannot be exported: its pooling leaves out .* its prompts \(query\)"):
        export(instructed, PAIRS_SET, ["onnx"])
    assert not (instructed / "onnx").exists()
    (tmp_path / "t.txt").write_text("a dog\n")
    with pytest.raises(InputError, match=r"no exported file gives the vectors of .*m: its pooling leaves out"):
        cli.run(["encode", str(instructed), str(tmp_path / "t.txt"), str(tmp_path / "v.npy"), "--variant", "int8"])
    file = students["mean"] / ONNX  # as a folder exported by an older version has one
    with pytest.raises(InputError, match=r"does not give the vectors of its folder: its pooling leaves out"):
        open_file(file, instructed)
    edit(instructed / "config_sentence_transformers.json", prompts={}, default_prompt_name=None)
    encoder = open_file(file, instructed)
    with pytest.raises(InputError, match=r"model\.onnx cannot take the prompt 'a: ': the model's pooling leaves out"):
        encoder.encode(TEXTS, prompt="a: ")


def test_torch_leaves_the_prompt_out_as_the_folder_does(instructed, tmp_path):
    """Against the mean over the tokens after the prompt, by hand."""
    model = SentenceTransformer(str(instructed), device="cpu")
    tokens = model.tokenizer(PROMPT + TEXTS[1], return_tensors="pt")
    with torch.no_grad():
        states = model[0].model(**tokens).last_hidden_state[0]
    first = len(model.tokenizer(PROMPT)["input_ids"]) - 1
    expected = states[first:].mean(0).numpy()
    np.testing.assert_allclose(TorchEncoder(load(instructed)).encode([TEXTS[1]], prompt=PROMPT)[0], expected, atol=1e-5)
    text = tmp_path / "t.txt"
    text.write_text(TEXTS[1] + "\n")
    cli.run(["encode", str(instructed), str(text), str(tmp_path / "v.npy")])
    np.testing.assert_allclose(np.load(tmp_path / "v.npy")[0], expected, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_snippet_of_transformers_leaves_the_prompt_out(tmp_path, pooling):
    model = tiny_model(tmp_path / "made", pooling=pooling)
    model.prompts, model.default_prompt_name = {"query": PROMPT}, "query"
    model[1].include_prompt = False
    save_folder(model, tmp_path / "m")
    card.write_card(tmp_path / "m")
    text = (tmp_path / "m" / "README.md").read_text()
    assert "the tokens of the prompt are not pooled" in snippets.snippets(text)["transformers"]
    assert "onnxruntime" not in snippets.snippets(text), "there is no file that it could read"
    assert "There is no ONNX file in fp32 of these weights; its pooling leaves out the tokens of its prompts" in text


# ---- a stored precision


def test_a_half_folder_computes_in_fp32(half, tmp_path):
    """What transformers 5 loads as stored: the reference itself would be of fp16."""
    expected = load(half).encode(TEXTS)
    assert {weight.dtype for weight in load(half).parameters()} == {torch.float32}
    by_hand = SentenceTransformer(str(half), device="cpu").float().encode(TEXTS)
    np.testing.assert_array_equal(expected, by_hand)
    np.testing.assert_array_equal(as_encoder(str(half)).encode(TEXTS), expected)
    loaded = SentenceTransformer(str(half), device="cpu")
    np.testing.assert_array_equal(TorchEncoder(loaded).encode(TEXTS), expected)
    assert {weight.dtype for weight in loaded.parameters()} == {torch.float16}, "the caller's model is left alone"
    save_folder(loaded, tmp_path / "again")
    assert fingerprint(load(tmp_path / "again")) == fingerprint(load(half))
    text = tmp_path / "t.txt"
    text.write_text("\n".join(TEXTS) + "\n")
    for variant, least in (("fp32", 1 - 1e-6), ("bf16", 0.99)):
        cli.run(["encode", str(half), str(text), str(tmp_path / f"{variant}.npy"), "--variant", variant])
        assert cosines(np.load(tmp_path / f"{variant}.npy"), expected).min() > least


def test_the_files_of_a_half_folder_are_their_names(half, monkeypatch):
    monkeypatch.setattr(parity, "LOSS", 200.0)  # a random model's scores mean nothing
    results = export(half, PAIRS_SET, ["onnx", "fp16", "int8"])
    assert {name: result.refused for name, result in results.items()} == dict.fromkeys(["onnx", "fp16", "int8"])
    models = {name: onnx.load(half / FILES[name].path) for name in results}
    name_of = onnx.TensorProto.DataType.Name
    types = {name: {name_of(tensor.data_type) for tensor in models[name].graph.initializer} for name in results}
    assert "FLOAT16" not in types["onnx"]
    assert "FLOAT" not in types["fp16"]
    assert not types["int8"] & {"FLOAT16"}
    expected = SentenceTransformer(str(half), device="cpu").float().encode(TEXTS)
    assert cosines(open_file(half / ONNX, half).encode(TEXTS), expected).min() > 1 - 1e-5
    rows = json.loads((half / "export.json").read_text())["files"]
    checked = rows[ONNX]["checked"]
    assert checked["inputs"] == {"input_ids": "int64", "attention_mask": "int64"}
    assert checked["outputs"] == {"last_hidden_state": "float", "sentence_embedding": "float"}
    assert (checked["edge_texts"], checked["prompts"]) == (len(parity.EDGES), ["", "query: "])
    floats = [tensor for tensor in models["onnx"].graph.initializer if name_of(tensor.data_type) == "FLOAT"]
    assert checked["weight_bytes"]["float"] == sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in floats)
    card.write_card(half)
    assert {"sentence-transformers", "transformers", "onnxruntime"} <= set(
        snippets.snippets((half / "README.md").read_text())
    )


# ---- the gate


def test_the_gate_reads_the_file_itself(students, tmp_path):
    """Each of these files gives good vectors, and none is what its name says."""
    source = students["mean"] / ONNX
    plain = read_contents(source)
    to_fp16(source, tmp_path / "h.onnx")
    to_int8(source, tmp_path / "i.onnx", signed=True)
    half, small = read_contents(tmp_path / "h.onnx"), read_contents(tmp_path / "i.onnx")
    kinds = {("float",): plain, ("float16",): half, ("int8", "uint8"): small}
    for types, contents in kinds.items():
        for weights in kinds:
            refused = contents_refusal(contents, plain, frozenset(weights))
            assert (refused is None) is (types == weights), (types, weights, refused)
    model = onnx.load(source)
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    onnx.save(model, tmp_path / "w.onnx")
    assert "its inputs are" in str(contents_refusal(read_contents(tmp_path / "w.onnx"), plain, frozenset({"float"})))


def test_a_wrong_input_is_seen_in_every_format(students, tmp_path, monkeypatch):
    """A file of 8 or 4 bits may be off by its rounding, in which a length that is cut elsewhere would not be seen."""
    folder = Folder(students["mean"])
    place = tmp_path / "m"
    save_folder(folder.load(), place)
    monkeypatch.setattr(exporting, "to_onnx", lambda model, file: shutil.copyfile(folder.path / ONNX, file))
    real = exporting.open_file

    def cut(file, model, *rest):
        encoder = real(file, model, *rest)
        encode = encoder.encode
        encoder.encode = lambda texts, *args: encode([text[:40] for text in texts], *args)
        return encoder

    monkeypatch.setattr(exporting, "open_file", cut)
    with pytest.raises(InputError, match=r"^no file was written: .* its least cosine to the folder's vectors is 0"):
        export(place, PAIRS_SET, ["int8"])
    assert not (place / "onnx").exists()


def test_the_edges_are_measured_with_every_prompt(students):
    """Against numpy, alone and together."""
    model = load(students["cls"])
    model.prompts = {"query": "the dog: ", "passage": ""}
    reference = parity.reference_of(model, PAIRS_SET)
    assert list(reference.edges) == ["", "the dog: "]
    for prompt, embeddings in reference.edges.items():
        np.testing.assert_allclose(embeddings, model.encode(list(parity.EDGES), prompt=prompt), atol=1e-6)
    encoder = open_file(students["cls"] / ONNX, model)
    least = min(
        cosines(encoder.encode([text], 1, prompt), model.encode([text], prompt=prompt))[0]
        for prompt in reference.edges
        for text in parity.EDGES
    )
    assert parity.min_edge(encoder, reference) == pytest.approx(least, abs=1e-6)
    longest = max(len(model.tokenizer(text)["input_ids"]) for text in parity.EDGES)
    assert longest > 8192, "over the length of any encoder here"


def test_a_model_that_cuts_its_embeddings_is_cut_in_a_file_too(students):
    model = load(students["mean"])
    model.truncate_dim = 8
    embeddings = open_file(students["mean"] / ONNX, model).encode(TEXTS)
    np.testing.assert_allclose(embeddings, model.encode(TEXTS), atol=1e-5)
    assert embeddings.shape == (len(TEXTS), 8)


# ---- the card


def test_a_snippet_that_gives_other_vectors_is_left_out(students, tmp_path, monkeypatch):
    """As of a pooling that these few lines do not know."""
    save_folder(load(students["mean"]), tmp_path / "m")
    monkeypatch.setattr(card_model, "pooling_code", lambda model: ["embeddings = output.last_hidden_state[:, 0]"])
    text = card.write_card(tmp_path / "m").read_text()
    assert "transformers" not in snippets.snippets(text)
    assert re.search(r"There is no snippet for transformers: the usual one comes to a cosine of -?0\.\d+ only", text)
    monkeypatch.setattr(card_model, "pooling_code", lambda model: ["embeddings = nothing"])
    text = card.write_card(tmp_path / "m").read_text()
    assert "There is no snippet for transformers: the usual one fails on" in text
    assert "sentence-transformers" in snippets.snippets(text)
