"""Multi-stage distillation as a user runs it: four stages, alone, found again, resumed, and by mistake."""

import json
import logging
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from datasets import Dataset
from runs import BATCH, EVAL_STEPS, equal, stopped_at
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from tiny import PAIRS, WORDS, on_one_thread, tiny_model, write_pairs

from benchmarks.crosslingual import run as crosslingual
from distilface import cli
from distilface.data.parallel import held_out_split, read_parallel, sentences
from distilface.methods import find_method
from distilface.methods.multistage.evaluators import BottleneckEvaluator, CrossLingualEvaluator
from distilface.methods.multistage.stages import STAGES, Assistant, ParallelTask
from distilface.model.folder import load
from distilface.settings import InputError, parse
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
MULTISTAGE = find_method("multistage")
STEPS = 6
OPTIONS = (
    f"--steps {STEPS} --stage_batch_sizes {BATCH} 16 {BATCH} {BATCH} --eval_steps {EVAL_STEPS} --learning_rate 1e-3 "
    "--vocabulary 150 --held_out 4 --keep_layers 2 --repeats 2 --embedding_size 8 --dropout 0.1 --bf16 no"
)

#: The options above that others on the same command line would exclude.
EXCLUDED = {
    "--assistant": "--vocabulary 150 ",
    "--stage_steps": f"--steps {STEPS} ",
    "--stage_learning_rates": "--learning_rate 1e-3 ",
}


#: The folders beside the output.
BEFORE = ("0-start", "1-assistant", "2-bottleneck", "3-recurrent")


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> Path:
    """Write parallel text of two languages that are English letter by letter, and a teacher beside it."""
    folder, draw, letters = tmp_path_factory.mktemp("parallel"), random.Random(0), "abcdefghijklmnopqrstuvwxyz"
    for language, other in (("de", letters[::-1]), ("ru", "абвгдежзийклмнопрстуфхцчшщ")):
        english = [" ".join(draw.choices(WORDS.split(), k=draw.randint(3, 12))) for _ in range(40)]
        rows = [f"{sentence}\t{sentence.translate(str.maketrans(letters, other))}\n" for sentence in english]
        (folder / f"toy.en-{language}.tsv").write_text("".join(rows))
    tiny_model(folder / "teacher", seed=1)
    return folder


@pytest.fixture(scope="module")
def words(materials, parallel) -> Callable[..., list[str]]:
    """Return what gives the options of a training that writes a folder."""
    places = f"--teacher {parallel / 'teacher'} --dev {materials.pairs} --cache_dir {materials.cache}"
    files = " ".join(map(str, sorted(parallel.glob("*.tsv"))))

    def give(output: Path, *more: str) -> list[str]:
        options = OPTIONS
        for own, excluded in EXCLUDED.items():
            options = options.replace(excluded, "") if own in more else options
        return [*f"--parallel {files} {places} {options} --output_dir {output}".split(), *more]

    return give


def train(options: list[str]) -> dict:
    return cli.run(["train", "multistage", *options])


@contextmanager
def rising_scores() -> Iterator[None]:
    """Have a later step score higher, so that the best checkpoint is the last."""

    def score(self, model, *arguments, steps=-1, **options):
        return {self.key: float(steps), "mean_cosine": 0.0}

    with patch.object(CrossLingualEvaluator, "__call__", score), patch.object(BottleneckEvaluator, "__call__", score):
        yield


@contextmanager
def stopped() -> Iterator[None]:
    """Press Ctrl-C in the fourth step of whichever stage comes to one."""
    with rising_scores(), stopped_at(4) as stop:
        yield
    assert str(stop.value).startswith(f"saved at step 4 of {STEPS}")


@contextmanager
def no_training() -> Iterator[None]:
    with patch.object(WholeCheckpoints, "train", side_effect=AssertionError("it trains again")):
        yield


