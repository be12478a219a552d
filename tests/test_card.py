"""The card of a model: as a whole, its snippets run, what it says of the unknown, what it never says."""

import ast
import hashlib
import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import huggingface_hub
import jinja2
import numpy as np
import pytest
import yaml
from exported import PAIRS_SET, as_traced
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from refusals import refusal
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from tiny import tiny_model

import distilface
from distilface import cli
from distilface.cards import card
from distilface.cards.facts import data_folder, read_facts
from distilface.cards.papers import paper_of
from distilface.evaluation.scores import STS_TASKS
from distilface.exporters import exporting as export
from distilface.extras import import_silent
from distilface.methods import methods
from distilface.model import folder as folder_module
from distilface.model.folder import Folder, load, save_folder
from distilface.run import Run
from distilface.runtimes import extras
from distilface.runtimes.files import file_fingerprint, read_exports
from distilface.storage import write_whole

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")

TESTS = Path(__file__).parent
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
#: As version 0 wrote it, and the same training as it is written now.
RUN: dict[str, Any] = json.loads((TESTS / "older_run.json").read_text(encoding="utf-8"))
SOURCES = [("backbone", MINILM), ("teacher", MINILM), ("data", RUN["data"][0]["source"]), ("data", "python")]
NEW = RUN | {
    "version": 1,
    "sources": [
        {"role": role, "name": name, "hub": name == MINILM, "revision": None}
        for role, name in [*SOURCES, ("dev", RUN["settings"]["dev"])]
    ],
}
OWN = {task: 70.125 + place for place, task in enumerate(STS_TASKS)}
TEACHER = {task: 72.5 + place for place, task in enumerate(STS_TASKS)}
LOCAL = {task: {"path": f"{task}.jsonl.gz", "revision": f"sha256:{task}"} for task in STS_TASKS}
HUB = {task: {"path": f"mteb/{task.lower()}", "revision": f"{place:040}"} for place, task in enumerate(STS_TASKS)}
SEEDS: dict[str, Any] = {
    "seeds": [3, 4],
    "summary": {name: {"mean": 73.0, "sd": 0.25} for name in (*STS_TASKS, "mean_of_5", "mean_of_7")},
    "models": [
        {"name": "models/mine-seed4", "scores": TEACHER, "run": {**RUN, "seed": 4}},
        {"name": "models/mine-seed3", "scores": OWN, "run": RUN},
    ],
    "compared": [{"name": MINILM, "role": "teacher", "scores": TEACHER}],
    "data": {"from": "local files", "tasks": LOCAL},
    "versions": RUN["versions"],
}
EXPORT = {"what": "fp32", "megabytes": 0.44, "min_cosine": 0.999999, "mean_cosine": 1.0, "min_alone": 1.0}
EXPORT |= {"score": 27.2727, "score_change": 0.0, "sentences_per_second": 5900.4, "refused": None}
INT8 = {**EXPORT, "what": "dynamic int8, for browsers", "min_alone": 0.991234, "score_change": -0.5, "megabytes": 0.11}
REASON = "Spearman falls by 2.00 points to 25.27"
FILES = {
    "onnx/model.onnx": EXPORT,
    "onnx/model_quantized.onnx": {**INT8, "sentences_per_second": 9100.0},
    "onnx/model_qint8_arm64.onnx": {**EXPORT, "what": "dynamic int8, ARM", "score_change": -2.0, "refused": REASON},
    "openvino/openvino_model.xml": {**EXPORT, "what": "fp32, weights kept in fp16", "megabytes": 0.22},
}
#: The format of OpenVINO, where it is installed.
OPENVINO_HERE = [] if extras.OPENVINO.missing else ["openvino"]
#: The kinds that have an ONNX file; each takes seconds.
EXPORTED = ("mean", "cls", "dense")
KINDS = (*EXPORTED, "last4")


