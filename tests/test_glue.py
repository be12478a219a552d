"""GLUE: the ways to fine-tune (class losses: test_oracles), the metrics and rows, the benchmark stopped and resumed."""

import gzip
import json
import random
import statistics
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from refusals import refusal
from suites import write_rows
from tiny import WORDS, tiny_backbone
from transformers import AutoTokenizer, DataCollatorWithPadding

from benchmarks.glue import result, run, runs, tasks
from benchmarks.glue.models import Classifier, TeacherOutputs, kd_loss, predict, run_teacher, task_loss, tokenise
from benchmarks.glue.ways import BestEpoch, FineTuning, fine_tune
from distilface.compression.layers import cut_layers
from distilface.compression.student import load_backbone
from distilface.methods.codir import ContrastSettings, make_contrast

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN, VALIDATION = 60, 12
WAYS = ["ce", "kd", "kd+l2", "kd+codir"]
TEXTS = [
    *("a man", "the cat", "a dog sits in the park", "a big green tree and a river", "an old dog", "a man runs"),
    *("a dog runs", "the river"),
]


def write_task(folder: Path, columns: list[str], score: bool = False) -> None:
    """Make up a task: whether there is a dog in a row, or as a score how many words it has."""
    draw = random.Random(folder.name)
    for split, count in (("train", TRAIN), ("validation", VALIDATION)):
        rows = []
        for idx in range(count):
            text = {column: " ".join(draw.choices(WORDS.split(), k=draw.randint(2, 5))) for column in columns}
            dog = "dog" in " ".join(text.values()) or idx % 2
            text[columns[0]] += " dog" if dog else ""
            label = min(5.0, len(text[columns[0]].split()) / 2) if score else int(bool(dog))
            rows.append({**text, "label": label, "idx": idx})
        write_rows(folder / f"{split}.jsonl.gz", rows)


@pytest.fixture(scope="module")
def materials(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    tiny_backbone(folder / "teacher", layers=4)
    write_task(folder / "data" / "sst2", ["sentence"])
    write_task(folder / "data" / "stsb", ["sentence1", "sentence2"], score=True)
    return folder


@pytest.fixture
def collator(materials) -> DataCollatorWithPadding:
    return DataCollatorWithPadding(AutoTokenizer.from_pretrained(materials / "teacher"))


def words(materials: Path, output: Path, *more: str) -> list[str]:
    return [
        *("--teacher", str(materials / "teacher"), "--layers", "0", "2", "--data_dir", str(materials / "data")),
        *("--output", str(output), "--epochs", "2", "--batch_size", "16", "--learning_rate", "1e-3", "--bf16", "no"),
        *("--negatives", "4", *more),
    ]


def tokens_of(collator: DataCollatorWithPadding, texts: list[str]) -> Dataset:
    rows = Dataset.from_dict({"s": texts, "label": [0] * len(texts)})
    return tokenise(rows, ("s",), collator.tokenizer, 16)


def fine_tuning(materials: Path, collator: DataCollatorWithPadding, way: str) -> tuple[FineTuning, Classifier]:
    """Make a way to fine-tune, and its teacher, whose outputs are those for :data:`TEXTS`, by their place."""
    torch.manual_seed(0)
    encoder, _ = load_backbone(str(materials / "teacher"))
    teacher, student = Classifier(encoder, 2), Classifier(cut_layers(encoder, [0, 2]), 2)
    contrast = make_contrast(ContrastSettings(negatives=4), student.encoder.config, encoder.config, 8, seed=1)
    outputs: TeacherOutputs | None = None
    if way != "ce":
        layers = contrast.teacher.layers
        outputs = run_teacher(teacher, tokens_of(collator, TEXTS), collator, layers, "mean", bf16=False)
    tuning = FineTuning(student, outputs, contrast if "+" in way else None, l2=way == "kd+l2", weight=0.5)
    return tuning, teacher


def batch_of(collator: DataCollatorWithPadding, padding: int = 0) -> dict[str, torch.Tensor]:
    index = [6, 1, 3]
    tokens = collator.tokenizer([TEXTS[row] for row in index], padding=True, return_tensors="pt")
    pad = torch.nn.functional.pad
    inputs = {name: pad(tokens[name], (0, padding)) for name in ("input_ids", "attention_mask")}
    return {**inputs, "labels": torch.tensor([1, 0, 0]), "index": torch.tensor(index)}


def test_a_score_has_squared_errors():
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[2.0], [2.0]])
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(2.5)
    assert task_loss(student, torch.tensor([1.0, 1.0])).item() == pytest.approx(4.5)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_is_the_sum_of_its_terms(materials, collator, way):
    """(1 - b) CE + b T^2 KL + w * the last, b = 0.5, T = 2; the teacher here reads the batch, not its own outputs."""
    (tuning, teacher), batch = fine_tuning(materials, collator, way), batch_of(collator)
    tuning, teacher = tuning.eval(), teacher.eval()
    if tuning.contrast is not None:
        tuning.contrast.log_z.zero_()
        rows = torch.nn.functional.normalize(torch.randn(2, 8, 128), dim=-1)
        tuning.contrast.banks.enter(torch.arange(8), rows, torch.arange(8) % 2)
    value = tuning(**batch).item()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits, states = tuning.student(**inputs)
    expected = task_loss(logits, batch["labels"]).item()
    if way != "ce":
        goal, teacher_states = teacher(**inputs)
        expected = 0.5 * expected + 0.5 * kd_loss(logits, goal, 2.0).item()
    mask = batch["attention_mask"]
    if way == "kd+l2":
        s, t = tuning.contrast.student(states, mask), tuning.contrast.teacher(teacher_states, mask)
        expected += 0.5 * np.mean([((a - b) ** 2).sum().item() for a, b in zip(s, t, strict=True)])
    if way == "kd+codir":
        own = batch["index"], batch["labels"]
        expected += 0.5 * tuning.contrast(states, mask, teacher_states, mask, *own).item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert tuning(**batch_of(collator, padding=5)).item() == pytest.approx(value, rel=1e-4), "padding changes nothing"