@pytest.fixture(scope="module")
def finished(words, tmp_path_factory) -> tuple[Path, dict, list[str], list[str]]:
    """Train all four stages at one go: the folder, its record, the lines on stdout, and what was logged.

    Nothing else writes there.
    """
    output, out, logged = tmp_path_factory.mktemp("reference") / "m", StringIO(), []
    logger, note = logging.getLogger("distilface"), logging.Handler()
    note.emit = lambda record: logged.append(record.getMessage())
    with rising_scores(), on_one_thread(), redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(logger, "handlers", [note])
        patch.setattr(logger, "level", logging.INFO)
        run = train(words(output))
    return output, run, out.getvalue().splitlines(), logged


@pytest.fixture(scope="module")
def reference(finished) -> Path:
    return finished[0]


def copied(reference: Path, folder: Path, *stages: str) -> Path:
    """Copy some stages of a training, as if it had not come further; give its output."""
    for stage in stages:
        shutil.copytree(reference.with_name("m.stages") / stage, folder / "m.stages" / stage)
    return folder / "m"


def test_four_stages(finished, parallel):
    output, last, printed, logged = finished
    folders = [output.with_name("m.stages") / name for name in BEFORE]
    assert sorted(output.parent.iterdir()) == [output, output.with_name("m.stages")]
    assert sorted(output.with_name("m.stages").iterdir()) == folders
    start, *runs = [json.loads((folder / "run.json").read_text()) for folder in [*folders, output]]
    assert "stage" not in start
    assert runs[-1] == last
    teacher, zero, one, two, three = map(str, [parallel / "teacher", *folders])
    assert [[run[key] for key in ("stage", "baseline_model", "teacher", "loss_settings", "steps")] for run in runs] == [
        ["assistant", zero, teacher, {"weight": 1}, STEPS],
        ["bottleneck", None, one, {}, STEPS],
        ["recurrent", two, one, {"weight": 1}, STEPS],
        ["contrastive", three, teacher, {"weight": 1}, STEPS],
    ]
    assert [run["settings"]["batch_size"] for run in runs] == [BATCH, 16, BATCH, BATCH]
    measures = ["stsb_dev_and_translation", "explained_variance", *["stsb_dev_and_translation"] * 2]
    for run, name in zip(runs, measures, strict=True):
        assert list(run["scores"]) == [f"baseline_{name}", f"teacher_{name}", name]
        assert (run["scores"][f"teacher_{name}"] is None) == (run["stage"] == "bottleneck")
    student = load(output)
    config = student[0].model.config
    assert (config.model_type, config.num_hidden_layers, config.inner_group_num) == ("albert", 2, 2)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    assert student.max_seq_length == 64
    assert student.encode(["a dog", "собака"]).shape == (2, 32)
    out = [line for line in printed if not line.startswith("{")]
    assert [line.split()[0] for line in out] == ["folder:", "VERDICT:"]
    ends = [line.split()[0] for line in [*out, *logged] if line.startswith(("folder:", "VERDICT:"))]
    assert ends == ["folder:", "VERDICT:"] * 4
    assert re.match(r"stage 4 \(contrastive\): [\d,]+ parameters, baseline_stsb_dev_and_tr", logged[-1])


def test_stopped_in_every_stage_it_ends_as_if_it_never_was(reference, words, tmp_path):
    options = words(tmp_path / "m")
    with stopped():
        train(options)
    for stage in (2, 3, 4):
        with pytest.raises(InputError, match="holds an unfinished run; go on with --resume"):
            train(options)
        with stopped():
            train([*options, "--resume"])
        assert [name for name in BEFORE if (tmp_path / "m.stages" / name).exists()] == [*BEFORE[:stage]]
    with rising_scores():
        train([*options, "--resume"])
    assert equal(tmp_path / "m", reference)
    assert equal(tmp_path / "m.stages", reference.with_name("m.stages"))


def test_what_is_finished_is_found_again(reference, words, tmp_path, caplog):
    """A stage that is there shall not pass for one of a larger learning rate, or of another assistant."""
    caplog.set_level(logging.INFO, logger="distilface")
    shutil.copytree(reference.parent, tmp_path / "copy")
    output, file = tmp_path / "copy" / "m", tmp_path / "copy" / "m" / "run.json"
    run = json.loads(file.read_text())
    with no_training():
        assert train(words(output)) == run
        assert train(words(output, "--stages", "2", "3"))["stage"] == "recurrent"
        assert caplog.text.count(" is there; not trained again") == 6
        with pytest.raises(InputError, match=r"m was trained with other settings \(weight\); add --over"):
            train(words(output, "--stages", "4", "--weight", "2"))
        file.write_text(json.dumps(run | {"origin": run["origin"] | {"start": "another"}}))
        with pytest.raises(InputError, match=r"with other settings \(what it is made of\)"):
            train(words(output, "--stages", "4"))