@pytest.fixture(scope="module")
def folders(students, tmp_path_factory) -> dict[str, Path]:
    """Save a model of each kind, those of :data:`EXPORTED` also in fp32; ``cls`` has a prompt.

    Their trace, which takes seconds, is that of the student's own file.
    """
    place = tmp_path_factory.mktemp("cards")
    models = {kind: load(students[kind]) for kind in KINDS} | {"bare": tiny_model(place / "made")}
    models["cls"].prompts, models["cls"].default_prompt_name = {"query": "the dog: "}, "query"
    for name, model in models.items():
        save_folder(model, place / name)
        if name in EXPORTED:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(export, "to_onnx", as_traced(students[name]))
                export.export(place / name, PAIRS_SET, ["onnx", *OPENVINO_HERE])
    return {name: place / name for name in models}


@pytest.fixture
def folder(folders, tmp_path) -> Path:
    """Copy ``bare``, with a training."""
    shutil.copytree(folders["bare"], tmp_path / "mine")
    write_whole(tmp_path / "mine" / "run.json", RUN)
    return tmp_path / "mine"


@pytest.fixture
def results(tmp_path) -> Path:
    write_whole(tmp_path / "seeds.json", SEEDS)
    return tmp_path / "seeds.json"


def card_of(folder: Path, changes: dict[str, Any], *args: Any) -> str:
    """Write the card of a folder of another training."""
    (folder / "run.json").write_text(json.dumps({**RUN, **changes}))
    return card.write_card(folder, *args).read_text(encoding="utf-8")


def exported(folder: Path, files: dict[str, dict] = FILES) -> None:
    """Put the results of an export into a folder, and the files that they name as written."""
    results = {"fingerprint": Folder(folder).fingerprint, "pairs": 180, "files": files, "machine": RUN["machine"]}
    write_whole(folder / "export.json", results)
    for name in (name for name, row in files.items() if not row["refused"]):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()


def blocks(text: str, language: str) -> dict[str, str]:
    """Return the code blocks of a language by the heading that each stands under."""
    return dict(re.findall(rf"^### (\S+)\n(?:(?!^#).*\n)*?```{language}\n((?:.*\n)*?)```", text, re.MULTILINE))


# ---- as a whole


@pytest.mark.parametrize("run", [RUN, NEW], ids=["older", "newer"])
def test_the_whole_card(run, folder, tmp_path, monkeypatch):
    """A section that is gone, a table without a row, a sentence that changed or another seed's scores fail here.

    After a change that is meant, read the card that this leaves beside the folder and copy it over golden_card.md.
    """
    monkeypatch.setattr(card, "wrong_snippets", lambda *_: {})  # the files are empty: no snippet of theirs would run
    exported(folder)
    write_whole(folder / "run.json", run)
    write_whole(tmp_path / "seeds.json", {**SEEDS, "models": [SEEDS["models"][0], {**SEEDS["models"][1], "run": run}]})
    cli.run(["card", str(folder), "--results", str(tmp_path / "seeds.json"), "--repo-id", "org/mine"])
    first = (folder / "README.md").read_bytes()
    text = first.decode().replace(Folder(folder).fingerprint, "FINGERPRINT")
    text = text.replace(f"card` {distilface.__version__}", "card` V")
    (tmp_path / "golden_card.md").write_text(text, encoding="utf-8")
    assert text == (TESTS / "golden_card.md").read_text(encoding="utf-8")
    again = card.write_card(folder, "org/mine", [tmp_path / "seeds.json"])
    assert again.read_bytes() == first, "the card that is there leaves no trace"


def test_a_write_that_fails_leaves_the_old_card(folder, monkeypatch):
    before = (folder / "README.md").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        card.write_card(folder)
    assert (folder / "README.md").read_bytes() == before


@pytest.mark.parametrize("kind", ["bare", "mean", "dense"])
def test_every_name_in_the_template_is_given(folders, kind):
    """Jinja writes nothing, without a word, for a name that it is not given."""
    template = (data_folder() / "template.md").read_text(encoding="utf-8")
    strict = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(template)
    metadata, content = card.card_content(Folder(folders[kind]), "org/mine", [], read_facts(), None)
    assert "# mine" in strict.render(card_data=metadata.to_yaml(), **content)


