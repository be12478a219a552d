"""Multi-stage distillation as a user runs it: four stages, alone, found again, resumed, and by mistake."""

import itertools
import json
import random
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from datasets import Dataset
from runs import BATCH, EVAL_STEPS, Materials, each_step, equal, script
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Pooling
from tiny import PAIRS, WORDS, on_one_thread, tiny_model, write_pairs

from benchmarks.crosslingual import run as crosslingual
from distilface.compression.recurrent import recurrent_student
from distilface.data.parallel import held_out_split, read_parallel
from distilface.methods.multistage.evaluators import BottleneckEvaluator, CrossLingualEvaluator
from distilface.methods.multistage.settings import NAMES, MultistageSettings
from distilface.methods.multistage.stages import Materials as StageMaterials
from distilface.model.folder import load
from distilface.settings import InputError, parse
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.stages import finished, stage_settings
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
STEPS = 6


@pytest.fixture(scope="module")
def parallel(tmp_path_factory) -> Path:
    """Write parallel text of two languages that are English letter by letter."""
    folder, draw = tmp_path_factory.mktemp("parallel"), random.Random(0)
    tables = {
        "de": str.maketrans("abcdefghijklmnopqrstuvwxyz", "zyxwvutsrqponmlkjihgfedcba"),
        "ru": str.maketrans("abcdefghijklmnopqrstuvwxyz", "абвгдежзийклмнопрстуфхцчшщ"),
    }
    for language, table in tables.items():
        english = [" ".join(draw.choices(WORDS.split(), k=draw.randint(3, 12))) for _ in range(40)]
        rows = [f"{sentence}\t{sentence.translate(table)}\n" for sentence in english]
        (folder / f"toy.en-{language}.tsv").write_text("".join(rows))
    return folder


def words(materials: Materials, parallel: Path, output: Path, *more: str) -> list[str]:
    settings = {
        "teacher": parallel / "teacher",
        "output_dir": output,
        "dev": materials.pairs,
        "cache_dir": materials.cache,
        "vocabulary": 150,
        "held_out": 4,
        "steps": STEPS,
        "stage_batch_sizes": f"{BATCH} 16 {BATCH} {BATCH}",
        "eval_steps": EVAL_STEPS,
        "keep_layers": 2,
        "repeats": 2,
        "embedding_size": 8,
        "learning_rate": 1e-3,
        "dropout": 0.1,
        "bf16": "no",
    }
    if not (parallel / "teacher").exists():
        tiny_model(parallel / "teacher", seed=1)
    files = [str(file) for file in sorted(parallel.glob("*.tsv"))]
    return ["--parallel", *files, *(word for k, v in settings.items() for word in (f"--{k}", *str(v).split())), *more]


def train(given: list[str]) -> dict:
    return script("train_multistage").main(given)


@contextmanager
def rising_scores() -> Iterator[None]:
    """Have a later step score higher, so that the best checkpoint is the last."""

    def score(self, model, *arguments, steps=-1, **options):
        return {self.key: float(steps), "mean_cosine": 0.0}

    with patch.object(CrossLingualEvaluator, "__call__", score), patch.object(BottleneckEvaluator, "__call__", score):
        yield


@contextmanager
def no_training() -> Iterator[None]:
    def refuse(*arguments, **options):
        raise AssertionError("it trains again")

    with patch.object(WholeCheckpoints, "train", refuse):
        yield


@pytest.fixture(scope="module")
def reference(materials, parallel, tmp_path_factory) -> Path:
    """Train all four stages at one go; nothing else writes here."""
    output = tmp_path_factory.mktemp("reference") / "m"
    with rising_scores(), on_one_thread():
        train(words(materials, parallel, output))
    return output


