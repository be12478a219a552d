"""The light encoder: the vectors of the folder's ONNX file, by tokenizers and onnxruntime alone."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import cosines
from hub import run_python
from light_folders import PROMPTS, TOKENIZERS, save_light
from refusals import refusal
from tiny import sentences

import distilface
from benchmarks.speed import cold_start, light_files
from benchmarks.speed import family as of_family
from distilface import __main__ as command
from distilface import extras
from distilface.environment import processor
from distilface.exporters.parity import EDGES
from distilface.light import LightEncoder, files
from distilface.light.session import usable_threads
from distilface.light.ways import runs_here, ways_of
from distilface.model.folder import load
from distilface.runtimes import FILES, open_file

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
FILE = FILES["onnx"].path
ROOT = Path(__file__).parents[1]
each_family = pytest.mark.parametrize("family", TOKENIZERS)
of_roberta = pytest.mark.parametrize("folder", ["roberta"], indirect=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Save a folder of each family; no test changes it."""
    return {name: save_light(name, tmp_path_factory.mktemp(name)) for name in TOKENIZERS}


@pytest.fixture
def folder(folders, tmp_path, request) -> Path:
    """Copy the folder of a BERT, or of the family that a test names, for a test that changes it."""
    return shutil.copytree(folders[getattr(request, "param", "bert")], tmp_path / "m")


def change(file: Path, **settings) -> None:
    """Change settings in a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def nearest(one: np.ndarray, other: np.ndarray) -> float:
    assert one.shape == other.shape
    return float(cosines(one, other).min())


@each_family
def test_the_vectors_are_those_of_the_file(folders, family):
    """On texts at the edges, alone and in a batch, with each prompt and none: against the path through torch."""
    light, whole = LightEncoder(folders[family]), open_file(folders[family] / FILE, folders[family])
    assert (light.dimension, light.max_seq_length) == (32, whole.model.max_seq_length)
    assert light.prompts == PROMPTS
    for prompt in ("", *PROMPTS.values()):
        expected = whole.encode(EDGES, prompt=prompt)
        for size in (1, 5, len(EDGES)):
            vectors = light.encode(EDGES, size, prompt)
            assert vectors.dtype == np.float32
            assert nearest(vectors, expected) >= 1 - 1e-6
    assert nearest(light.encode(EDGES), np.asarray(whole.model.encode(list(EDGES)))) >= 1 - 1e-6, "the default prompt"
    named = light.encode(EDGES, prompt_name="document")
    assert nearest(named, whole.encode(EDGES, prompt=PROMPTS["document"])) >= 1 - 1e-6
    assert np.unique(expected.round(3), axis=0).shape[0] >= 10, "the texts are told apart"


@each_family
def test_the_tokens_are_those_of_the_folder(folders, family):
    """Vectors of a random model might hide a token; a text is cut in the same place."""
    model = load(folders[family])
    for prompt in ("", PROMPTS["query"]):
        padded = np.asarray(model.preprocess(list(EDGES), prompt=prompt)["input_ids"])
        kept = [row[row != model.tokenizer.pad_token_id].tolist() for row in padded]
        assert LightEncoder(folders[family])._tokens.ids([prompt + text for text in EDGES]) == kept


@pytest.mark.parametrize("lower", [True, False])
def test_the_settings_of_a_tokenizer_rule(folder, lower):
    """Transformers lets tokenizer_config.json rule over tokenizer.json, so a folder edited by hand must not differ."""
    change(folder / "tokenizer_config.json", do_lower_case=lower, padding_side="left")
    light, model = LightEncoder(folder), load(folder)
    assert light._tokens.ids(["DOG dog"]) == model.preprocess(["DOG dog"])["input_ids"].tolist()
    assert len({tuple(row) for row in light._tokens.ids(["DOG", "dog"])}) == 2 - lower
    assert light._tokens.padded([[1], [2, 3]])["input_ids"].tolist() == [[0, 1], [2, 3]]


@of_roberta
def test_padding_on_the_left_keeps_the_positions(folder):
    """A RoBERTa counts its positions from the padding: another token in its place would move a text's own."""
    change(folder / "tokenizer_config.json", padding_side="left")
    expected = np.asarray(load(folder).encode(list(EDGES)))
    assert nearest(LightEncoder(folder).encode(EDGES), expected) >= 1 - 1e-6


@of_roberta
def test_a_length_is_no_more_than_can_be_placed(folder):
    """A RoBERTa of 34 positions can place 32 tokens: the two before are its padding's."""
    change(folder / "sentence_bert_config.json", max_seq_length=34)
    assert LightEncoder(folder).max_seq_length == 32
    (folder / "sentence_bert_config.json").unlink()
    change(folder / "tokenizer_config.json", model_max_length=20)
    assert LightEncoder(folder).max_seq_length == 20
    change(folder / "tokenizer_config.json", model_max_length=10**30)
    assert LightEncoder(folder).encode(EDGES).shape == (12, 32)
    (folder / "config.json").unlink()
    assert "names no length" in refusal(LightEncoder, folder)