def test_a_folder_is_loaded_and_hashed_once(folder, results, monkeypatch):
    """Both take seconds of a large model."""
    opened, calls, hashes = Folder(folder), [], []
    load_it, hash_it = Folder.load, folder_module.fingerprint
    monkeypatch.setattr(Folder, "load", lambda self, *args: calls.append(self) or load_it(self, *args))
    monkeypatch.setattr(folder_module, "fingerprint", lambda model: hashes.append(model) or hash_it(model))
    exported(opened.path)
    calls.clear(), hashes.clear()
    card.write_card(opened, "org/mine", [results])
    assert card.lacking(opened) is None
    assert read_exports(opened)["files"] == FILES
    assert (len(calls), len(hashes)) == (1, 1)


# ---- what is on the Hub


def test_what_is_on_the_hub_is_named_by_its_id(folder):
    """``run.json`` says it; of an older one it is guessed."""
    older = {
        "teacher": ["BAAI/bge-small-en-v1.5", "models/other"],
        "data": [{"source": "princeton-nlp/datasets-for-simcse"}],
    }
    names = [("backbone", "models/other", False), ("teacher", "models/on-the-hub", True), ("data", "org/text", True)]
    newer = [{"role": role, "name": name, "hub": hub, "revision": None} for role, name, hub in names]
    for changes, models, data in (
        (older, [MINILM, "BAAI/bge-small-en-v1.5"], ["princeton-nlp/datasets-for-simcse"]),
        ({"version": 1, "sources": newer}, ["models/on-the-hub"], ["org/text"]),
    ):
        text = card_of(folder, changes)
        metadata = metadata_load(folder / "README.md")
        assert (metadata["base_model"], metadata["datasets"]) == (models, data)
        assert "`other`; its licence is not known." in text
        assert "models/other" not in text


def test_a_licence_is_given_or_that_of_what_it_starts_from(folder):
    assert metadata_load(card.write_card(folder))["license"] == "apache-2.0"
    cli.run(["card", str(folder), "--license", "mit"])
    assert metadata_load(folder / "README.md")["license"] == "mit"
    assert "| licence | `mit`, as its publisher has chosen |" in (folder / "README.md").read_text()
    assert "\nlicense: unknown\n" in card_of(folder, {"baseline_model": "models/minilm-mlm"}), "not its teacher's"


# ---- the snippets


@pytest.mark.parametrize("repo_id", ["org/mine", None])
@pytest.mark.parametrize("kind", KINDS)
def test_the_python_snippets_give_the_folders_vectors(folders, kind, repo_id, monkeypatch):
    text, _ = card.make_card(folders[kind], repo_id)
    code = blocks(text, "python")
    exported, others = kind in EXPORTED, ["LangChain", "LlamaIndex", "Haystack"]
    here = ["sentence-transformers", *["distilface"] * exported, "transformers"]
    here += (["onnxruntime"] + ["OpenVINO"] * len(OPENVINO_HERE)) * exported
    assert list(code) == here + ["fastembed"] * (kind in ("mean", "cls")) + others + ["optimum"] * exported
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repo, **_: repo)
    for name in OPENVINO_HERE:
        import_silent(name)  # a snippet that imports it first would report its use
    for runtime in here:
        snippet = code[runtime].replace(json.dumps(repo_id or kind), json.dumps(str(folders[kind])))
        assert snippet != code[runtime]
        names: dict[str, Any] = {}
        exec(compile(snippet, f"{kind}, {runtime}", "exec"), names)
        embeddings = np.asarray(names["embeddings"])
        expected = load(folders[kind]).encode(json.loads(re.search(r"sentences = (\[.*\])", snippet)[1]))
        lengths, expected_lengths = (np.linalg.norm(each, axis=1) for each in (embeddings, expected))
        assert embeddings.shape == expected.shape
        assert ((embeddings * expected).sum(1) / lengths / expected_lengths).min() > 0.9999, runtime
        assert np.allclose(lengths, expected_lengths, rtol=1e-4), runtime