def test_four_stages(materials, parallel, tmp_path, capsys):
    record = train(words(materials, parallel, tmp_path / "m"))
    folders = [tmp_path / "m.stages" / name for name in ("0-start", "1-assistant", "2-bottleneck", "3-recurrent")]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "m", tmp_path / "m.stages"]
    assert sorted((tmp_path / "m.stages").iterdir()) == folders
    runs = [json.loads((folder / "run.json").read_text()) for folder in [*folders, tmp_path / "m"]]
    assert [run.get("stage") for run in runs] == [None, "assistant", "bottleneck", "recurrent", "contrastive"]
    assert runs[-1] == record
    assert [run["steps"] for run in runs[1:]] == [STEPS] * 4
    assert [run["settings"]["batch_size"] for run in runs[1:]] == [BATCH, 16, BATCH, BATCH]
    assert "baseline_explained_variance" in runs[2]["scores"]
    assert "baseline_stsb_dev_and_translation" in record["scores"]
    student = load(tmp_path / "m")
    config = student[0].model.config
    assert (config.model_type, config.num_hidden_layers, config.inner_group_num) == ("albert", 2, 2)
    assert config.hidden_dropout_prob == config.attention_probs_dropout_prob == 0.1
    assert student.max_seq_length == 64
    assert student.encode(["a dog", "собака"]).shape == (2, 32)
    printed = capsys.readouterr()
    said = [line.split()[0] for line in printed.out.splitlines() if not line.startswith("{")]
    assert said == ["folder:", "VERDICT:"] * 4
    assert re.search(r"stage 4 \(contrastive\): [\d,]+ parameters, baseline_stsb_dev_and_translation=", printed.err)


def test_what_is_finished_is_found_again(reference, materials, parallel, capsys):
    with no_training():
        record = train(words(materials, parallel, reference))
        alone = train(words(materials, parallel, reference, "--stages", "2", "3"))
    assert record == json.loads((reference / "run.json").read_text())
    assert alone["stage"] == "recurrent"
    assert capsys.readouterr().err.count(" is there; not trained again") == 6


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
def test_a_resumed_stage_is_the_one_that_never_stopped(stage, reference, materials, parallel, tmp_path):
    given, steps = words(materials, parallel, tmp_path / "m"), itertools.count(1)

    def press(step: int, inputs: object) -> None:
        if next(steps) == (stage - 1) * STEPS + 4:
            signal.raise_signal(signal.SIGINT)

    with rising_scores(), each_step(press), pytest.raises(KeyboardInterrupt, match=f"saved at step 4 of {STEPS}"):
        train(given)
    with pytest.raises(InputError, match="holds an unfinished run; go on with --resume"):
        train(given)
    with rising_scores():
        train([*given, "--resume"])
    assert equal(tmp_path / "m", reference)
    assert equal(tmp_path / "m.stages", reference.with_name("m.stages"))


def test_other_settings_are_not_taken_for_the_same(reference, materials, parallel):
    """A stage that is there would otherwise pass for one of a larger learning rate, or of another assistant."""
    with no_training(), pytest.raises(InputError, match=r"m was trained with other settings \(weight\); add --over"):
        train(words(materials, parallel, reference, "--stages", "4", "--weight", "2"))
    settings = parse(MultistageSettings, words(materials, parallel, reference), "")
    origin = json.loads((reference / "run.json").read_text())["origin"]
    assert finished(stage_settings(settings, 4, NAMES), origin)
    with pytest.raises(InputError, match=r"with other settings \(what it is made of\)"):
        finished(stage_settings(settings, 4, NAMES), {**origin, "start": "another"})


def test_stages_alone_refuse_what_was_made_in_another_shape(reference, materials, parallel):
    """``run.json`` would otherwise tell of settings that the model does not have, or of an assistant not used."""
    alone = words(materials, parallel, reference, "--overwrite", "--stages")
    with (
        no_training(),
        pytest.raises(InputError, match=r"2-bottleneck was made with repeats 2, not 4; set it back, or"),
    ):
        train([*alone, "3", "4", "--repeats", "4"])
    with no_training(), pytest.raises(InputError, match=r"1-assistant was made with vocabulary 150, not 99"):
        train([*alone, "2", "3", "--vocabulary", "99"])
    with no_training(), pytest.raises(InputError, match=r"1-assistant was made with assistant None, not "):
        train([*alone, "2", "--assistant", str(materials.teacher)])
    with no_training(), pytest.raises(InputError, match=r"3-recurrent was made with embedding_size 8, not 12"):
        train([*alone, "4", "--embedding_size", "12"])