def test_any_number_of_texts_in_their_order(folders, capsys):
    light, texts = LightEncoder(folders["distilbert"]), sentences(50)
    vectors = light.encode(texts, batch_size=7, show_progress_bar=True)
    assert "batches" in capsys.readouterr().err
    one = light.encode(texts[3])
    assert one.shape == (32,)
    np.testing.assert_allclose(one, vectors[3], atol=1e-5)
    np.testing.assert_allclose(light.encode(tuple(texts[::-1])), vectors[::-1], atol=1e-5)
    assert light.encode([]).shape == (0, 32)
    for texts in ([None], ["a", 5], [["a", "b"]]):
        assert "a text must be a string" in refusal(light.encode, texts)
    assert "unknown prompt 'quary': did you mean 'query'" in refusal(light.encode, "a", prompt_name="quary")
    assert "batch_size 0 is out of range" in refusal(light.encode, "a", batch_size=0)


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_vectors_are_compared_as_the_folder_says(folder, name):
    change(folder / "config_sentence_transformers.json", similarity_fn_name=name)
    light, model = LightEncoder(folder), load(folder)
    vectors = light.encode(sentences(6))
    expected = np.asarray(model.similarity(vectors[:2], vectors))
    np.testing.assert_allclose(light.similarity(vectors[:2], vectors), expected, rtol=1e-4, atol=1e-4)
    assert light.similarity(vectors[0], vectors[1]).shape == (1, 1)


def test_the_smallest_file_is_taken(folder):
    """Each stands for its name here: the bytes are those of the file in fp32."""
    assert {name: f"onnx/{file}" for name, file in files.VARIANTS.items()} == {
        name: FILES[name].path for name in files.VARIANTS
    }
    source = folder / FILE
    assert LightEncoder(folder).file == source
    for place in ("onnx/model_int8.onnx", "model_q4.onnx", "onnx/model_q4.onnx"):
        shutil.copyfile(source, folder / place)
        assert LightEncoder(folder).file == folder / place
    assert LightEncoder(folder, variant="int8").file.name == "model_int8.onnx"
    assert LightEncoder(folder, file=FILE).file == source
    size = sum(file.stat().st_size for file in (source, folder / "tokenizer.json"))
    assert LightEncoder(folder, file=FILE).megabytes == round(size / 1e6, 2)
    assert "both variant='q4' and file='x' are given" in refusal(LightEncoder, folder, "q4", "x")
    assert "unknown variant 'q5': did you mean 'q4'" in refusal(LightEncoder, folder, "q5")


def test_what_cannot_be_run_is_a_sentence(folder):
    said = refusal(LightEncoder, folder, "q4")
    assert "has no onnx/model_q4.onnx; make one with the toolkit: distilface export" in said
    (folder / FILE).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    said = refusal(LightEncoder, folder)
    assert "model.onnx cannot be opened: " in said
    assert "; export or download it again" in said
    shutil.rmtree(folder / "onnx")
    assert "has no onnx/model_q4.onnx or onnx/model_int8.onnx or onnx/model.onnx" in refusal(LightEncoder, folder)
    (folder / "tokenizer.json").unlink()
    said = refusal(LightEncoder, folder)
    assert "has no tokenizer.json, " in said
    assert "; load it in torch" in said


def test_a_file_of_another_library_is_a_sentence(folder):
    """A file that wants types of tokens, or leaves the pooling to its reader, would give other vectors or none."""
    import onnx

    model = onnx.load(folder / FILE)
    model.graph.output.remove(next(port for port in model.graph.output if port.name == "sentence_embedding"))
    onnx.save(model, folder / FILE)
    assert "reads attention_mask, input_ids and gives last_hidden_state; a file that" in refusal(LightEncoder, folder)


def test_a_pooling_without_the_prompt_is_refused(folder):
    """The file cannot know how many tokens the prompt has; with none in the folder, only a prompt is refused."""
    change(folder / "1_Pooling" / "config.json", include_prompt=False)
    assert "its pooling leaves out the tokens of its prompts" in refusal(LightEncoder, folder)
    change(folder / "config_sentence_transformers.json", prompts={}, default_prompt_name=None)
    light = LightEncoder(folder)
    assert light.encode("a dog").shape == (32,)
    assert "the prompt 'query: ' cannot be taken" in refusal(light.encode, "a dog", prompt="query: ")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not bind processes")