@pytest.mark.parametrize("kind", KINDS)
def test_the_other_snippets_say_what_is_not_the_default(folders, kind):
    """These runtimes do not fit into this environment, so what the snippets ask of them is checked.

    LlamaIndex would otherwise make each vector of length 1 and leave a default prompt out, without a word.
    """
    text, _ = card.make_card(folders[kind], "org/mine")
    code = blocks(text, "python")
    for name in ("LangChain", "LlamaIndex", "Haystack"):
        compile(code[name], name, "exec")
    prompt = ", text_instruction=prompt, query_instruction=prompt" if kind == "cls" else ""
    assert f'HuggingFaceEmbedding("org/mine", normalize={kind == "dense"}{prompt})' in code["LlamaIndex"]
    assert ('prompt = "the dog: "' in code["LlamaIndex"]) is (kind == "cls")
    if kind == "dense":
        js = blocks(text, "js")["transformers.js"]
        assert "const { sentence_embedding: embeddings } = await model(inputs);" in js
        assert "fastembed pools by the mean or by the first token only" in text
    elif kind != "last4":
        assert f'{{ pooling: "{kind}", normalize: false }}' in blocks(text, "js")["transformers.js"]
        compile(code["fastembed"], "fastembed", "exec")
        assert f"pooling=PoolingType.{kind.upper()},\n    normalization=False," in code["fastembed"]
        assert 'dim=32,\n    model_file="onnx/model.onnx",' in code["fastembed"]


def test_what_a_runtime_does_to_the_vectors_is_said(folders):
    """Text Embeddings Inference pools the last four layers in another way, and starts nevertheless."""
    texts = {kind: card.make_card(folders[kind], "org/mine")[0] for kind in (*KINDS, "bare")}
    served = '`text-embeddings-router --model-id "org/mine"'
    assert [kind for kind, text in texts.items() if served in text] == ["mean", "cls", "dense", "bare"]
    assert "Do not serve it by [Text Embeddings Inference]" in texts["last4"]
    assert f"{served} --default-prompt-name query`" in texts["cls"]
    assert 'They are of length 1 unless a request says `"normalize": false`.' in texts["mean"]
    assert "They are of length 1" not in texts["dense"]
    assert "There is no ONNX file in fp32 that `backend" in texts["bare"]


@pytest.mark.parametrize(
    ("names", "dtype"),
    [("model_int8", "int8"), ("model_quantized", "q8"), ("model_quantized model_int8", "int8"), ("model", "fp32")],
)
def test_transformers_js_is_told_of_the_file_that_is_there(folder, names, dtype):
    """A file of int8 weights alone has no part in the limit of those that round activations too."""
    rows = {"model": EXPORT, "model_int8": EXPORT, "model_quantized": INT8}
    exported(folder, {f"onnx/{name}.onnx": rows[name] for name in names.split()})
    text, _ = card.make_card(folder, "org/mine")
    assert f'"org/mine", {{ dtype: "{dtype}" }}' in blocks(text, "js")["transformers.js"]
    assert "transformers.js" in yaml.safe_load(text.split("---\n")[1])["tags"]
    assert ("The dynamic int8 files compute a batch with one scale" in text) is ("model_quantized" in names)


def test_the_docs_snippets_are_the_cards(tmp_path):
    """Those of a normalised mean, as most models are; only the numbers of a model differ."""
    model = SentenceTransformer(modules=[*tiny_model(tmp_path / "made"), Normalize()], device="cpu")
    save_folder(model, tmp_path / "mine")
    exported(tmp_path / "mine", {**FILES, "onnx/model_int8.onnx": EXPORT})
    text, _ = card.make_card(tmp_path / "mine", "org/distilface")
    page = Path(__file__).parents[1] / "docs" / "runtimes.md"
    shown = page.read_text(encoding="utf-8").partition("## Works with\n")[2]
    assert len(trees(text)) == 10
    assert [masked(shown, "js"), trees(shown)] == [masked(text, "js"), trees(text)]


def masked(page: str, language: str) -> dict[str, str]:
    """Return the snippets with one name for every number."""
    return {name: re.sub(r"\d+", "N", code) for name, code in blocks(page, language).items()}


def trees(page: str) -> dict[str, str]:
    """Return what the snippets in Python say, however it is laid out."""
    return {name: ast.dump(ast.parse(code)) for name, code in masked(page, "python").items()}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize("kind", ["cls", "dense"])