def test_a_checkpoint_of_another_assistant_is_not_gone_on_with(reference, materials, parallel, tmp_path):
    """Stopped in stage 3, begun anew with another first stage, stopped there: stage 3's checkpoint is then a stranger.

    It has the same shapes and settings, so that nothing else would tell.
    """
    output, steps = tmp_path / "m", itertools.count(1)

    def stop_after(count: int):
        def press(step: int, inputs: object) -> None:
            if next(steps) == count:
                signal.raise_signal(signal.SIGINT)

        return each_step(press)

    first = words(materials, parallel, output)
    with rising_scores(), stop_after(2 * STEPS + 4), pytest.raises(KeyboardInterrupt):
        train(first)
    other, steps = [*first, "--stage_learning_rates", "1e-2", "1e-3", "1e-3", "1e-3"], itertools.count(1)
    with rising_scores(), stop_after(4), pytest.raises(KeyboardInterrupt):
        train([*other, "--overwrite"])
    kept = [*other, "--resume", "--stages", "1", "2"]
    with rising_scores():
        train([*kept, "--overwrite"])
    with pytest.raises(InputError, match=r"origin was .* and is .*; set it back, or start over with --overwrite"):
        train([*other, "--resume"])
    with rising_scores():
        train([*other, "--resume", "--overwrite"])
    straight = tmp_path / "straight"
    with rising_scores():
        train([*words(materials, parallel, straight), *other[len(first) :]])
    assert equal(output, straight)
    assert not equal(output, reference)


def test_an_assistant_under_another_pooling(materials, parallel, tmp_path, capsys):
    """Its encoder alone is used: without stage 1 the student would learn from a model that nobody made."""
    given = tmp_path / "given"
    encoder = tiny_model(given, seed=3)[0]
    made = SentenceTransformer(modules=[encoder, Pooling(32, pooling_mode="cls"), Dense(32, 32)], device="cpu")
    made.save(str(given))
    more = ["--assistant", str(given), "--steps", "1"]
    with pytest.raises(
        InputError, match=r"given ends in Pooling and Dense, and only its encoder .*; add 1 to --stages"
    ):
        train(words(materials, parallel, tmp_path / "m", *more, "--stages", "2", "3", "4"))
    assert not (tmp_path / "m").exists()
    train(words(materials, parallel, tmp_path / "m", *more, "--stages", "1"))
    assert "given ends in Pooling and Dense" in capsys.readouterr().err


def test_a_model_that_reads_more_than_training_does_is_named(materials, parallel, tmp_path, capsys):
    """The narrow table fits far positions to first order only, and nothing would train them: no score shows it."""
    train(words(materials, parallel, tmp_path / "m", "--steps", "1", "--stages", "1", "--train_max_length", "32"))
    assert "warning: the model will read 64 tokens and training reads 32" in capsys.readouterr().err


def test_each_stage_has_its_own_weight(materials, parallel, tmp_path):
    given = words(materials, parallel, tmp_path / "m", "--stage_weights", "3", "1", "2", "5")
    settings = parse(MultistageSettings, given, "")
    assert [stage_settings(settings, number, NAMES).weight for number in (1, 2, 3, 4)] == [3, 1, 2, 5]
    record = train([*given, "--steps", "1"])
    assert record["loss_settings"] == {"weight": 5}
    assert record["settings"]["stage_weights"] is None


def test_an_assistant_that_is_given(reference, materials, parallel, tmp_path):
    """Stage 1 is left out, and the student has the given one's vocabulary and layers."""
    given = reference.with_name("m.stages") / "1-assistant"
    more = ["--assistant", str(given), "--stages", "2", "3", "4", "--steps", "1"]
    record = train(words(materials, parallel, tmp_path / "m", *more))
    assert record["stage"] == "contrastive"
    assert not (tmp_path / "m.stages" / "1-assistant").exists()
    assert load(tmp_path / "m").tokenizer.get_vocab() == load(given).tokenizer.get_vocab()
    bottleneck = load(tmp_path / "m.stages" / "2-bottleneck")[0].model
    kept = load(given)[0].model.transformer.layer[1]
    assert (bottleneck.encoder.albert_layer_groups[0].albert_layers[1].ffn.weight == kept.ffn.lin1.weight).all()