@pytest.mark.parametrize("way", WAYS)
def test_the_student_learns_and_the_teacher_stays(materials, collator, way):
    tuning, teacher = fine_tuning(materials, collator, way)
    tuning.train()(**batch_of(collator)).backward()
    assert all(p.grad is not None for p in tuning.student.parameters())
    assert not {id(p) for p in teacher.parameters()} & {id(p) for p in tuning.parameters()}
    if way != "ce":
        assert not any(module.training for module in teacher.modules())
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    if tuning.contrast is not None:
        assert tuning.contrast.student.linear.weight.grad.abs().sum() > 0
        teacher_map = tuning.contrast.teacher.linear.weight.grad
        assert (teacher_map is None) == (way == "kd+l2"), "two trained maps would converge to a constant"


def test_outputs_are_in_order_and_without_dropout(materials, collator):
    """They are computed by length; a fine-tuned model comes in train mode, and its dropout would be unseen."""
    tuning, teacher = fine_tuning(materials, collator, "kd")
    rows = tokens_of(collator, TEXTS)
    assert rows["index"][:] == list(range(8))
    predictions = predict(teacher.train(), rows, collator)
    assert teacher.training
    outputs = run_teacher(teacher, rows, collator, [0, 3], "cls", bf16=False)
    assert torch.equal(outputs.logits, torch.tensor(predictions))
    assert torch.equal(outputs.logits, tuning.outputs.logits)
    for place, text in enumerate(TEXTS):
        logits, states = teacher(**collator.tokenizer([text], return_tensors="pt", return_token_type_ids=False))
        torch.testing.assert_close(outputs.logits[place], logits[0], atol=1e-5, rtol=0)
        for layer in (0, 3):
            torch.testing.assert_close(outputs.states[layer][place, 0], states[layer][0, 0], atol=1e-5, rtol=1e-4)