def test_the_javascript_is_well_formed(folders, kind, tmp_path):
    (tmp_path / "snippet.mjs").write_text(blocks(card.make_card(folders[kind])[0], "js")["transformers.js"])
    done = subprocess.run(["node", "--check", "snippet.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ---- what is not known


def test_what_is_not_known_is_said(folders):
    text, files = card.make_card(folders["bare"])
    assert files == {}
    for sentence in (
        "| mean of MTEB's seven English STS tasks | not measured |",
        "| sentences a second on a CPU | not measured |",
        "| languages | not known |",
        "| licence | not known |",
        "There is no ONNX file in fp32 of these weights",
        "How it was trained is not known: the folder has no `run.json`.",
        "It has not been scored on MTEB's tasks",
        "Scores on a development set are not known.",
        "No export of these weights has been made.",
        "How long the training took, and on what, is not known.",
        "Energy and carbon were not measured.",
        "Which paper is to be cited is not known.",
    ):
        assert sentence in text
    metadata = yaml.safe_load(text.split("---\n")[1])
    assert (metadata["license"], "onnx" in metadata["tags"]) == ("unknown", False)
    assert not {"language", "base_model", "datasets", "model-index"} & set(metadata)


@pytest.mark.parametrize("left_out", sorted(set(RUN) - {"verdict", "parameters", "seed"}))
def test_a_run_that_lacks_something_still_gives_a_card(folder, left_out):
    text = card_of(folder, {left_out: None})
    assert not re.search(r"\b(None|nan|null|undefined)\b", text)
    assert re.search(r"not known|not measured", text.split("\n---\n", 1)[1])


def test_the_trainings_before_are_told(folder, tmp_path):
    """Their steps that last, their layers, their texts and their time; what it is rounded to is of the last one."""
    before = {
        "model": "first",
        "baseline_model": MINILM,
        "layers": [0, 2, 4, 5],
        "compression": [
            {"step": "vocabulary", "pieces": 17800, "of": 30522, "coverage": 0.991, "growth": 1.02},
            {"step": "width", "width": 736, "of": 1536},
            {"step": "bits", "bits": 2, "table": 2},
        ],
        "steps": 4000,
        "rows": 96000,
        "train_seconds": 5400,
        "texts": [{"role": "data", "name": "/home/me/open.txt", "hub": False, "revision": None}],
    }
    again = {"model": "second", "baseline_model": "/home/me/first", "compression": [{"step": "bits", "bits": 2}]}
    facts = tmp_path / "facts.yaml"
    facts.write_text("data: {open.txt: {license: CC0-1.0, what: much}}")
    bits = {"step": "bits", "bits": 4, "table": 2}
    changes = {"history": [before, again], "layers": None, "compression": [bits], "baseline_model": "/home/me/second"}
    text = card_of(folder, changes, None, (), facts)
    for sentence in (
        "Of the 30,522 pieces of its vocabulary it keeps the 17,800 that the text uses most: 99.10% of its tokens",
        "Its feed-forward maps have 736 of 1,536 neurons",
        "Of the layers of `all-MiniLM-L6-v2`, counted from 0, it keeps 0, 2, 4, 5.",
        "| `first` | `all-MiniLM-L6-v2` | 4,000 | 96,000 | 5,400 |\n"
        "| `second` | `first` | not known | not known | not known |\n",
        "- `open.txt`: much; licence `CC0-1.0`",
        "The trainings before took at least 1.50 hours more.",
    ):
        assert sentence in text
    assert text.count("It was trained on the grid of") == 1
    assert "2-bit weights" not in text
    assert "/home/me" not in text


def test_a_static_student_has_not_its_teachers_shape(folder):
    before = {"model": "teacher", "baseline_model": MINILM, "layers": [0, 5], "steps": 3, "train_seconds": 4}
    before["compression"] = [{"step": "width", "width": 736, "of": 1536}]
    static = {"step": "static", "pieces": 500, "smoothing": 3e-4}
    text = card_of(folder, {"history": [before], "layers": None, "compression": [static]})
    assert "It has no transformer" in text
    assert "736" not in text
    assert "counted from 0" not in text


def test_numbers_that_are_none_are_not_shown_as_numbers(folder):
    scores = {"baseline_stsb_dev": None, "teacher_stsb_dev": float("nan"), "stsb_dev": 80.0}
    text = card_of(folder, {"scores": scores, "train_seconds": float("nan"), "machine": {"cpu": None}})
    assert not re.search(r"\b(None|nan)\b", text)
    assert "before the training not known; its teacher not known" in text
    assert "How long the training took is not known." in text


def test_ones_own_facts_are_told(folder, tmp_path):
    text = card.write_card(folder).read_text()
    assert "- files of which nothing more is known: `news.txt.gz`" in text
    assert "The licence of the training text is not known, except where it is named above." in text
    own = tmp_path / "own.yaml"
    own.write_text("data:\n  news.txt.gz: {license: cc0-1.0, what: news of our own}\n")
    cli.run(["card", str(folder), "--facts", str(own)])
    text = (folder / "README.md").read_text()
    assert "- `news.txt.gz`: news of our own; licence `cc0-1.0`" in text
    assert "licence `PSF-2.0`" in text
    assert "The licence of the training text is not known" not in text


# ---- what it never says


@pytest.mark.parametrize("method", sorted(methods()))
def test_no_path_and_no_address_from_outside(folder, method):
    """Every address is https and one of the facts or the paper; a paper's BibTeX may name its address too."""
    exported(folder)
    text, facts = card_of(folder, {"method": method, "teacher": "/home/somebody/teacher"}), read_facts()
    for trace in ("/home", "somebody", "secret", "Users", "C:", str(folder.parent)):
        assert trace not in text
    for name in ("`news.txt.gz`", "`dev.jsonl`", methods()[method].paper.name):
        assert name in text
    pages = [f"https://huggingface.co/{name}" for name in facts["models"]]
    pages += [f"https://huggingface.co/datasets/{name}" for name in facts["data"]]
    links = {*re.findall(r"https?://[^\s)>\"`}]+", text)}
    assert links <= {*facts["links"].values(), *methods()[method].paper.links.values(), *pages}
    assert all(re.match(r"https://\w", link) for link in links)
    assert not re.search(r"\]\((?!https://)", text)


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        ("simcse", ["gao2021simcse", "distilface2024"]),
        ("embedding", ["kim2023embeddistill"]),
        ("codir", ["sun2020codir", "tian2020crd", "gao2021simcse", "distilface2024"]),
        ("online", ["xu2023distillcse", "gao2021simcse", "distilface2024"]),
        ("multistage", ["ding2022multistage"]),
    ],
)
def test_the_papers_are_the_methods_own(method, keys):
    """CoDIR stands beside another method, whose paper it cites too."""
    text = paper_of(Run(method=method, settings={"base": "simcse"} if method == "codir" else {})).bibtex
    assert re.findall(r"^@\w+\{(\w+),", text, re.MULTILINE) == keys
    assert text.count("{") == text.count("}")