def test_the_threads_are_those_that_may_be_used(monkeypatch):
    """Its own number is that of the machine, and twice as slow in a process that may use one of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 5})
    assert usable_threads() == 2
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert usable_threads() == 0


def test_the_files_are_measured(folder, tmp_path, capsys):
    """A new process measures the first vector, and that torch is not imported for it."""
    shutil.copyfile(folder / FILE, folder / "onnx" / "model_q4.onnx")
    light_files.run(["--folder", str(folder), "--output", str(tmp_path / "r.json"), "--turns", "1"])
    result = json.loads((tmp_path / "r.json").read_text())
    assert set(result["files"]) == {"model.onnx", "model_q4.onnx"}
    assert all(value > 0 for rates in result["files"].values() for value in rates.values())
    assert 0 < result["seconds_to_first_vector"] < 60
    assert "model_q4.onnx" in capsys.readouterr().out
    assert "none has no onnx/" in refusal(light_files.run, ["--folder", str(tmp_path / "none")])


# ---- distilface.load, and the half that is not installed


@pytest.fixture
def no_toolkit(monkeypatch):
    """Have no package of the toolkit installed."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None)


def test_the_family_is_measured_beside_the_usual_model(folder, students, tmp_path, capsys):
    """What another processor gave stays; a folder without a file is refused before minutes of work."""
    output = tmp_path / "r.json"
    output.write_text('{"another processor": {"rows": {}}}')
    words = ["--folders", str(folder), "--usual", str(students["mean"]), "--turns", "1", "--output", str(output)]
    measured = [name for name, way in ways_of(folder).items() if runs_here(way)]
    result = of_family.run(words)
    shown = capsys.readouterr().out
    assert set(result["rows"]) == {of_family.USUAL, *(f"{folder.name}, {name}" for name in measured)}
    for row in result["rows"].values():
        assert row["one_ms"] > 0
        assert row.get("one_ms_on_one_thread", 1) > 0
        assert f"{row['short']['texts_per_second']:,.2f}" in shown
    assert result["rows"][of_family.USUAL]["short"]["ratio"] == 1
    alone = {name for name, row in result["rows"].items() if "one_ms_on_one_thread" in row}
    assert alone == {f"{folder.name}, {name}" for name in measured if "OpenVINO" not in name}
    written = json.loads(output.read_text())
    assert set(written) == {"another processor", processor()}
    assert written[processor()] == result
    assert "--folders is empty" in refusal(of_family.run, ["--usual", str(students["mean"])])
    said = refusal(of_family.run, ["--folders", str(tmp_path), "--usual", str(students["mean"])])
    assert "has no onnx/ that a light encoder reads" in said


def test_load_takes_the_half_that_is_there(folders, monkeypatch):
    folder = folders["bert"]
    assert type(distilface.load(folder)).__name__ == "SentenceTransformer"
    assert type(distilface.load(folder, runtime="onnx")) is LightEncoder
    assert distilface.load(folder, variant="onnx").file == folder / FILE
    said = refusal(distilface.load, folder, runtime="torch", variant="onnx")
    assert "variant='onnx' is run by onnxruntime; leave out runtime='torch'" in said
    assert "unknown runtime 'onx': did you mean 'onnx'" in refusal(distilface.load, folder, runtime="onx")
    monkeypatch.setattr(files, "SHIPPED", folder)
    assert type(distilface.load()) is LightEncoder
    assert "the shipped model is run by onnxruntime" in refusal(distilface.load, runtime="torch")
    monkeypatch.setattr(files, "SHIPPED", folder / "none")
    assert "this installation ships no model; name one" in refusal(distilface.load)


def test_without_the_toolkit_load_is_light(folders, no_toolkit):
    assert type(distilface.load(folders["bert"])) is LightEncoder
    said = refusal(distilface.load, folders["bert"], runtime="torch")
    assert "a model in torch needs sentence-transformers; pip install 'distilface" in said


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: distilface.train("distill"), "training"),
        (lambda: distilface.export("m"), "exporting"),
        (lambda: distilface.evaluate("m"), "evaluation"),
        (lambda: distilface.encode("m", "lines.txt", "v.npy"), "encoding a file"),
        (lambda: distilface.write_card("m"), "writing a card"),
        (lambda: distilface.push("m", "org/m"), "publishing"),
    ],
)
def test_a_verb_without_the_toolkit_names_the_extra(no_toolkit, call, what):
    assert refusal(call) == f"{what} needs sentence-transformers; pip install 'distilface[train]'"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["train", "distill"], "training"),
        (["info", "m"], "distilface info"),
        (["--help"], "distilface"),
        ([], "distilface"),
    ],
)
def test_the_command_without_the_toolkit(no_toolkit, monkeypatch, capsys, words, what):
    monkeypatch.setattr(sys, "argv", ["distilface", *words])
    with pytest.raises(SystemExit) as leave:
        command.main()
    assert leave.value.code == 2
    assert capsys.readouterr().err == f"error: {what} needs sentence-transformers; pip install 'distilface[train]'\n"


