"""GLUE: the losses against plain numpy, the tasks' own metrics, and the benchmark in small, stopped and gone on."""

import gzip
import importlib
import json
import random
import statistics
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import WORDS, tiny_backbone, write_content
from transformers import AutoTokenizer, DataCollatorWithPadding

from distilface.compression.layers import cut_layers
from distilface.compression.student import load_backbone
from distilface.methods.codir import ContrastSettings, make_contrast
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
TRAIN, VALIDATION = 60, 12


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module


def write_task(folder: Path, task: str, columns: list[str]) -> None:
    """Make up a task: whether there is a dog in it, or for STS-B how many words there are."""
    draw = random.Random(task)
    for split, count in (("train", TRAIN), ("validation", VALIDATION)):
        rows = []
        for idx in range(count):
            text = {column: " ".join(draw.choices(WORDS.split(), k=draw.randint(2, 5))) for column in columns}
            dog = "dog" in " ".join(text.values()) or idx % 2
            text[columns[0]] += " dog" if dog else ""
            label = min(5.0, len(text[columns[0]].split()) / 2) if task == "stsb" else int(bool(dog))
            rows.append(json.dumps({**text, "label": label, "idx": idx}))
        write_content(folder / f"{split}.jsonl.gz", "\n".join(rows))


@pytest.fixture(scope="module")
def materials(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    tiny_backbone(folder / "teacher", layers=4)
    write_task(folder / "data" / "sst2", "sst2", ["sentence"])
    write_task(folder / "data" / "stsb", "stsb", ["sentence1", "sentence2"])
    return folder


def words(materials: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--teacher", str(materials / "teacher"), "--layers", "0", "2", "--data_dir", str(materials / "data")),
        *("--output", str(output), "--epochs", "2", "--batch_size", "16", "--learning_rate", "1e-3", "--bf16", "no"),
        *("--negatives", "4", *more),
    ]


# ---- the losses


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_kd_is_the_papers_equation(benchmark):
    ways, draw = benchmark("benchmarks.glue.ways"), np.random.default_rng(0)
    student, teacher, labels = draw.normal(size=(5, 3)), draw.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    expected = 0.0
    for z_s, z_t in zip(student, teacher, strict=True):
        p, q = np.exp(log_softmax(z_t[None] / 2))[0], np.exp(log_softmax(z_s[None] / 2))[0]
        expected += 4 * sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)) / 5
    given = torch.tensor(student, requires_grad=True)
    value = ways.kd_loss(given, torch.tensor(teacher), 2.0)
    assert value.item() == pytest.approx(expected, rel=1e-12)
    value.backward()
    softened = np.exp(log_softmax(student / 2)) - np.exp(log_softmax(teacher / 2))
    np.testing.assert_allclose(given.grad.numpy(), 2 * softened / 5, atol=1e-12)
    expected = -np.mean([row[label] for row, label in zip(log_softmax(student), labels, strict=True)])
    assert ways.task_loss(torch.tensor(student), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)


def test_a_score_has_squared_errors(benchmark):
    ways = benchmark("benchmarks.glue.ways")
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [2.0]])
    assert ways.kd_loss(student, teacher, 2.0).item() == pytest.approx(2.5)
    assert ways.task_loss(student, torch.tensor([1.0, 1.0])).item() == pytest.approx(4.5)


TEXTS = [
    *("a man", "the cat", "a dog sits in the park", "a big green tree and a river", "an old dog", "a man runs"),
    *("a dog runs", "the river"),
]