def test_what_comes_from_outside_is_no_markup(folder):
    changes = {"data": [{"source": "a|b`c](http://x).txt"}], "settings": {"text_column": "x | y\n# z"}}
    text = card_of(folder, changes)
    assert "| `text_column` | `x ¦ y # z` |" in text
    assert "\n# z" not in text


# ---- the facts


def test_the_pinned_versions_are_those_of_the_constraints():
    """Of the others no environment of ours has any."""
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", (TESTS.parent / "constraints.txt").read_text(), re.MULTILINE))
    versions = read_facts()["versions"]
    assert set(versions) - set(pins) == {
        *("fastembed", "transformers.js", "langchain-huggingface", "llama-index-embeddings-huggingface"),
        *("haystack-ai", "sentence-transformers-haystack", "sentence-transformers[onnx]"),
    }
    assert {package: version for package, version in versions.items() if package in pins}.items() <= pins.items()


def test_the_facts_are_whole():
    """A comma in a YAML list would cut a sentence in two."""
    limits = read_facts()["limits"]
    sentences = [
        *limits.pop("always"),
        *limits.values(),
        *(one for method in methods().values() for one in method.paper.limits),
    ]
    for sentence in sentences:
        assert re.fullmatch(r"[A-Z{].*\.", sentence), sentence