MISTAKES = {
    "no such stage": (["--stages", "5"], "there is no stage 5; name stages from 1 to 4"),
    "too few values": (["--stage_steps", "1", "2"], "--stage_steps has 2 values; give 4, one a stage"),
    "a stage without its source": (["--stages", "3"], "stage 3 needs what stage 1 makes, and .*1-assistant is not"),
    "nothing to resume": (["--resume"], "nothing to resume: "),
    "too many layers": (["--keep_layers", "9"], "--keep_layers 9 is out of range; the assistant has 2 layers"),
    "too wide a table": (["--embedding_size", "64"], "--embedding_size 64 is out of range"),
    "another width": (["--assistant", "NARROW"], "the teacher's embeddings have 48 dimensions and the assistant's 32"),
    "nothing held out": (["--held_out", "0"], "--held_out 0 is out of range; it must be 1 or more"),
    "no vocabulary": (["--vocabulary", "-1"], "--vocabulary -1 is out of range"),
    "no tokens": (["--max_seq_length", "-5"], "--max_seq_length -5 is out of range; it must be 3 or more"),
    "a dropout": (["--dropout", "1.5"], "--dropout 1.5 is out of range; it must be from 0 to below 1"),
    "a negative weight": (["--weight", "-1"], "--weight -1.0 is out of range"),
    "a weight that is no number": (["--stage_weights", "1", "1", "nan", "1"], "--weight nan is out of range"),
    "a rate that is no number": (["--learning_rate", "nan"], "--learning_rate nan is out of range"),
    "passes that are no number": (["--stage_epochs", "1", "nan", "1", "1", "--steps", "-1"], "--epochs nan with --st"),
    "one column for both": (["--other_column", "english"], "--other_column english is the English one too"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_before_anything_is_written(mistake, materials, parallel, tmp_path):
    more, message = MISTAKES[mistake]
    if "NARROW" in more:
        more = ["--assistant", str(materials.backbone), "--teacher", str(materials.teacher)]
    with pytest.raises(InputError, match=message):
        train(words(materials, parallel, tmp_path / "m", *more))
    assert not any(tmp_path.iterdir())


def test_a_vocabulary_too_small_is_said(materials, parallel, tmp_path):
    with pytest.raises(InputError, match="--vocabulary 20 cannot hold every character"):
        train(words(materials, parallel, tmp_path / "m", "--vocabulary", "20"))


def held_out_pairs() -> Dataset:
    rows = [("a dog", "a dog"), ("the cat sleeps", "the cat sleeps"), ("a red fish", "a blue river"), ("a bird", "x y")]
    return Dataset.from_list(
        [{"english": e, "other": o, "language": "de" if i < 3 else "fr"} for i, (e, o) in enumerate(rows)]
    )


def test_the_cross_lingual_score(materials, tmp_path):
    """Spearman and the share of sentences whose English side is the nearest, against plain numpy."""
    model = load_teacher(str(materials.teacher), device="cpu")
    dev = Dataset.from_list([json.loads(line) for line in materials.pairs.read_text().splitlines()])
    scores = CrossLingualEvaluator(dev, held_out_pairs())(model)
    english, other = (model.encode(held_out_pairs()[side][:3]) for side in ("english", "other"))
    nearest = [max(range(3), key=lambda i, row=row: float(row @ english[i])) for row in other]
    assert (
        scores["accuracy"] == scores["accuracy_de"] == pytest.approx(100 * np.mean([nearest[i] == i for i in range(3)]))
    )
    assert 0 < scores["accuracy"] <= 100
    assert scores["cross_lingual"] == pytest.approx((scores["spearman"] + scores["accuracy"]) / 2)
    assert "accuracy_fr" not in scores
    with pytest.raises(InputError, match="no language has two held-out pairs"):
        CrossLingualEvaluator(dev, held_out_pairs().select([0, 3]))


def test_the_bottleneck_score(materials):
    """100 for the assistant itself; for a student the share of the variance, against plain numpy."""
    assistant = load_teacher(str(materials.teacher), device="cpu")
    dev = Dataset.from_dict({"sentence1": ["a"], "sentence2": ["b"], "score": [1.0]})
    evaluator = BottleneckEvaluator(dev, held_out_pairs(), assistant, batch_size=3)
    assert evaluator(assistant) == {"explained": pytest.approx(100)}
    student = recurrent_student(assistant, 1, 1, 8).train()
    texts = [*held_out_pairs()["english"], *held_out_pairs()["other"]]
    found = []
    for model in (student, assistant):
        encoder = model[0].model.eval()
        rows = []
        for text in texts:
            ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
            layer = encoder.embeddings(ids)
            if model is student:
                layer = encoder.encoder.embedding_hidden_mapping_in(layer)
            rows.append(layer[0].mean(0).detach().double().numpy())
        found.append(np.array(rows))
    student.train()
    ours, theirs = found
    expected = 1 - ((ours - theirs) ** 2).sum() / ((theirs - theirs.mean(0)) ** 2).sum()
    assert evaluator(student)["explained"] == pytest.approx(100 * expected, abs=1e-3)
    assert student.training


def test_a_short_stage_embeds_only_what_it_reads(materials, parallel, tmp_path):
    """Half the pairs or more are one text, embedded once for the stages that share a teacher; fewer are a draw."""
    settings = parse(MultistageSettings, words(materials, parallel, tmp_path, "--stage_steps", "9", "2", "3", "4"), "")
    pairs, held_out = held_out_split(read_parallel(settings.data), settings.held_out)
    made = StageMaterials(settings, pairs, held_out, Dataset.from_dict({}), load_teacher(settings.teacher))
    assert BATCH == 8
    assert len(pairs) == 72
    assert made.part(1) is pairs, "9 steps of 8"
    assert len(made.part(2)) == 32, "2 steps of 16"
    drawn = made.part(3)
    assert len(drawn) == 24, "3 steps of 8: fewer than half"
    assert len({(row["english"], row["language"]) for row in drawn}) == 24, "each once"
    assert {row["english"] for row in drawn} <= set(pairs["english"])
    assert drawn["english"][:] != pairs["english"][:24], "drawn, not the first"
    assert drawn["english"][:] == made.part(3)["english"][:], "the same at a resume"


def test_the_stages_are_scored_beside_the_teacher(materials, parallel, tmp_path, capsys):
    """Sizes are counted here by hand, and each mean is of the scores that mteb gives the reloaded folders."""
    stsb, sts17 = tmp_path / "stsb", tmp_path / "sts17"
    for i, name in enumerate(["en-de", "en-ru", "de-de", "ru-ru", "en-en"]):
        write_pairs(stsb / f"{name}.jsonl", PAIRS[i % 3 :])
    for i, name in enumerate(["en-de", "es-es"]):
        write_pairs(sts17 / f"{name}.jsonl", PAIRS[i:])
    output = tmp_path / "models" / "xx"
    train(words(materials, parallel, output))
    places = ["--stsb-dir", str(stsb), "--sts17-dir", str(sts17), "--cache-dir", str(tmp_path / "cache")]
    given = ["--model", str(output), *places, "--output", str(tmp_path / "r.json")]
    result = crosslingual.main(given)
    assert result == json.loads((tmp_path / "r.json").read_text())
    rows = {row["stage"]: row for row in result["models"]}
    assert list(rows) == ["teacher", *NAMES]
    student = load(output)
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
    model = load(output)
    pairs = PAIRS[1:]
    sides = [model.encode([pair[side] for pair in pairs], normalize_embeddings=True) for side in (0, 1)]
    expected = 100 * spearmanr((sides[0] * sides[1]).sum(1), [pair[2] for pair in pairs]).statistic
    assert rows["contrastive"]["scores"]["STSBenchmarkCrosslingualSTS (en-ru)"] == pytest.approx(expected, abs=1e-2)
    assert "contrastive" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"is not a folder of training/train_multistage\.py; give --model one"):
        crosslingual.main([*given, "--model", str(parallel / "teacher")])
