"""The schema of run.json: files of every version are read, and each source is the Hub's or local."""

import json
from pathlib import Path

import pytest
from huggingface_hub import constants

from distilface.run import Run, Source, read_run, with_sources
from distilface.settings import InputError

ROOT = Path(__file__).parent.parent
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def committed() -> dict[str, dict]:
    """Return a ``run.json`` of each kind of committed result."""
    seeds, variants, stages = (
        json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("minilm-l3", "minilm-l3-online", "xx-minilm-small")
    )
    variant = next(iter(variants["variants"].values()))
    return {
        "seeds": seeds["models"][0]["run"],
        "variants": variant["models"][0]["run"],
        "stages": stages["runs"]["contrastive"],
    }


@pytest.mark.parametrize(
    ("name", "backbone", "teacher", "more"),
    [
        ("seeds", (MINILM, True), (MINILM, True), set()),
        (
            "variants",
            ("models/minilm-l3-mlm", False),
            ("models/minilm-l3-simcse-seed11", False),
            {"generations", "teacher_scores"},
        ),
        (
            "stages",
            ("models/xx-minilm-small.stages/3-recurrent", False),
            (MINILM, True),
            {"stage", "held_out", "pairs"},
        ),
    ],
)
def test_committed_results_are_read(name, backbone, teacher, more):
    """They are of version 0, so what is on the Hub is guessed; nothing of the file is lost."""
    content = committed()[name]
    run = Run.from_dict(content)
    assert run.version == 0
    assert (run.backbone.name, run.backbone.hub) == backbone
    assert [(source.name, source.hub) for source in run.teachers] == [teacher]
    assert [source.name for source in run.texts] == content["settings"]["data"]
    assert (run.dev.name, run.dev_rows) == (content["settings"]["dev"], 1500)
    assert (run.seed, run.scores, run.curve) == (content["seed"], content["scores"], content["curve"])
    assert set(run.more) == more
    assert content.items() <= run.as_dict().items()
    assert Run.from_dict(run.as_dict()) == run


@pytest.mark.parametrize(
    ("name", "hub"),
    [
        (MINILM, True),
        ("owner/name", True),
        ("models/mine", False),
        ("out/teacher", False),
        ("tests/tiny.py", False),
        ("/srv/a/b", False),
        ("../a/b/", False),
        (r"D:\a\b", False),
    ],
)
def test_a_path_is_not_taken_for_an_id_of_the_hub(name, hub, monkeypatch):
    """Both may be two words with a slash between; the run wrote into out/, and tests/ is a folder here."""
    monkeypatch.chdir(ROOT)
    run = Run(baseline_model=name, settings={"output_dir": "out/mine"})
    assert run.backbone == Source("backbone", name, hub)


def test_a_new_run_says_where_each_source_is_from(tmp_path, monkeypatch):
    """A folder of the name of an id is the folder; the commit of an id is the one in the Hub's cache."""
    for kind, name in (("models", "org--teacher"), ("datasets", "princeton-nlp--datasets-for-simcse")):
        place = tmp_path / "cache" / f"{kind}--{name}"
        (place / "snapshots" / ("ab" * 20)).mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("ab" * 20)
    (tmp_path / "org" / "backbone").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    run = with_sources(
        Run(
            baseline_model="org/backbone",
            teacher=["org/teacher", "org/not-in-the-cache"],
            settings={"assistant": "gone/models/assistant"},
            data=[
                {"source": "princeton-nlp/datasets-for-simcse"},
                {"source": "text/lines.txt"},
                {"rows": 2, "sha256": "0"},
                {"dev": "sample"},
            ],
        )
    )
    assert (run.version, run.text_rows) == (1, {"rows": 2, "sha256": "0"})
    assert run.sources == [
        Source("backbone", "org/backbone"),
        Source("teacher", "org/teacher", True, "ab" * 20),
        Source("teacher", "org/not-in-the-cache", True),
        Source("assistant", "gone/models/assistant"),
        Source("data", "princeton-nlp/datasets-for-simcse", True, "ab" * 20),
        Source("data", "text/lines.txt"),
        Source("dev", "sample"),
    ]
    (tmp_path / "run.json").write_text(json.dumps(run.as_dict()))
    assert read_run(tmp_path / "run.json") == run


@pytest.mark.parametrize("content", ["[1, 2]", '{"sources": [{"place": "here"}]}', "{"])
def test_a_damaged_file_is_refused_with_one_sentence(content, tmp_path):
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(InputError, match=r"run\.json is damaged: .*again") as error:
        read_run(tmp_path / "run.json")
    assert "\n" not in str(error.value)