def test_an_installed_package_finds_template_and_facts(tmp_path):
    """Lay the files as the wheel has them."""
    root = TESTS.parent
    wheel = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in wheel["force-include"].items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / source, tmp_path / target)
    assert data_folder(tmp_path / "distilface") == tmp_path / "distilface" / "model_card"
    assert {file.name for file in data_folder(tmp_path / "distilface").iterdir()} == {"facts.yaml", "template.md"}
    assert data_folder() == root / "model_card", "in a checkout"


# ---- results


def test_a_result_of_run_mteb_is_known_by_its_fingerprint(folder, tmp_path):
    result = {
        "name": "models/mine",
        "scores": OWN,
        "fingerprint": Folder(folder).fingerprint,
        "compared": {"teacher": {"role": "teacher", "scores": TEACHER}},
        "data": {"from": "Hugging Face Hub", "tasks": HUB},
        "date": "2026-11-21T04:45:55+00:00",
        "versions": RUN["versions"],
    }
    write_whole(tmp_path / "mteb.json", result)
    text = card.write_card(folder, None, [tmp_path / "mteb.json"]).read_text()
    assert "| STS13 | 71.12 | 73.50 |" in text
    assert "the Hub's, in the revisions that mteb names" in text
    (entry,) = parse_eval_result_entries(yaml.safe_load((folder / ".eval_results" / "STS13.yaml").read_text()))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("mteb/sts13", "STS13", OWN["STS13"])
    assert (entry.dataset_revision, entry.date) == (HUB["STS13"]["revision"], result["date"])
    assert {file.stem for file in (folder / ".eval_results").iterdir()} == set(STS_TASKS)
    assert ModelCard.load(folder / "README.md").data.eval_results[1].dataset_revision == HUB["STS13"]["revision"]


def test_a_result_of_an_exported_file_is_known_by_both(folders, tmp_path):
    """By the file and its folder; the card names the file, and a result of other bytes is refused."""
    place = tmp_path / "mine"
    shutil.copytree(folders["cls"], place)
    own = hashlib.sha256((place / "onnx" / "model.onnx").read_bytes()).hexdigest()
    both = hashlib.sha256(f"{Folder(place).fingerprint} {own}".encode()).hexdigest()
    result = {"name": "x", "scores": OWN, "fingerprint": both, "compared": {}, "data": {"from": "local files"}}
    write_whole(tmp_path / "file.json", result)
    text = card.write_card(place, None, [tmp_path / "file.json"]).read_text()
    assert "with its file `onnx/model.onnx`. The" in text
    assert "| STS13 | 71.12 |" in text
    (place / "onnx" / "model.onnx").write_bytes(b"other")
    said = refusal(card.write_card, place, None, [tmp_path / "file.json"])
    assert "file.json scores other models than this folder (x)" in said


def test_a_fingerprint_is_of_every_piece_of_an_export(tmp_path):
    """OpenVINO's weights lie beside the file that is named."""
    file = tmp_path / "openvino_model.xml"
    file.write_bytes(b"graph")
    file.with_suffix(".bin").write_bytes(b"weights")
    own = hashlib.sha256(b"graphweights").hexdigest()
    assert file_fingerprint("f", file) == hashlib.sha256(f"f {own}".encode()).hexdigest()


def test_scores_on_local_files_claim_no_revision_of_the_hub(folder, results):
    """Nor do those of an earlier card stay; what another has put there does."""
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "STS12.yaml").write_text("- source: {name: 'distilface, with mteb 2.26.24'}\n")
    (folder / ".eval_results" / "other.yaml").write_text("- source: {name: somebody}\n")
    card.write_card(folder, None, [results])
    assert [file.name for file in (folder / ".eval_results").iterdir()] == ["other.yaml"]