def tuning(benchmark, materials, way: str, classes: int = 2):
    """Make a way to fine-tune, and its teacher; the teacher's answers are to :data:`TEXTS`, by their place."""
    ways, models = benchmark("benchmarks.glue.ways"), benchmark("benchmarks.glue.models")
    torch.manual_seed(0)
    encoder, tokenizer = load_backbone(str(materials / "teacher"))
    teacher, student = models.Classifier(encoder, classes), models.Classifier(cut_layers(encoder, [0, 2]), classes)
    contrast = make_contrast(ContrastSettings(negatives=4), student.encoder.config, encoder.config, 8, seed=1)
    rows = models.tokenise(Dataset.from_dict({"s": TEXTS, "label": [0] * 8}), ("s",), tokenizer, 16)
    collator, layers = DataCollatorWithPadding(tokenizer), contrast.teacher.layers
    answers = None if way == "ce" else models.ask(teacher, rows, collator, layers, "mean", bf16=False)
    made = ways.FineTuning(student, answers, contrast if "+" in way else None, l2=way == "kd+l2", weight=0.5)
    return made, teacher


def inputs(materials: Path, padding: int = 0) -> dict[str, torch.Tensor]:
    tokenizer, index = AutoTokenizer.from_pretrained(materials / "teacher"), [6, 1, 3]
    tokens = tokenizer([TEXTS[row] for row in index], padding=True, return_tensors="pt")
    pad = torch.nn.functional.pad
    given = {name: pad(tokens[name], (0, padding)) for name in ("input_ids", "attention_mask")}
    return {**given, "labels": torch.tensor([1, 0, 0]), "index": torch.tensor(index)}


@pytest.mark.parametrize("way", ["ce", "kd", "kd+l2", "kd+codir"])
def test_each_way_is_the_sum_of_its_terms(benchmark, materials, way):
    """(1 - b) CE + b T^2 KL + w * the last, b = 0.5, T = 2; the teacher here reads the batch, not its own answers."""
    ways, (made, teacher), batch = (
        benchmark("benchmarks.glue.ways"),
        tuning(benchmark, materials, way),
        inputs(materials),
    )
    made, teacher = made.eval(), teacher.eval()
    if made.contrast is not None:
        made.contrast.log_z.zero_()
        rows = torch.nn.functional.normalize(torch.randn(2, 8, 128), dim=-1)
        made.contrast.banks.enter(torch.arange(8), rows, torch.arange(8) % 2)
    value = made(**batch).item()
    read = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits, states = made.student(**read)
    expected = ways.task_loss(logits, batch["labels"]).item()
    if way != "ce":
        goal, teacher_states = teacher(**read)
        expected = 0.5 * expected + 0.5 * ways.kd_loss(logits, goal, 2.0).item()
    mask = batch["attention_mask"]
    if way == "kd+l2":
        s, t = made.contrast.student(states, mask), made.contrast.teacher(teacher_states, mask)
        expected += 0.5 * np.mean([((a - b) ** 2).sum().item() for a, b in zip(s, t, strict=True)])
    if way == "kd+codir":
        known = batch["index"], batch["labels"]
        expected += 0.5 * made.contrast(states, mask, teacher_states, mask, *known).item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert made(**inputs(materials, padding=5)).item() == pytest.approx(value, rel=1e-4), "padding changes nothing"


