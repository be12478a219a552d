"""The benchmarks' commands, the series of trainings and their figures, and the demonstration, each run in small."""

import importlib
import json
import runpy
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_graph import floors, graph
from runs import EVAL_STEPS, Materials
from tiny import PAIRS, tiny_model, write_pairs

import distilface
from benchmarks.series import plot_curves, plot_variants, seeds, sweep
from benchmarks.sts import front
from benchmarks.sts import plot as plot_scores
from distilface.data.samples import python_search, python_texts
from distilface.evaluation.scores import STS_TASKS
from distilface.model.folder import load
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
ROOT = Path(__file__).parents[1]
SIMCSE = ["--script", str(ROOT / "training" / "train_unsup.py")]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # by this file's own imports
@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("[!_]*_*.py")), ids=lambda file: file.stem)
def test_a_script_runs_its_package(script, monkeypatch, capsys):
    """``python benchmarks/run_speed.py`` finds the checkout, and its help shows this command."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.setattr("distilface.console.disable_progress_bar", lambda: None)  # it would last for all tests
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(script), run_name="__main__")
    assert (end.value.code, sys.path[0]) == (0, str(ROOT))
    printed = capsys.readouterr().out
    assert f"python benchmarks/{script.name}" in printed
    assert "--output" in printed


def test_the_benchmarks_have_no_cycle():
    assert floors(graph(ROOT / "benchmarks", 9))


@pytest.fixture
def series(materials: Materials, tmp_path: Path) -> list[str]:
    """Make test sets; return the options of a series of trainings that is scored on them."""
    for i, task in enumerate(STS_TASKS):
        write_pairs(tmp_path / "data" / f"{task}.jsonl.gz", PAIRS[i // 2 :])
    places = {"data_dir": "data", "output": "r.json", "cache_dir": "cache"}
    return [word for name, place in places.items() for word in (f"--{name}", str(tmp_path / place))]


def test_a_series_of_seeds(series, materials, tmp_path, capsys):
    """Each seed is trained once, whatever asks for it, and a folder of other settings is not taken for it."""
    train = ["--", *materials.words("simcse", tmp_path / "models" / "m", "--steps", "2")]
    seeds.main([*SIMCSE, *series, "--seeds", "3", *train])
    weights = tmp_path / "models" / "m-seed3" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    result = seeds.main([*SIMCSE, *series, "--seeds", "3", "4", *train])
    assert weights.stat().st_mtime_ns == before
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert [model["run"]["seed"] for model in result["models"]] == result["seeds"] == [3, 4]
    for seed in (3, 4):
        assert load(tmp_path / "models" / f"m-seed{seed}").max_seq_length
    for name in (*STS_TASKS, "mean_of_7"):
        values = [model["scores"].get(name, model.get(name)) for model in result["models"]]
        assert values[0] != values[1]
        expected = {"mean": round(statistics.mean(values), 2), "sd": round(statistics.stdev(values), 2)}
        assert result["summary"][name] == expected
    assert result["compared"][0]["name"] == "m-seed3, untrained"
    assert "±" in capsys.readouterr().out
    with pytest.raises(InputError, match="m-seed3 is not empty"):
        seeds.main([*SIMCSE, *series, "--seeds", "3", *train, "--learning_rate", "0.5"])


def test_a_sweep_of_variants(materials, tmp_path, caplog):
    """Each variant is trained once, and only its own settings differ from the recipe."""
    caplog.set_level("INFO", logger="distilface")
    variants = ["learning_rate=0.01", "pooling=cls learning_rate=0.02"]
    train = materials.words("simcse", tmp_path / "models" / "m", "--steps", "2")
    words = [*SIMCSE, "--output", str(tmp_path / "r.json"), "--variants", *variants, "--", *train]
    result = sweep.main(words)
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert [run["name"] for run in result["runs"]] == variants
    for run, rate, pooling in zip(result["runs"], (0.01, 0.02), ("mean", "cls"), strict=True):
        assert (run["settings"]["learning_rate"], run["settings"]["pooling"]) == (rate, pooling)
        changed = {key for key, value in run["settings"].items() if value != result["recipe"][key]}
        assert changed <= {"learning_rate", "pooling"}
        folder = tmp_path / "models" / f"m-{run['name'].replace(' ', '-')}"
        assert json.loads((folder / "run.json").read_text())["scores"] == run["scores"]
    assert result["runs"][0]["scores"]["stsb_dev"] != result["runs"][1]["scores"]["stsb_dev"]
    assert "not trained again" not in caplog.text
    assert sweep.main(words)["runs"] == result["runs"]
    assert caplog.text.count("not trained again") == 2


@pytest.mark.parametrize(
    ("script", "words", "problem"),
    [
        (sweep, SIMCSE, "--variants is empty"),
        (sweep, [*SIMCSE, "--variants", "learning_rate"], "the variant 'learning_rate' must be settings"),
        (sweep, [*SIMCSE, "--variants", "learning_rate=1e-3", "learning_rat=1e-4"], "'learning_rat': did you mean"),
        (seeds, [*SIMCSE, "--variants", "learning_rate=1e-3", "learning_rat=1e-4"], "'learning_rat': did you mean"),
        (seeds, ["--script", "training/none.py"], "unknown method 'none'"),
    ],
)
def test_a_mistake_comes_before_the_first_training(materials, tmp_path, script, words, problem):
    with pytest.raises(InputError, match=problem):
        script.main([*words, "--", *materials.words("simcse", tmp_path / "m", "--steps", "2")])
    assert not list(tmp_path.glob("m-*"))


def test_a_series_of_variants(series, materials, tmp_path, capsys):
    """One teacher, two, and the student's own past: the same steps and data, each under two seeds; and their figure."""
    teachers = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(teachers):
        tiny_model(folder, seed=seed)
    variants = [
        f"teachers={teachers[0]} switch_every=0",
        f"teachers={teachers[0]},{teachers[1]} switch_every=0",
        f"switch_every={EVAL_STEPS} max_switches=1",
    ]
    train = materials.words("online", tmp_path / "models" / "m", "--steps", str(2 * EVAL_STEPS))
    result = seeds.main(["--script", "online", "--seeds", "3", "4", "--variants", *variants, *series, "--", *train])
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert (list(result["variants"]), result["seeds"]) == (variants, [3, 4])
    one, two, past = (result["variants"][name]["models"] for name in variants)
    for models in (one, two, past):
        assert [model["run"]["seed"] for model in models] == [3, 4]
        assert len({str(model["run"]["data"]) for model in (*models, *one)}) == 1
    assert two[0]["run"]["settings"]["teachers"] == [str(teacher) for teacher in teachers]
    assert [len(model["run"]["generations"]) for model in (one[0], two[0], past[0])] == [1, 1, 2]
    for variant in result["variants"].values():
        mean = statistics.mean(model["mean_of_7"] for model in variant["models"])
        assert variant["summary"]["mean_of_7"]["mean"] == round(mean, 2)
        assert variant["summary"]["train_seconds"]["mean"] > 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("teachers=", "max_switches=1", "±"))

    (tmp_path / "simcse.json").write_text(json.dumps(result["variants"][variants[0]]))
    models = plot_variants.gather([str(tmp_path / name) for name in ("simcse.json", "r.json")])
    assert list(models) == ["simcse", *variants]
    figure = plot_variants.draw(models, ["SimCSE", "one", "two", "one switch"], str(tmp_path / "f.png"))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    curve = np.mean([[score for _, score in model["run"]["curve"]] for model in past], axis=0)
    np.testing.assert_allclose(lines["one switch"].get_ydata()[1:], curve)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [mark.get_xdata()[0] for mark in marks] == [EVAL_STEPS]
    plot_variants.main(["--results", str(tmp_path / "r.json"), "--output", str(tmp_path / "g.png")])
    assert (tmp_path / "g.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="2 labels for 4 variants; give one each, or none"):
        plot_variants.draw(models, ["a", "b"], str(tmp_path / "f.png"))


def test_the_curves_are_those_of_the_results(tmp_path, monkeypatch, capsys):
    backbone = {"curve": [[10, 5.0], [20, 4.5]]}
    run = {"name": "learning_rate=1e-4", "scores": {"baseline_stsb_dev": 60.0}, "curve": [[5, 70.0], [9, 72.0]]}
    sweep = {"recipe": {"batch_size": 64}, "runs": [run]}
    left, right = plot_curves.draw(backbone, sweep, str(tmp_path / "f.png")).axes
    assert left.lines[0].get_xydata().tolist() == [[10, 5.0], [20, 4.5]]
    assert right.lines[0].get_xydata().tolist() == [[0, 60.0], [5, 70.0], [9, 72.0]]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["learning_rate=1e-4"]
    assert (tmp_path / "f.png").stat().st_size > 10_000
    monkeypatch.chdir(ROOT)  # by default it draws the results that the checkout holds
    capsys.readouterr()
    plot_curves.main(["--output", str(tmp_path / "g.png")])
    assert (tmp_path / "g.png").exists()
    assert capsys.readouterr().out == f"figure: {tmp_path / 'g.png'}\n"


def test_a_series_is_one_star_at_its_mean(tmp_path):
    def model(role: str, name: str, score: float) -> dict[str, Any]:
        scores = dict.fromkeys(STS_TASKS, score)
        return {"name": name, "role": role, "scores": scores, "parameters": 2e7, "megabytes": 80.0}

    series = {
        "models": [model("model", "a", 70.0), model("model", "b", 74.0)],
        "summary": {task: {"mean": 72.0, "sd": 2.8} for task in STS_TASKS},
        "compared": [model("teacher", "org/t", 79.0), model("untrained", "a, untrained", 50.0)],
    }
    single = {**model("model", "models/mine", 60.0), "compared": {"teacher": model("teacher", "org/t", 79.0)}}
    files = [tmp_path / "series.json", tmp_path / "single.json"]
    for file, content in zip(files, (series, single), strict=True):
        file.write_text(json.dumps(content))
    result = plot_scores.main(["--results", *map(str, files), "--output", str(tmp_path / "f.png")])
    assert {row["name"]: (row["role"], row["mean_of_5"]) for row in result["rows"]} == {
        "series (2 seeds)": ("model", 72.0),
        "org/t": ("teacher", 79.0),
        "series, untrained": ("untrained", 50.0),
        "mine": ("model", 60.0),
    }
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_the_front_is_of_the_committed_results(tmp_path):
    """Sizes, speeds and scores are those of the JSON; no untrained model stands beside them."""
    words = ["--results", str(ROOT / "benchmarks/results"), "--names", "minilm-10mb", "minilm-5mb"]
    speed = ROOT / "benchmarks/results/speed-family.json"
    figure = front.main([*words, "--speed", str(speed), "--output", str(tmp_path / "f.png")])
    rows = list(json.loads(speed.read_text()).values())[-1]["rows"]
    scored = json.loads((ROOT / "benchmarks/results/minilm-10mb-q4.json").read_text())["scores"]
    mean = statistics.mean(scored[task] for task in ("STS12", "STS13", "STS14", "STS15", "STSBenchmark"))
    own = [row for name, row in rows.items() if name.startswith("minilm-10mb, ")]
    fastest = max(row["short"]["texts_per_second"] for row in own)
    for axes, x in zip(figure.axes, (rows["minilm-10mb, q4"]["megabytes"], fastest), strict=True):
        points = {note.get_text(): note.xy for note in axes.texts}
        np.testing.assert_allclose(points["minilm-10mb"], (x, mean), atol=1e-3)
    names = {note.get_text() for note in figure.axes[0].texts}
    assert {"all-MiniLM-L6-v2", "potion-base-8M"} <= names
    assert "BERT-base, first-last average" not in names


@pytest.mark.parametrize(
    ("script", "words", "problem"),
    [
        (front, ["--speed", "empty.json"], r"empty\.json has no speeds of the processor ''"),
        (front, ["--speed", "p.json", "--names", "x"], r"has neither x-q4\.json nor x\.json; score it with"),
        (plot_curves, ["--sweep", "none.json", "--backbone", "none.json"], r"none\.json is not a result"),
        (
            plot_variants,
            ["--results", "empty.json"],
            r"empty\.json does not hold a series of seeds; write it with run_",
        ),
        (plot_variants, [], "--results is empty"),
        (plot_scores, ["--results", "empty.json"], r"empty\.json is not a result of"),
        (plot_scores, [], "--results is empty"),
    ],
)
def test_a_figure_needs_results(tmp_path, monkeypatch, script, words, problem):
    monkeypatch.chdir(tmp_path)
    Path("empty.json").write_text("{}")
    Path("p.json").write_text('{"p": {"rows": {}}}')
    with pytest.raises(InputError, match=problem):
        script.main(words)


def test_the_demonstration_in_small(tmp_path, monkeypatch, capsys):
    """Its words must stay those that the functions and the recipe take."""
    tiny_model(tmp_path / "teacher", seed=5, layers=2)
    settings = ["--output_dir", str(tmp_path / "demo"), "--teacher", str(tmp_path / "teacher")]
    monkeypatch.syspath_prepend(ROOT / "training")
    monkeypatch.setattr("distilface.compression.budget.LEAST_PIECES", 1)
    demo = importlib.import_module("demo")
    monkeypatch.setattr(demo, "LEAST", 300)
    result = demo.main([*settings, "--seconds", "1", "--megabytes", "5"])
    assert result["sentences"] == demo.LEAST
    assert result["scores"]["agreement"]["teacher"] == 100
    shown = capsys.readouterr().out
    assert all(f"{score:.2f}" in shown for scores in result["scores"].values() for score in scores.values())
    better = [scores["student"] > scores["untrained"] for scores in result["scores"].values()]
    assert ("better than untrained in every row" in shown) is all(better)
    assert "the shipped model, " in shown
    written = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert {name: written[name] for name in result} == result
    student = tmp_path / "demo" / "student"
    run = json.loads((student / "run.json").read_text())
    assert run["data"][-1]["rows"] == demo.LEAST
    assert distilface.load(student, variant="q4").encode("Some text.").shape == (32,)
    assert (tmp_path / "demo" / "demo.png").exists()
    assert "SentenceTransformer(" in (student / "README.md").read_text(encoding="utf-8")


def test_the_search_of_python_is_not_trained_on():
    queries, answers = python_search(200)
    assert len(set(queries)) == len(queries) == len(answers) == 200
    texts = python_texts()
    seen = " ".join([*queries, *answers])
    assert sum(text in seen for text in texts) >= 400, "the same sentences, which the demonstration leaves out"
    assert all(query not in answer for query, answer in zip(queries, answers, strict=True))


def test_the_demonstration_of_simcse_in_small(tmp_path, monkeypatch, capsys):
    tiny_model(tmp_path / "backbone", seed=5, layers=6)
    settings = ["--output_dir", str(tmp_path / "demo"), "--backbone", str(tmp_path / "backbone")]
    monkeypatch.syspath_prepend(ROOT / "training")
    simcse = importlib.import_module("demo_simcse")
    result = simcse.main([*settings, "--sentences", "400", "--mlm_steps", "2", "--simcse_steps", "2"])
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == result
    assert load(tmp_path / "demo" / "simcse").encode(python_texts(2)).shape == (2, 32)
    shown = capsys.readouterr().out
    assert all(f"{score:.2f}" in shown for score in result["scores"].values())