def test_a_stage_alone_refuses_what_has_another_shape(reference, words, materials):
    """``run.json`` would otherwise tell of settings that the model does not have, or of an assistant not used."""
    for more, message in (
        (["3", "4", "--repeats", "4"], r"2-bottleneck was made with repeats 2, not 4; set it back, or"),
        (["2", "3", "--vocabulary", "99"], r"1-assistant was made with vocabulary 150, not 99"),
        (["2", "--assistant", str(materials.teacher)], r"1-assistant was made with assistant None, not "),
        (["4", "--embedding_size", "12"], r"3-recurrent was made with embedding_size 8, not 12"),
    ):
        with no_training(), pytest.raises(InputError, match=message):
            train(words(reference, "--overwrite", "--stages", *more))


def test_a_checkpoint_of_another_assistant_is_dropped(reference, words, tmp_path):
    """Stopped in stage 3, begun anew with another first stage, stopped there: stage 3's checkpoint is then a stranger.

    It has the same shapes and settings, so that nothing else would tell.
    """
    rates = ["--stage_learning_rates", "1e-2", "1e-3", "1e-3", "1e-3"]
    output = copied(reference, tmp_path, *BEFORE[:3])
    with stopped():
        train(words(output))
    with stopped():
        train(words(output, *rates, "--overwrite"))
    with rising_scores():
        train(words(output, *rates, "--resume", "--stages", "1", "2", "--overwrite"))
    straight = copied(output, tmp_path / "straight", *BEFORE[:3])
    with pytest.raises(InputError, match=r"origin was .* and is .*; set it back, or start over with --overwrite"):
        train(words(output, *rates, "--resume"))
    with rising_scores():
        train(words(output, *rates, "--resume", "--overwrite"))
        train(words(straight, *rates))
    assert equal(output, straight)
    assert not equal(output, reference)


def test_an_assistant_under_another_pooling(words, tmp_path, caplog):
    """Its encoder alone is used: without stage 1 the student would learn from a model that nobody made.

    The warning of the lengths: the narrow table fits far positions to first order only, and no score shows it.
    """
    caplog.set_level(logging.INFO, logger="distilface")
    assistant = tmp_path / "given"
    modules = [tiny_model(assistant, seed=3)[0], Pooling(32, pooling_mode="cls"), Dense(32, 32)]
    SentenceTransformer(modules=modules, device="cpu").save(str(assistant))
    more = ["--assistant", str(assistant), "--steps", "1", "--train_max_length", "32", "--stages"]
    what = "given ends in Pooling and Dense, and only its encoder is used, under the mean over the tokens"
    with pytest.raises(InputError, match=f"{what}: it cannot be the assistant as it is; add 1 to --stages"):
        train(words(tmp_path / "m", *more, "2", "3", "4"))
    assert not (tmp_path / "m").exists()
    train(words(tmp_path / "m", *more, "1"))
    assert f"{what}; stage 1 trains it so" in caplog.text
    warnings = [line for _, level, line in caplog.record_tuples if level == logging.WARNING]
    assert any(line.startswith("the model will read 64 tokens and training reads 32") for line in warnings)


def test_an_assistant_that_is_given(reference, words, tmp_path):
    """Stage 1 is left out, the student has the given one's vocabulary and layers, and each stage its own weight."""
    assistant, more = reference.with_name("m.stages") / "1-assistant", ["--stage_weights", "3", "1", "2", "5"]
    run = train(words(tmp_path / "m", "--assistant", str(assistant), "--stages", "2", "3", "4", "--steps", "1", *more))
    recurrent = json.loads((tmp_path / "m.stages" / "3-recurrent" / "run.json").read_text())
    assert [each["loss_settings"] for each in (recurrent, run)] == [{"weight": 2}, {"weight": 5}]
    assert run["settings"]["stage_weights"] is None
    assert run["stage"] == "contrastive"
    assert not (tmp_path / "m.stages" / "1-assistant").exists()
    assert load(tmp_path / "m").tokenizer.get_vocab() == load(assistant).tokenizer.get_vocab()
    bottleneck = load(tmp_path / "m.stages" / "2-bottleneck")[0].model
    layer = load(assistant)[0].model.transformer.layer[1]
    assert (bottleneck.encoder.albert_layer_groups[0].albert_layers[1].ffn.weight == layer.ffn.lin1.weight).all()