@pytest.mark.parametrize("way", ["ce", "kd", "kd+l2", "kd+codir"])
def test_the_student_learns_and_the_teacher_stays(benchmark, materials, way):
    made, teacher = tuning(benchmark, materials, way)
    made.train()(**inputs(materials)).backward()
    assert all(p.grad is not None for p in made.student.parameters())
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in made.parameters()}
    if way != "ce":
        assert not any(module.training for module in teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    if made.contrast is not None:
        assert made.contrast.student.linear.weight.grad.abs().sum() > 0
        trained = made.contrast.teacher.linear.weight.grad
        assert (trained is None) == (way == "kd+l2"), "two trained maps would meet in a constant"


def test_a_teacher_in_training_mode_is_asked_without_dropout(benchmark, materials):
    """A fine-tuned teacher comes in train mode: its dropout would be in every answer, unseen."""
    answers = [tuning(benchmark, materials, "kd")[0].answers for _ in range(2)]
    torch.manual_seed(1)
    assert torch.equal(answers[0].logits, answers[1].logits)
    models, (made, teacher) = benchmark("benchmarks.glue.models"), tuning(benchmark, materials, "kd")
    tokenizer = AutoTokenizer.from_pretrained(materials / "teacher")
    rows = models.tokenise(Dataset.from_dict({"s": TEXTS, "label": [0] * 8}), ("s",), tokenizer, 16)
    again = models.ask(teacher.train(), rows, DataCollatorWithPadding(tokenizer), [0, 3], "cls", bf16=False)
    assert torch.equal(again.logits, made.answers.logits)
    tokens = tokenizer(TEXTS[4], return_tensors="pt", return_token_type_ids=False)
    _, states = teacher(**tokens)
    for layer in (0, 3):
        torch.testing.assert_close(again.states[layer][4, 0], states[layer][0, 0], atol=1e-5, rtol=1e-4)


def test_an_epoch_reads_every_row_once_in_an_order_of_its_own(benchmark, materials, tmp_path):
    ways, models = benchmark("benchmarks.glue.ways"), benchmark("benchmarks.glue.models")
    made, _ = tuning(benchmark, materials, "ce")
    tokenizer = AutoTokenizer.from_pretrained(materials / "teacher")
    texts = [" ".join(WORDS.split()[: 1 + k % 5]) for k in range(64)]
    rows = models.tokenise(Dataset.from_dict({"s": texts, "label": [0, 1] * 32}), ("s",), tokenizer, 16)
    seen: list[list[int]] = []
    made.register_forward_pre_hook(lambda _, args, given: seen.append(given["index"].tolist()), with_kwargs=True)
    best = ways.BestEpoch(lambda _: 0.0, "made up")
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "seed": 1}
    ways.fine_tune(made, rows, DataCollatorWithPadding(tokenizer), best, arguments)
    first, second = seen[:8], seen[8:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(64))
    assert first != second
    assert all(len({len(texts[row].split()) for row in batch}) <= 3 for batch in seen), "batches of similar length"


# ---- tasks