def test_epochs(materials, collator):
    """Each reads every row once, in a new order, in batches of similar length; the best one's weights stay."""
    tuning, _ = fine_tuning(materials, collator, "ce")
    texts = [" ".join(WORDS.split()[: 1 + k % 5]) for k in range(64)]
    seen: list[list[int]] = []
    tuning.register_forward_pre_hook(lambda _, args, batch: seen.append(batch["index"].tolist()), with_kwargs=True)
    scores, weights = iter([1.0, 3.0, 2.0]), []

    def score(student: Classifier) -> float:
        weights.append(student.linear.weight.detach().clone())
        return next(scores)

    arguments = {"num_train_epochs": 3, "per_device_train_batch_size": 8, "seed": 1}
    fine_tune(tuning, tokens_of(collator, texts), collator, BestEpoch(score, "made up"), arguments)
    first, second, third = seen[:8], seen[8:16], seen[16:]
    assert sorted(chain(*first)) == sorted(chain(*second)) == sorted(chain(*third)) == list(range(64))
    assert first != second
    assert all(len({len(texts[row].split()) for row in batch}) <= 3 for batch in seen)
    assert torch.equal(tuning.student.linear.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_the_metrics_are_the_tasks_own():
    predictions, labels = np.array([1, 1, 0, 0, 1]), np.array([1, 0, 0, 1, 1])
    logits = np.eye(2)[predictions]
    tp, tn, fp, fn = 2, 1, 1, 1
    f1, accuracy = 100 * 2 * tp / (2 * tp + fp + fn), 60.0
    matthews = 100 * (tp * tn - fp * fn) / ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    assert tasks.TASKS["sst2"].scores(logits, labels) == pytest.approx({"accuracy": accuracy, "score": accuracy})
    expected = {"f1": f1, "accuracy": accuracy, "score": (f1 + accuracy) / 2}
    assert tasks.TASKS["mrpc"].scores(logits, labels) == pytest.approx(expected)
    assert tasks.TASKS["cola"].scores(logits, labels)["matthews"] == pytest.approx(matthews)
    scores = tasks.TASKS["stsb"].scores(np.array([[1.0], [2.0], [9.0]]), np.array([0.0, 1.0, 2.0]))
    assert scores["spearman"] == pytest.approx(100)
    assert scores["pearson"] == pytest.approx(100 * np.corrcoef([1, 2, 9], [0, 1, 2])[0, 1])
    assert tasks.TASKS["stsb"].scores(np.ones((3, 1)), np.arange(3.0))["score"] == 0, "no NaN for equal predictions"


def test_the_epoch_is_chosen_on_rows_of_the_training_set(materials):
    """Held-out rows are neither trained on nor of the validation set, and a subset is drawn from the others."""
    data = tasks.read_task("sst2", str(materials / "data"), held_out=1000, max_train=None)
    assert (len(data.train), len(data.held_out), len(data.validation)) == (TRAIN - 6, 6, VALIDATION)
    source = gzip.decompress((materials / "data" / "sst2" / "train.jsonl.gz").read_bytes()).decode().splitlines()
    together = sorted([*data.train["sentence"], *data.held_out["sentence"]])
    assert together == sorted(json.loads(row)["sentence"] for row in source)
    small = tasks.read_task("sst2", str(materials / "data"), held_out=1000, max_train=20)
    assert small.train["sentence"][:] == data.train["sentence"][:20]
    assert small.held_out["sentence"][:] == data.held_out["sentence"][:]


def test_tasks_come_from_the_hub(materials, tmp_path, monkeypatch):
    requests = []
    for split in ("train", "validation"):
        (tmp_path / "sst2").mkdir(exist_ok=True)
        rows = list(tasks._rows("sst2", split, str(materials / "data")))
        Dataset.from_list(rows).to_parquet(tmp_path / "sst2" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(tasks, "from_hub", lambda *args, **more: requests.append((args[0], more)) or tmp_path)
    data, local = (tasks.read_task("sst2", where, 6, None) for where in (None, str(materials / "data")))
    assert data.summary() == local.summary()
    assert requests[0] == ("nyu-mll/glue", {"allow_patterns": "sst2/train-*"})


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"sentence": "a dog", "label": 2}, "sst2, train, row 1: the label 2 is not one of the task's, 0 to 1"),
        ({"sentence": "a dog", "label": "yes"}, "sst2, train, row 1: the label 'yes' is not a number"),
        ({"sentence": 3, "label": 1}, "sst2, train, row 1, column 'sentence': 3 is not text"),
        ({"sentence": "a dog", "label": 1}, "sst2: 1 rows to train on and 1 to validate on are too few"),
        ({"text": "a dog", "label": 1}, "no column 'sentence'; found text, label"),
    ],
)
def test_rows_that_are_not_the_tasks_are_refused(tmp_path, row, sentence):
    for split in ("train", "validation"):
        write_rows(tmp_path / "sst2" / f"{split}.jsonl", [row])
    assert sentence in refusal(tasks.read_task, "sst2", str(tmp_path), 6, None)