def test_a_part_of_the_toolkit_is_not_enough(monkeypatch):
    """With sentence-transformers alone, training would end in a traceback of what it does not bring."""
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "mteb" else name)
    assert refusal(distilface.evaluate, "m") == "evaluation needs mteb; pip install 'distilface[train]'"


def test_the_command_runs_where_the_toolkit_is(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["distilface", "--help"])
    command.main()
    assert "verbs on a model folder" in capsys.readouterr().out


HEAVY = "{'torch', 'transformers', 'datasets', 'sentence_transformers', 'sklearn', 'scipy'} & {*sys.modules}"
FROM_HUB = f"""
import sys, distilface
distilface.load
assert not {{"numpy", "onnxruntime"}} & {{*sys.modules}}, "importing the package is free of what it runs on"
light = distilface.load("org/small", runtime="onnx")
print(light.encode("a dog").sum(), light.file.name, sorted({HEAVY}))
try:
    distilface.load("org/small", variant="int8")
except distilface.light.files.InputError as error:
    print(error)
"""


def test_from_the_hub_only_what_is_read_is_fetched(folders, hub, tmp_path):
    """A process of its own: the client fixes its endpoint on import, and what is imported is seen there."""
    served = shutil.copytree(folders["xlm-roberta"], tmp_path / "m")
    shutil.copyfile(served / FILE, served / "onnx" / "model_q4.onnx")
    hub.add_model("org/small", served)
    said = run_python(FROM_HUB, hub.env(tmp_path / "cache"), forked=False).splitlines()
    fetched = {path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path}
    read = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json", "modules.json"}
    read |= {"sentence_bert_config.json", "config_sentence_transformers.json", "model_q4.onnx"}
    assert fetched == read
    number, name, heavy = said[0].split()
    assert float(number) == pytest.approx(LightEncoder(served).encode("a dog").sum(), abs=1e-4)
    assert (name, heavy) == ("model_q4.onnx", "[]")
    assert said[1].startswith("org/small has no onnx/model_int8.onnx; make one with the toolkit")
    again = run_python(FROM_HUB, hub.dead_env(tmp_path / "cache"), forked=False).splitlines()
    assert again == [said[0], again[1]], "from the cache, where the Hub is not in reach"


def test_the_shipped_model_finds_what_means_the_same():
    """Without an argument, the model of the wheel: at most five million bytes, file and tokenizer."""
    model = distilface.load()
    assert isinstance(model, LightEncoder)
    assert model.file == files.SHIPPED / "onnx" / "model_q4.onnx"
    assert 4 < model.megabytes <= 5
    texts = [
        "Click on 'forgot password' to set a new one.",
        "The train leaves at nine in the morning.",
        "Photosynthesis turns light into sugar.",
    ]
    similarity = model.similarity(model.encode("How do I change my password?"), model.encode(texts))[0]
    assert similarity.argmax() == 0
    assert similarity[0] > 2 * similarity[1:].max()
    run = json.loads((files.SHIPPED / "run.json").read_text())
    average = {"step": "average", "with": ["minilm-5mb-sixth"]}
    assert run["compression"] == [average, {"step": "bits", "bits": 4, "table": 2}], "of its last training"
    trained = ROOT / "models" / "minilm-5mb"
    same = [file for file in files.SHIPPED.rglob("*") if file.is_file() and file.name != "README.md"]
    assert len(same) >= 10, "files of the wheel"
    assert all(file.read_bytes() == (trained / file.relative_to(files.SHIPPED)).read_bytes() for file in same)


def test_a_start_is_measured_part_by_part(folders):
    """In a process of its own, which makes sure that neither torch nor YAML is imported."""
    parts = ["import numpy", "import onnxruntime", "import tokenizers", "import distilface", "settings and tokenizer"]
    for choice in cold_start.CHOICES.values():
        started = cold_start.start(choice + cold_start.LIGHT, str(folders["bert"]), 3)
        assert list(started["parts"]) == [*parts, "session", "first vector"]
        assert len(started["times"]) == 3
    turns = [{"parts": {"a": [0.1 * n, 0.2], "b": [0.3, 0.1]}, "times": [[0.001 * n, 0.002]]} for n in (1, 2, 6)]
    assert cold_start.summary(turns) == {
        "clock_ms": {"first_vector": 500, "least": 400, "parts": {"a": 200, "b": 300}, "one_sentence": 2.0},
        "processor_ms": {"first_vector": 300, "least": 300, "parts": {"a": 200, "b": 100}, "one_sentence": 2.0},
    }