def test_the_metrics_are_the_tasks_own(benchmark):
    tasks = benchmark("benchmarks.glue.tasks").TASKS
    answers, labels = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    logits = np.eye(2)[answers]
    tp, tn, fp, fn = 2, 1, 1, 1
    f1, accuracy = 100 * 2 * tp / (2 * tp + fp + fn), 60.0
    matthews = 100 * (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert tasks["sst2"].scores(logits, labels) == pytest.approx({"accuracy": accuracy, "score": accuracy})
    expected = {"f1": f1, "accuracy": accuracy, "score": (f1 + accuracy) / 2}
    assert tasks["mrpc"].scores(logits, labels) == pytest.approx(expected)
    assert tasks["cola"].scores(logits, labels)["matthews"] == pytest.approx(matthews)
    scores = tasks["stsb"].scores(np.array([[1.0], [2.0], [9.0]]), np.array([0.0, 1.0, 2.0]))
    assert scores["spearman"] == pytest.approx(100)
    assert scores["pearson"] == pytest.approx(100 * np.corrcoef([1, 2, 9], [0, 1, 2])[0, 1])
    assert tasks["stsb"].scores(np.ones((3, 1)), np.arange(3.0))["score"] == 0, "no NaN for equal answers"


def test_the_epoch_is_chosen_on_rows_of_the_training_set(benchmark, materials):
    """Held-out rows are neither trained on nor of the validation set, and a subset is drawn from the others."""
    glue = benchmark("benchmarks.glue.tasks")
    data = glue.read_task("sst2", str(materials / "data"), held_out=1000, max_train=None)
    assert (len(data.train), len(data.held_out), len(data.validation)) == (TRAIN - 6, 6, VALIDATION)
    source = gzip.decompress((materials / "data" / "sst2" / "train.jsonl.gz").read_bytes()).decode().splitlines()
    together = sorted([*data.train["sentence"], *data.held_out["sentence"]])
    assert together == sorted(json.loads(row)["sentence"] for row in source)
    small = glue.read_task("sst2", str(materials / "data"), held_out=1000, max_train=20)
    assert small.train["sentence"][:] == data.train["sentence"][:20]
    assert small.held_out["sentence"][:] == data.held_out["sentence"][:]


def test_tasks_come_from_the_hub(benchmark, materials, tmp_path, monkeypatch):
    glue = benchmark("benchmarks.glue.tasks")
    asked = []
    for split in ("train", "validation"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        rows = list(glue._rows("sst2", split, str(materials / "data")))
        Dataset.from_list(rows).to_parquet(tmp_path / "sst2" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(glue, "from_hub", lambda *args, **more: asked.append((args[0], more)) or tmp_path)
    data, local = (glue.read_task("sst2", where, 6, None) for where in (None, str(materials / "data")))
    assert data.described() == local.described()
    assert asked[0] == ("nyu-mll/glue", {"allow_patterns": "sst2/train-*"})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"sentence": "a dog", "label": 2}, "sst2, train, row 1: the label 2 is none of the task's, 0 to 1"),
        ({"sentence": "a dog", "label": "yes"}, "sst2, train, row 1: the label 'yes' is no number"),
        ({"sentence": 3, "label": 1}, "sst2, train, row 1, column 'sentence': 3 is no text"),
        ({"sentence": "a dog", "label": 1}, "sst2: 1 rows to train on and 1 to validate are too few"),
        ({"text": "a dog", "label": 1}, "no column 'sentence'; found text, label"),
    ],
)
def test_rows_that_are_not_the_tasks_are_refused(benchmark, tmp_path, row, sentence):
    (tmp_path / "sst2").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "sst2" / f"{split}.jsonl").write_text(json.dumps(row))
    with pytest.raises(InputError) as error:
        benchmark("benchmarks.glue.tasks").read_task("sst2", str(tmp_path), 6, None)
    assert sentence in str(error.value)


def test_the_order_of_predictions_is_the_rows(benchmark, materials):
    """They are made by length, and must come back in order."""
    models = benchmark("benchmarks.glue.models")
    student = tuning(benchmark, materials, "ce")[0].student
    tokenizer = AutoTokenizer.from_pretrained(materials / "teacher")
    texts = ["a big old dog runs", "the cat", "a tree and a river in the park", "a"]
    rows = models.tokenise(Dataset.from_dict({"s": texts, "label": [0, 1, 0, 1]}), ("s",), tokenizer, 16)
    assert rows["index"][:] == [0, 1, 2, 3]
    together = models.predict(student, rows, DataCollatorWithPadding(tokenizer))
    student.eval()
    for text, row in zip(texts, together, strict=True):
        alone = student(**{k: v for k, v in tokenizer([text], return_tensors="pt").items() if k != "token_type_ids"})[0]
        np.testing.assert_allclose(alone.detach().numpy()[0], row, atol=1e-5)


# ---- the whole