@pytest.mark.slow
def test_the_benchmark_stopped_and_resumed(materials, tmp_path, capsys, caplog, monkeypatch):
    """A whole run, and a part of it that is stopped in its third training: the same scores, nothing trained twice."""
    ways = ["ce", "kd", "kd+codir"]  # kd+l2 is in the sweep below
    more = ["--tasks", "sst2", "stsb", "--seeds", "1", "2", "--ways", *ways]
    whole = run.main(words(materials, tmp_path / "whole.json", *more))
    assert json.loads((tmp_path / "whole.json").read_text()) == whole
    assert len(whole["runs"]) == 2 * 2 * 4
    assert "sst2: 54 rows to train on, 6 held out, 12 to report; 8 of 8 trainings to do, 8 steps each" in caplog.text
    printed = capsys.readouterr().out
    assert all(way in printed for way in ("teacher", *ways, "±"))
    by_key = {(r["task"], r["way"], r["seed"]): r["scores"]["score"] for r in whole["runs"]}

    def check(summary: dict, scores: list[float]) -> None:
        expected = {"mean": statistics.mean(scores), "sd": statistics.stdev(scores), "seeds": 2}
        assert summary == pytest.approx(expected, abs=0.006)

    for way in ("teacher", *ways):
        for task in ("sst2", "stsb"):
            check(whole["summary"][task][way]["score"], [by_key[task, way, seed] for seed in (1, 2)])
        check(whole["mean"][way], [(by_key["sst2", way, seed] + by_key["stsb", way, seed]) / 2 for seed in (1, 2)])
    assert {len(r["held_out"]) for r in whole["runs"]} == {2}
    assert all(r["held_out"][r["best_epoch"] - 1] == max(r["held_out"]) for r in whole["runs"])
    assert whole["data"]["sst2"]["train"] == 54

    part = words(materials, tmp_path / "part.json", "--tasks", "stsb", "--seeds", "2", "--ways", "ce", "kd+codir")
    real, calls = runs.fine_tune, []

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(runs, "fine_tune", stopping)
    with pytest.raises(KeyboardInterrupt):
        run.main(part)
    assert (tmp_path / "part.json.teachers" / "stsb-2.safetensors").is_file()
    again = run.main(part)
    assert len(calls) == 4, "the teacher and the first student were kept"
    assert not (tmp_path / "part.json.teachers").exists()

    def comparable(content):
        return {(r["task"], r["way"], r["seed"]): (r["scores"], r["held_out"]) for r in content["runs"]}

    assert len(comparable(again)) == 3
    assert comparable(again).items() <= comparable(whole).items()
    assert run.main(part)["runs"] == again["runs"]
    assert len(calls) == 4


def test_a_sweep_reads_no_validation_set(materials, tmp_path, monkeypatch):
    """Each way has its own settings and one teacher; scores are of the held-out rows alone, the best epoch's."""
    read = set()
    monkeypatch.setattr(runs, "predict", lambda model, tokens, *a: read.add(len(tokens)) or predict(model, tokens, *a))
    ways = ["kd+codir weight=0.1", "kd+codir weight=0.1 objective=infonce teacher_layers=4", "kd+l2 weight=2"]
    more = ["--tasks", "sst2", "--seeds", "1", "--report", "false", "--student_layers", "1", "--ways", *ways]
    content = run.main(words(materials, tmp_path / "r.json", *more))
    assert [r["way"] for r in content["runs"]] == ["teacher", *ways]
    assert read == {6}, "only the six held-out rows were scored"
    assert all(r["scores"]["score"] == pytest.approx(max(r["held_out"])) for r in content["runs"])
    contrasts = [r["contrast"] for r in content["runs"][1:]]
    assert [c["objective"] for c in contrasts] == ["nce", "infonce", "nce"]
    assert [c["teacher_layers"] for c in contrasts] == [[1, 3], [4], [1, 3]]


def test_a_result_of_other_settings_is_not_continued(materials, tmp_path):
    output = tmp_path / "r.json"
    training = {"task": "sst2", "way": "ce", "seed": 1, "scores": {"score": 50.0}, "parameters": 1}
    result.Result(output, {"epochs": 2}, {"sst2": {"train": 5}}).keep(training)
    said = refusal(result.Result, output, {"epochs": 3}, {})
    assert "was begun with other settings: epochs was 2 and is 3; set it back" in said
    assert "the data of sst2 was" in refusal(result.Result, output, {"epochs": 2}, {"sst2": {"train": 6}})
    more = result.Result(output, {"epochs": 2}, {"rte": {"train": 6}})
    assert more.find("sst2", "ce", 1)["scores"] == {"score": 50.0}
    assert more.find("rte", "ce", 1) is None
    output.write_text("[1, 2]")
    said = refusal(run.main, words(materials, output, "--tasks", "sst2"))
    assert "is not a result of this benchmark; name another --output" in said


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
def test_a_mistake_is_one_sentence_before_a_training(materials, tmp_path, more, sentence):
    assert sentence in refusal(run.main, words(materials, tmp_path / "r.json", *more))
    assert not any(tmp_path.iterdir())