MISTAKES = {
    "no such stage": (["--stages", "5"], "there is no stage 5; name stages from 1 to 4"),
    "too few values": (["--stage_steps", "1", "2"], "--stage_steps has 2 values; give 4, one a stage"),
    "a stage without its source": (["--stages", "3"], "stage 3 needs what stage 1 makes, and .*1-assistant is not"),
    "nothing to resume": (["--resume"], "nothing to resume: "),
    "too many layers": (["--keep_layers", "9"], "--keep_layers 9 is out of range; the assistant has 2 layers"),
    "too wide a table": (["--embedding_size", "64"], "--embedding_size 64 is out of range"),
    "another width": (["--assistant", "NARROW"], "the teacher's embeddings have 48 dimensions and the assistant's 32"),
    "nothing held out": (["--held_out", "0"], "--held_out 0 is out of range; it must be 1 or more"),
    "no development set": (["--dev", "gone.csv"], r"gone\.csv does not exist"),
    "no vocabulary": (["--vocabulary", "-1"], "--vocabulary -1 is out of range"),
    "a vocabulary too small": (["--vocabulary", "20"], "--vocabulary 20 cannot hold every character"),
    "no tokens": (["--max_seq_length", "-5"], "--max_seq_length -5 is out of range; it must be 3 or more"),
    "a dropout": (["--dropout", "1.5"], "--dropout 1.5 is out of range; it must be from 0 to below 1"),
    "a negative weight": (["--weight", "-1"], "--weight -1.0 is out of range"),
    "a weight that is not a number": (["--stage_weights", "1", "1", "nan", "1"], "--weight nan is out of range"),
    "a rate that is not a number": (["--learning_rate", "nan"], "--learning_rate nan is out of range"),
    "passes that are not finite": (
        ["--stage_epochs", "1", "nan", "1", "1", "--steps", "-1"],
        "--epochs nan with --st",
    ),
    "one column for both": (["--other_column", "english"], "--other_column english is the English one too"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_before_anything_is_written(mistake, words, materials, tmp_path):
    more, message = MISTAKES[mistake]
    if "NARROW" in more:
        more = ["--assistant", str(materials.backbone), "--teacher", str(materials.teacher)]
    with pytest.raises(InputError, match=message):
        train(words(tmp_path / "m", *more))
    assert not any(tmp_path.iterdir())


def test_text_that_is_not_parallel_is_refused(words, tmp_path):
    settings = parse(MULTISTAGE.Settings, words(tmp_path / "m"), "")
    with pytest.raises(InputError, match="the data has no column 'english'; give parallel text"):
        MULTISTAGE.train(settings, Dataset.from_dict({"text": ["a dog", "a cat"]}))
    assert not any(tmp_path.iterdir())


def task_of(options: list[str]) -> ParallelTask:
    settings = parse(MULTISTAGE.Settings, options, "")
    pairs, held_out = held_out_split(read_parallel(settings.data), settings.held_out)
    return ParallelTask(settings, sentences(pairs), pairs, held_out)


def test_a_short_stage_embeds_only_what_it_reads(words, tmp_path):
    """Half the pairs or more are one text, embedded once for the stages that share a teacher; fewer are a draw."""
    task = task_of(words(tmp_path / "m", "--stage_steps", "9", "2", "3", "4", "--stage_weights", "3", "1", "2", "5"))
    pairs, settings = task.pairs, [stage.own_settings(task.settings) for stage in STAGES]
    assert [each.weight for each in settings] == [3, 1, 2, 5]
    assert (BATCH, len(pairs)) == (8, 72)
    assert task.pairs_for(settings[0]) is pairs, "9 steps of 8"
    assert len(task.pairs_for(settings[1])) == 32, "2 steps of 16"
    drawn = task.pairs_for(settings[2])
    assert len(drawn) == 24, "3 steps of 8: fewer than half"
    assert len({(row["english"], row["language"]) for row in drawn}) == 24, "each once"
    assert {row["english"] for row in drawn} <= set(pairs["english"])
    assert drawn["english"][:] != pairs["english"][:24], "drawn, not the first"
    assert drawn["english"][:] == task.pairs_for(settings[2])["english"][:], "the same at a resume"


def test_the_targets_are_the_teachers_embeddings(words, parallel, tmp_path):
    """Each side of the pairs has its own, in the rows that the training data name."""
    stage = Assistant(task_of(words(tmp_path / "m", "--assistant", str(parallel / "teacher"))))
    rows = MULTISTAGE.trainer(stage)[0].train_dataset
    assert rows.column_names == ["english", "other", "label"]
    assert rows["label"][:] == list(range(len(stage.pairs)))
    for side in ("english", "other"):
        assert rows[side][:] == stage.pairs[side][:]
        targets = stage.targets(side)
        assert targets.column_names == ["label"]
        assert targets[[1, 0]]["label"].dtype == torch.float32
        embeddings = load_teacher(str(parallel / "teacher"), device="cpu").encode(stage.pairs[side][:2])
        np.testing.assert_allclose(targets[[1, 0]]["label"], embeddings[[1, 0]], atol=0.02)


def test_the_stages_are_scored_beside_the_teacher(reference, parallel, tmp_path, capsys):
    """Sizes are counted here by hand, and each mean is of the scores that mteb gives the reloaded folders."""
    stsb, sts17 = tmp_path / "stsb", tmp_path / "sts17"
    for i, name in enumerate(["en-de", "en-ru", "de-de", "ru-ru", "en-en"]):
        write_pairs(stsb / f"{name}.jsonl", PAIRS[i % 3 :])
    for i, name in enumerate(["en-de", "es-es"]):
        write_pairs(sts17 / f"{name}.jsonl", PAIRS[i:])
    places = ["--stsb-dir", str(stsb), "--sts17-dir", str(sts17), "--cache-dir", str(tmp_path / "cache")]
    options = ["--model", str(reference), *places, "--output", str(tmp_path / "r.json")]
    result = crosslingual.main(options)
    assert result == json.loads((tmp_path / "r.json").read_text())
    rows = {row["stage"]: row for row in result["models"]}
    assert list(rows) == ["teacher", *(stage.name for stage in STAGES)]
    student = load(reference)
    vocabulary = len(student.tokenizer)
    assert rows["contrastive"]["embedding_table"] == vocabulary * 8
    assert rows["assistant"]["embedding_table"] == vocabulary * student[0].model.config.hidden_size
    assert rows["contrastive"]["parameters"] == sum(p.numel() for p in student.parameters())
    for row in rows.values():
        scores, means = row["scores"], row["means"]
        cross = [scores[f"STSBenchmarkCrosslingualSTS (en-{language})"] for language in ("de", "ru")]
        inside = [scores[f"STSBenchmarkMultilingualSTS ({language})"] for language in ("de", "ru")]
        assert means["en-xx"] == pytest.approx(np.mean(cross), abs=1e-3)
        assert means["xx-xx"] == pytest.approx(np.mean(inside), abs=1e-3)
        assert means["en"] == scores["STSBenchmarkMultilingualSTS (en)"]
    sides = [student.encode([pair[side] for pair in PAIRS[1:]], normalize_embeddings=True) for side in (0, 1)]
    expected = 100 * spearmanr((sides[0] * sides[1]).sum(1), [pair[2] for pair in PAIRS[1:]]).statistic
    assert rows["contrastive"]["scores"]["STSBenchmarkCrosslingualSTS (en-ru)"] == pytest.approx(expected, abs=1e-2)
    assert "contrastive" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"is not a folder of training/train_multistage\.py; give --model one"):
        crosslingual.main([*options, "--model", str(parallel / "teacher")])