def test_variants_and_stages_are_read_too(folder, tmp_path):
    variants = {**SEEDS, "variants": {"a=1": {"models": SEEDS["models"][:1], "summary": {}}, "a=2": SEEDS}}
    stages = {
        "models": [
            {"stage": "teacher", "name": MINILM, "scores": {"STS17": 60.0, "STS17 (es-en)": 16.25}},
            {"stage": "contrastive", "name": "mine", "scores": {"STS17": 70.0, "STS17 (es-en)": 62.5}},
        ],
        "runs": {"contrastive": RUN},
        "data": {"STS17": {"path": ["es-en.jsonl.gz"], "revision": "sha256:x"}},
        "versions": RUN["versions"],
    }
    for name, result in {"variants": variants, "stages": stages}.items():
        write_whole(tmp_path / f"{name}.json", result)
    text = card.write_card(folder, None, [tmp_path / "variants.json", tmp_path / "stages.json"]).read_text()
    assert "| STS12 | 70.12 | 72.50 | 73.00 ± 0.25 |" in text
    assert "| STS17 (es-en) | 62.50 | 16.25 |" in text
    scores = {result.dataset_name: result for result in ModelCard.load(folder / "README.md").data.eval_results}
    assert scores["MTEB STS17 (es-en), read from local files"].dataset_config == "es-en"
    assert "with a mean of 73.12" in text


# ---- the command


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--repo-id", "a/b/c"], "--repo-id a/b/c is not an id of the Hub; give one as org/name"),
        (["--results", "none.json"], "none.json does not exist; benchmarks/run_mteb.py --output writes such a file"),
        (["--results", "RUN"], "run.json is not a result of run_mteb.py, run_seeds.py or run_crosslingual.py"),
        (["--results", "OTHER"], "scores other models than this folder (models/mine-seed4, models/mine-seed3)"),
        (["--results", "WEIGHTS"], "scores other models than this folder (models/other)"),
        (["--facts", "none.yaml"], "none.yaml does not exist; name a YAML file of facts"),
        (["--facts", "RUN"], "unknown section in"),
        (["--facts", "TEXT"], "does not hold facts"),
        (["--repoid", "a/b"], "unknown option 'repoid': did you mean 'repo_id'?"),
    ],
)
def test_a_mistake_is_one_sentence(folder, words, sentence, tmp_path):
    before = (folder / "README.md").read_bytes()
    files = {"RUN": folder / "run.json"} | {name: tmp_path / name for name in ("OTHER", "WEIGHTS", "TEXT")}
    files["OTHER"].write_text(json.dumps(SEEDS).replace("955.9", "955.8"))
    write_whole(files["WEIGHTS"], {"name": "models/other", "scores": OWN, "fingerprint": "0" * 64})
    files["TEXT"].write_text("- one\n- 2\n")
    assert sentence in refusal(cli.run, ["card", str(folder), *(str(files.get(word, word)) for word in words)])
    assert (folder / "README.md").read_bytes() == before


def test_info_says_what_the_card_lacks(folder, folders, capsys):
    assert "lacks: a card (distilface card)" in cli.run(["info", str(folder)])
    assert cli.run(["card", str(folder)]) == folder / "README.md"
    assert capsys.readouterr().out.endswith(f"card: {folder / 'README.md'}\n")
    assert not any("card" in line for line in cli.run(["info", str(folder)]) if line.startswith("lacks"))
    shutil.copyfile(folders["cls"] / "1_Pooling" / "config.json", folder / "1_Pooling" / "config.json")
    assert "lacks: a card of these weights (distilface card)" in cli.run(["info", str(folder)])
    (folder / "README.md").write_text("---\na: [1\n---\n")
    assert "lacks: a card whose metadata can be read (distilface card)" in cli.run(["info", str(folder)])
    (folder / "README.md").unlink()
    assert "lacks: a card (distilface card)" in cli.run(["info", str(folder)])


def test_exports_and_cards_of_older_versions_stay_known(folder):
    """They hold a hash of the model's files, without the versions that wrote them."""
    digest = hashlib.sha256()
    for file in Folder(folder).files:
        content = file.read_bytes()
        if file.suffix == ".json":
            settings = json.loads(content)
            for key in {"__version__", "transformers_version"} & set(settings if isinstance(settings, dict) else ()):
                del settings[key]
            content = json.dumps(settings, sort_keys=True).encode()
        digest.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    exported(folder)
    for file in (folder / "export.json", card.write_card(folder)):
        text = file.read_text(encoding="utf-8").replace(Folder(folder).fingerprint, digest.hexdigest())
        assert digest.hexdigest() in text
        file.write_text(text, encoding="utf-8")
    lines = cli.run(["info", str(folder)])
    assert any(line.startswith("onnx/model.onnx (fp32): ") for line in lines)
    assert not any(line.startswith("lacks") for line in lines)
