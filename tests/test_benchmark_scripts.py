"""The series of seeds, the curves, and the demonstration, each run in small."""

import importlib
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from runs import EVAL_STEPS, Materials
from tiny import PAIRS, tiny_model, write_pairs

from distilface.data.samples import python_texts
from distilface.evaluation.scores import STS_TASKS
from distilface.model.folder import load
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "training")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for i, task in enumerate(STS_TASKS):
        write_pairs(tmp_path / "data" / f"{task}.jsonl.gz", PAIRS[i // 2 :])
    return tmp_path / "data"


def series(materials: Materials, data: Path, tmp_path: Path, *seeds: str) -> list[str]:
    """Give the command line of a series of two-step SimCSE trainings."""
    script = ["--script", str(ROOT / "training" / "train_unsup.py"), "--seeds", *seeds]
    where = ["--data_dir", str(data), "--output", str(tmp_path / "r.json"), "--cache_dir", str(tmp_path / "cache")]
    train = materials.words("simcse", tmp_path / "models" / "m", "--steps", "2")
    return [*script, *where, "--", *train]


def test_a_series_reports_each_seed_and_their_spread(benchmark, materials, data, tmp_path, capsys):
    result = benchmark("benchmarks.series.seeds").main(series(materials, data, tmp_path, "3", "4"))
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert [model["run"]["seed"] for model in result["models"]] == [3, 4]
    for seed in (3, 4):
        assert load(tmp_path / "models" / f"m-seed{seed}").max_seq_length
    for name in (*STS_TASKS, "mean_of_7"):
        values = [model["scores"].get(name, model.get(name)) for model in result["models"]]
        assert values[0] != values[1]
        expected = {"mean": round(statistics.mean(values), 2), "sd": round(statistics.stdev(values), 2)}
        assert result["summary"][name] == expected
    assert result["compared"][0]["name"] == "m-seed3, untrained"
    assert "±" in capsys.readouterr().out


def test_a_series_does_not_train_again_what_is_there(benchmark, materials, data, tmp_path):
    module: ModuleType = benchmark("benchmarks.series.seeds")
    module.main(series(materials, data, tmp_path, "3"))
    weights = tmp_path / "models" / "m-seed3" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = module.main(series(materials, data, tmp_path, "3", "4"))
    assert weights.stat().st_mtime_ns == before
    assert again["seeds"] == [3, 4]


def test_a_folder_of_other_settings_is_not_taken_for_the_one_asked_for(benchmark, materials, data, tmp_path):
    module: ModuleType = benchmark("benchmarks.series.seeds")
    module.main(series(materials, data, tmp_path, "3"))
    with pytest.raises(InputError, match="m-seed3 is not empty"):
        module.main([*series(materials, data, tmp_path, "3"), "--learning_rate", "0.5"])


def test_a_sweep_trains_each_variant_once_and_says_what_differs(benchmark, materials, tmp_path, capsys):
    module: ModuleType = benchmark("benchmarks.series.sweep")
    variants = ["learning_rate=0.01", "pooling=cls learning_rate=0.02"]
    words = [
        *("--script", str(ROOT / "training" / "train_unsup.py"), "--output", str(tmp_path / "r.json")),
        *("--variants", *variants, "--"),
        *materials.words("simcse", tmp_path / "models" / "m", "--steps", "2"),
    ]
    result = module.main(words)
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert [run["name"] for run in result["runs"]] == variants
    for run, rate, pooling in zip(result["runs"], (0.01, 0.02), ("mean", "cls"), strict=True):
        assert (run["settings"]["learning_rate"], run["settings"]["pooling"]) == (rate, pooling)
        changed = {key for key, value in run["settings"].items() if value != result["recipe"][key]}
        assert changed <= {"learning_rate", "pooling"}
        folder = tmp_path / "models" / f"m-{run['name'].replace(' ', '-')}"
        assert json.loads((folder / "run.json").read_text())["scores"] == run["scores"]
    assert result["runs"][0]["scores"]["stsb_dev"] != result["runs"][1]["scores"]["stsb_dev"]
    capsys.readouterr()
    assert module.main(words)["runs"] == result["runs"]
    assert capsys.readouterr().err.count("not trained again") == 2


@pytest.mark.parametrize(
    ("variants", "problem"),
    [
        ([], "no variants given"),
        (["learning_rate"], "the variant 'learning_rate' must be settings"),
        (["learning_rate=1e-3", "learning_rat=1e-4"], "nearest|mean|learning_rate"),
    ],
)
def test_a_sweep_refuses_a_slip_before_the_first_training(benchmark, materials, tmp_path, variants, problem):
    words = materials.words("simcse", tmp_path / "m", "--steps", "2")
    script = ["--script", str(ROOT / "training" / "train_unsup.py"), *(["--variants", *variants] if variants else [])]
    with pytest.raises(InputError, match=problem):
        benchmark("benchmarks.series.sweep").main([*script, "--", *words])
    assert not list(tmp_path.glob("m-*"))


def test_a_series_needs_a_script(benchmark, data, tmp_path):
    with pytest.raises(InputError, match=r"none\.py does not exist"):
        benchmark("benchmarks.series.seeds").main(["--script", str(tmp_path / "none.py"), "--data_dir", str(data)])


def test_a_series_of_variants_is_one_result_and_one_picture(benchmark, materials, data, tmp_path, capsys):
    """One teacher, two, and the student's own past: the same steps and data, each under two seeds."""
    teachers = [tmp_path / name for name in ("a", "b")]
    for seed, folder in enumerate(teachers):
        tiny_model(folder, seed=seed)
    variants = [
        f"teachers={teachers[0]} switch_every=0",
        f"teachers={teachers[0]},{teachers[1]} switch_every=0",
        f"switch_every={EVAL_STEPS} max_switches=1",
    ]
    words = [
        *("--script", str(ROOT / "training" / "train_online.py"), "--seeds", "3", "4", "--variants", *variants),
        *("--data_dir", str(data), "--output", str(tmp_path / "r.json"), "--cache_dir", str(tmp_path / "cache")),
        *("--", *materials.words("online", tmp_path / "models" / "m", "--steps", str(2 * EVAL_STEPS))),
    ]
    result = benchmark("benchmarks.series.seeds").main(words)
    assert result == json.loads((tmp_path / "r.json").read_text())
    assert list(result["variants"]) == variants
    assert result["seeds"] == [3, 4]
    one, two, past = (result["variants"][name]["models"] for name in variants)
    for models in (one, two, past):
        assert [model["run"]["seed"] for model in models] == [3, 4]
        assert len({str(model["run"]["data"]) for model in (*models, *one)}) == 1
    assert two[0]["run"]["settings"]["teachers"] == [str(teacher) for teacher in teachers]
    assert [len(model["run"]["generations"]) for model in (one[0], two[0], past[0])] == [1, 1, 2]
    for found in result["variants"].values():
        values = [model["mean_of_7"] for model in found["models"]]
        assert found["summary"]["mean_of_7"]["mean"] == round(statistics.mean(values), 2)
        assert found["summary"]["train_seconds"]["mean"] > 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("teachers=", "max_switches=1", "±"))

    module = benchmark("benchmarks.series.plot_variants")
    (tmp_path / "simcse.json").write_text(json.dumps(result["variants"][variants[0]]))
    series = module.gather([str(tmp_path / name) for name in ("simcse.json", "r.json")])
    assert list(series) == ["simcse", *variants]
    figure = module.draw(series, ["SimCSE", "one", "two", "one switch"], str(tmp_path / "f.png"))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    curve = np.mean([[score for _, score in model["run"]["curve"]] for model in past], axis=0)
    np.testing.assert_allclose(lines["one switch"].get_ydata()[1:], curve)
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [mark.get_xdata()[0] for mark in marks] == [EVAL_STEPS]
    module.main(["--results", str(tmp_path / "r.json"), "--output", str(tmp_path / "g.png")])
    assert (tmp_path / "g.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="2 labels for 4 variants; give one each, or none"):
        module.draw(series, ["a", "b"], str(tmp_path / "f.png"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other\.json holds no series of seeds; make it by run_seeds\.py"):
        module.main(["--results", str(tmp_path / "other.json")])
    with pytest.raises(InputError, match="no results given"):
        module.main([])


def test_the_curves_are_those_of_the_results(benchmark, tmp_path):
    module = benchmark("benchmarks.series.plot_curves")
    backbone = {"curve": [[10, 5.0], [20, 4.5]]}
    run = {"name": "learning_rate=1e-4", "scores": {"baseline_stsb_dev": 60.0}, "curve": [[5, 70.0], [9, 72.0]]}
    sweep = {"recipe": {"batch_size": 64}, "runs": [run]}
    figure = module.draw(backbone, sweep, str(tmp_path / "f.png"))
    left, right = figure.axes
    assert left.lines[0].get_xydata().tolist() == [[10, 5.0], [20, 4.5]]
    assert right.lines[0].get_xydata().tolist() == [[0, 60.0], [5, 70.0], [9, 72.0]]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["learning_rate=1e-4"]
    assert (tmp_path / "f.png").stat().st_size > 10_000


def test_the_shipped_curves_can_be_drawn(benchmark, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    benchmark("benchmarks.series.plot_curves").main(["--output", str(tmp_path / "f.png")])
    assert (tmp_path / "f.png").exists()
    assert capsys.readouterr().out == f"figure: {tmp_path / 'f.png'}\n"


def test_the_scores_of_a_series_are_one_star_at_their_mean(benchmark, tmp_path):
    def model(role: str, name: str, score: float) -> dict[str, Any]:
        scores = dict.fromkeys(STS_TASKS, score)
        return {"name": name, "role": role, "scores": scores, "parameters": 2e7, "megabytes": 80.0}

    series = {
        "models": [model("model", "a", 70.0), model("model", "b", 74.0)],
        "summary": {task: {"mean": 72.0, "sd": 2.8} for task in STS_TASKS},
        "compared": [model("teacher", "org/t", 79.0), model("untrained", "a, untrained", 50.0)],
    }
    single = {**model("model", "models/mine", 60.0), "compared": {"teacher": model("teacher", "org/t", 79.0)}}
    (tmp_path / "series.json").write_text(json.dumps(series))
    (tmp_path / "single.json").write_text(json.dumps(single))
    files = [str(tmp_path / "series.json"), str(tmp_path / "single.json")]
    result = benchmark("benchmarks.sts.plot").main(["--results", *files, "--output", str(tmp_path / "f.png")])
    shown = {row["name"]: (row["role"], row["mean_of_5"]) for row in result["rows"]}
    assert shown == {
        "series (2 seeds)": ("model", 72.0),
        "org/t": ("teacher", 79.0),
        "series, untrained": ("untrained", 50.0),
        "mine": ("model", 60.0),
    }
    assert (tmp_path / "f.png").stat().st_size > 10_000
    (tmp_path / "bad.json").write_text("{}")
    for words, problem in ((["--results", str(tmp_path / "bad.json")], "is no result of"), ([], "no results given")):
        with pytest.raises(InputError, match=problem):
            benchmark("benchmarks.sts.plot").main(words)


def test_the_curves_need_results(benchmark, tmp_path):
    with pytest.raises(InputError, match=r"none\.json is no result"):
        benchmark("benchmarks.series.plot_curves").main(
            ["--sweep", str(tmp_path / "none.json"), "--backbone", str(tmp_path / "none.json")]
        )


def test_the_demonstration_in_small(benchmark, tmp_path, capsys):
    """Its words must stay those that the scripts and the recipes take; the teacher has six layers, as the real one."""
    tiny_model(tmp_path / "teacher", seed=5, layers=6)
    settings = ["--output_dir", str(tmp_path / "demo"), "--teacher", str(tmp_path / "teacher")]
    result = benchmark("demo").main([*settings, "--sentences", "400", "--mlm_steps", "2", "--simcse_steps", "2"])
    assert [rung["rung"].split(":")[0] for rung in result["rungs"]] == [
        "untrained",
        "SimCSE on it",
        "untrained",
        "distilled",
        "teacher",
    ]
    assert json.loads((tmp_path / "demo" / "demo.json").read_text()) == result
    assert load(tmp_path / "demo" / "distilled").encode(python_texts(2)).shape == (2, 32)
    shown = capsys.readouterr().out
    assert all(f"{rung['spearman']:.2f}" in shown for rung in result["rungs"])
    assert (tmp_path / "demo" / "demo.png").exists()
    assert "onnx/model.onnx" in result["exports"]
    assert all((tmp_path / "demo" / "distilled" / file).is_file() for file in result["exports"])
    assert "SentenceTransformer(" in (tmp_path / "demo" / "distilled" / "README.md").read_text(encoding="utf-8")