def test_the_benchmark_in_small_stopped_and_gone_on(benchmark, materials, tmp_path, capsys, monkeypatch):
    """A whole run, and a part of it that is stopped in its third training: the same scores, nothing made twice."""
    run, runs = benchmark("benchmarks.glue.run"), benchmark("benchmarks.glue.runs")
    more = ["--tasks", "sst2", "stsb", "--seeds", "1", "2", "--ways", "ce", "kd", "kd+l2", "kd+codir"]
    whole = run.main(words(materials, tmp_path / "whole.json", *more))
    shown = capsys.readouterr()
    assert json.loads((tmp_path / "whole.json").read_text()) == whole
    assert len(whole["runs"]) == 2 * 2 * 5
    assert "sst2: 54 rows to train on, 6 held out, 12 to report; 10 of 10 trainings to do, 8 steps each" in shown.err
    assert all(way in shown.out for way in ("teacher", "ce", "kd+l2", "kd+codir", "±"))
    for task, ways in whole["summary"].items():
        for way, metrics in ways.items():
            found = [r["scores"]["score"] for r in whole["runs"] if (r["task"], r["way"]) == (task, way)]
            assert metrics["score"]["mean"] == pytest.approx(statistics.mean(found), abs=0.006)
            assert metrics["score"]["sd"] == pytest.approx(statistics.stdev(found), abs=0.006)
            assert metrics["score"]["seeds"] == 2
    for way, mean in whole["mean"].items():
        by_seed = [[r["scores"]["score"] for r in whole["runs"] if (r["way"], r["seed"]) == (way, s)] for s in (1, 2)]
        found = [statistics.mean(scores) for scores in by_seed]
        expected = pytest.approx(statistics.mean(found), abs=0.006), pytest.approx(statistics.stdev(found), abs=0.006)
        assert (mean["mean"], mean["sd"], mean["seeds"]) == (*expected, 2)
    assert {len(r["held_out"]) for r in whole["runs"]} == {2}
    assert all(r["held_out"][r["best_epoch"] - 1] == max(r["held_out"]) for r in whole["runs"])
    assert whole["data"]["sst2"]["train"] == 54

    part = ["--tasks", "stsb", "--seeds", "2", "--ways", "ce", "kd+codir"]
    real, calls, stop = runs.fine_tune, [], 3

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(runs, "fine_tune", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.main(words(materials, tmp_path / "part.json", *part))
    assert (tmp_path / "part.json.teachers" / "stsb-2.safetensors").is_file()
    again = run.main(words(materials, tmp_path / "part.json", *part))
    assert len(calls) == 4, "the teacher and the first student were kept"
    assert not (tmp_path / "part.json.teachers").exists()

    def comparable(result):
        return {(r["task"], r["way"], r["seed"]): (r["scores"], r["held_out"]) for r in result["runs"]}

    assert len(comparable(again)) == 3
    assert comparable(again).items() <= comparable(whole).items()
    assert run.main(words(materials, tmp_path / "part.json", *part))["runs"] == again["runs"]
    assert len(calls) == 4


def test_a_sweep_reads_no_validation_set(benchmark, materials, tmp_path, monkeypatch):
    """Each way has its own settings and one teacher; scores are of the held-out rows alone, the best epoch's."""
    run, runs = benchmark("benchmarks.glue.run"), benchmark("benchmarks.glue.runs")
    read, predict = set(), runs.predict
    monkeypatch.setattr(runs, "predict", lambda model, tokens, *a: read.add(len(tokens)) or predict(model, tokens, *a))
    ways = ["kd+codir weight=0.1", "kd+codir weight=0.1 objective=infonce teacher_layers=4", "kd+l2 weight=2"]
    output = tmp_path / "r.json"
    more = ["--tasks", "sst2", "--seeds", "1", "--report", "false", "--student_layers", "1", "--ways", *ways]
    result = run.main(words(materials, output, *more))
    assert [r["way"] for r in result["runs"]] == ["teacher", *ways]
    assert read == {6}, "only the six held-out rows were scored"
    assert all(r["scores"]["score"] == pytest.approx(max(r["held_out"])) for r in result["runs"])
    used = [r["contrast"] for r in result["runs"][1:]]
    assert [c["objective"] for c in used] == ["nce", "infonce", "nce"]
    assert [c["teacher_layers"] for c in used] == [[1, 3], [4], [1, 3]]


def test_a_student_ends_with_the_weights_of_its_best_epoch(benchmark, materials, tmp_path, monkeypatch):
    ways, runs, run = (
        benchmark("benchmarks.glue.ways"),
        benchmark("benchmarks.glue.runs"),
        benchmark("benchmarks.glue.run"),
    )
    seen: list[torch.Tensor] = []
    scores = iter([1.0, 3.0, 2.0])

    def score(self, student):
        seen.append(student.linear.weight.detach().clone())
        return next(scores)

    init = ways.BestEpoch.__init__
    monkeypatch.setattr(
        ways.BestEpoch, "__init__", lambda self, given, name: init(self, lambda s: score(self, s), name)
    )
    kept = []
    predict = runs.predict
    monkeypatch.setattr(
        runs, "predict", lambda model, *a: kept.append(model.linear.weight.clone()) or predict(model, *a)
    )
    more = ["--tasks", "sst2", "--seeds", "1", "--epochs", "3"]
    monkeypatch.setattr(runs.TaskRuns, "student", lambda *_: None)
    result = run.main(words(materials, tmp_path / "r.json", *more))
    assert result["runs"][0]["best_epoch"] == 2
    assert torch.equal(kept[-1], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_a_result_of_other_settings_is_not_gone_on_with(benchmark, materials, tmp_path):
    run, result = benchmark("benchmarks.glue.run"), benchmark("benchmarks.glue.result")
    output = tmp_path / "r.json"
    result.Result(output, {"epochs": 2}, {"sst2": {"train": 5}}).keep(
        {"task": "sst2", "way": "ce", "seed": 1, "scores": {"score": 50.0}, "parameters": 1}
    )
    with pytest.raises(InputError, match=r"was begun with other settings: epochs was 2 and is 3; set it back"):
        result.Result(output, {"epochs": 3}, {})
    with pytest.raises(InputError, match="the data of sst2 was"):
        result.Result(output, {"epochs": 2}, {"sst2": {"train": 6}})
    more = result.Result(output, {"epochs": 2}, {"rte": {"train": 6}})
    assert more.find("sst2", "ce", 1)["scores"] == {"score": 50.0}
    assert more.find("rte", "ce", 1) is None
    output.write_text("[1, 2]")
    with pytest.raises(InputError, match=r"is no result of this benchmark; name another --output"):
        run.main(words(materials, output, "--tasks", "sst2"))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--tasks", "sst3"], "unknown task 'sst3': did you mean 'sst2'?"),
        (["--ways", "kd+codri"], "unknown way 'kd+codri': did you mean 'kd+codir'?"),
        (["--ways", "kd+codir wieght=1"], "unknown option 'wieght': did you mean 'weight'?"),
        (["--ways", "kd+codir weight"], "the variant 'weight' must be settings, as"),
        (["--ways", "kd+codir weight=-1"], "--weight -1.0 is out of range; it must be 0 or more"),
        (["--tasks", "sst2", "--ways", "kd+codir teacher_layers=9"], "layer 9 of the teacher is out of range"),
        (["--epochs", "0"], "--epochs 0 is out of range; it must be above 0"),
        (["--beta", "2"], "--beta 2.0 is out of range; it must be from 0 to 1"),
        (["--warmup", "100"], "--warmup 100.0 is out of range; it is a share of the steps"),
        (["--max_train", "1"], "--max_train 1 is out of range"),
        (["--seeds", "-1"], "--seeds -1 is out of range"),
        (["--negatives", "0"], "--negatives 0 is out of range"),
        (["--bf16", "maybe"], "--bf16 'maybe' must be auto, yes or no"),
        (["--output", "."], ". is a folder; name a file to write"),
        (["--tasks", "rte"], "train.jsonl does not exist"),
        (["--tasks", "sst2", "--layers", "7"], "layer 7 is out of range; the encoder has layers 0 to 3"),
        (["--tasks", "sst2", "--teacher_layers", "9"], "layer 9 of the teacher is out of range; it has 1 to 4"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_is_trained(benchmark, materials, tmp_path, more, sentence):
    with pytest.raises(InputError) as error:
        benchmark("benchmarks.glue.run").main(words(materials, tmp_path / "r.json", *more))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())
