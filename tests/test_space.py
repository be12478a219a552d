"""Students of several teachers, and of a rotated one: the space against numpy, the run, the card, the evaluation."""

import logging
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from datasets import Dataset
from refusals import refusal
from runs import Materials, stopped_at, train
from scipy.linalg import orthogonal_procrustes
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from suites import write_search
from tiny import sentences, tiny_model

from distilface.cards.card import make_card
from distilface.embedding import space as module
from distilface.embedding.axes import fit_axes
from distilface.embedding.space import make_space
from distilface.embedding.turns import Turns, fit_turns
from distilface.evaluation.reports import compare
from distilface.methods import find_method
from distilface.model.folder import load
from distilface.model.loading import load_model
from distilface.routing import route
from distilface.run import read_run
from distilface.settings import InputError, parse
from distilface.training.teacher import load_teacher

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache", "in_fp32")


@pytest.fixture
def in_fp32(monkeypatch):
    """Have the teachers compute in fp32, also where the processor multiplies bf16: exact cosines are compared."""
    monkeypatch.setattr("distilface.embedding.teacher_cache.has_bf16", lambda: False)


TEXTS = list(dict.fromkeys(sentences(120)))[:80]


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Save a teacher of 32 numbers of any length, one of 20 of unit length, and one of 32 of unit length."""
    folder = tmp_path_factory.mktemp("teachers")
    tiny_model(folder / "a", seed=5)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        modules = {
            "b": [*tiny_model(folder / "b0", seed=6), Dense(32, 20), Normalize()],
            "c": [*tiny_model(folder / "c0", seed=7), Normalize()],
        }
    for name, parts in modules.items():
        SentenceTransformer(modules=parts, device="cpu").save_pretrained(str(folder / name), create_model_card=False)
    return [folder / name for name in ("a", "b", "c")]


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _labels(rows: Dataset) -> np.ndarray:
    return np.asarray(rows["label"][:], np.float64)


def _encoded(folder: Path) -> np.ndarray:
    return load_teacher(str(folder)).encode(TEXTS).astype(np.float64)


def test_axes_are_the_singular_vectors():
    """Of the rows as they are: with the mean taken off, cosines would be those of other vectors."""
    rows = np.random.default_rng(0).normal(size=(5000, 7)) * np.arange(1, 8) + 3
    axes = fit_axes(rows, 4)
    _, values, vectors = np.linalg.svd(rows, full_matrices=False)
    np.testing.assert_allclose(np.abs(axes.directions), np.abs(vectors[:4].T), atol=1e-5)
    assert (axes.directions[np.abs(axes.directions).argmax(0), range(4)] > 0).all()
    assert axes.kept(4) == pytest.approx((values[:4] ** 2).sum() / (values**2).sum())
    assert axes.kept(7) == pytest.approx(1)


def test_joined_cosines_are_the_mean_of_the_teachers(teachers, tmp_path):
    texts = Dataset.from_dict({"text": TEXTS})
    models = [load_teacher(str(folder)) for folder in teachers[:2]]
    rows, space = make_space(models, texts, None, tmp_path)
    both = [_unit(_encoded(folder)) for folder in teachers[:2]]
    np.testing.assert_allclose(_labels(rows) @ _labels(rows).T, sum(each @ each.T for each in both) / 2, atol=1e-5)
    assert rows["text"][:] == TEXTS
    assert space.as_dict() == {"teachers": 2, "of": 52, "width": 52, "rotated": False}
    np.testing.assert_allclose(space.encode(TEXTS[:5]), _labels(rows)[:5], atol=1e-5)


@pytest.mark.parametrize("shard", [16_384, 13])
def test_principal_axes_of_joined_teachers(teachers, tmp_path, monkeypatch, shard):
    """By a singular value decomposition; a student is measured against all numbers, also those that it leaves out."""
    monkeypatch.setattr(module, "SHARD", shard)
    models = [load_teacher(str(folder)) for folder in teachers[:2]]
    rows, space = make_space(models, Dataset.from_dict({"text": TEXTS}), 12, tmp_path)
    joined = np.concatenate([_unit(_encoded(folder)) for folder in teachers[:2]], axis=1) / np.sqrt(2)
    _, values, vectors = np.linalg.svd(joined, full_matrices=False)
    expected = _unit(joined @ vectors[:12].T)
    np.testing.assert_allclose(_labels(rows) @ _labels(rows).T, expected @ expected.T, atol=1e-4)
    share = (values[:12] ** 2).sum() / (values**2).sum()
    assert space.as_dict()["explained_variance"] == {"12": pytest.approx(share, abs=1e-4)}
    np.testing.assert_allclose(space.encode(TEXTS[:5]), joined[:5], atol=1e-5)
    np.testing.assert_allclose(space.known(np.array([70, 3])), joined[[70, 3]], atol=1e-5)


@pytest.mark.parametrize("which", [0, 2])
def test_a_rotation_keeps_every_cosine(teachers, tmp_path, which):
    """And every length: the first numbers alone then keep the most of both that so many can."""
    rows, space = make_space([load_teacher(str(teachers[which]))], Dataset.from_dict({"text": TEXTS}), 32, tmp_path)
    own, seen = _encoded(teachers[which]), _labels(rows)
    np.testing.assert_allclose(seen @ seen.T, own @ own.T, atol=1e-4)
    assert np.abs(seen - own).max() > 0.1
    strengths = (seen**2).mean(0)
    assert (np.diff(strengths) < 1e-6).all()
    pairs = np.triu_indices(len(TEXTS), 1)

    def cosines(vectors):
        return (_unit(vectors) @ _unit(vectors).T)[pairs]

    assert spearmanr(cosines(seen[:, :8]), cosines(own))[0] > spearmanr(cosines(own[:, :8]), cosines(own))[0]
    assert space.as_dict()["explained_variance"] == {"32": 1.0}


def test_the_axes_are_kept_with_the_targets(teachers, tmp_path, monkeypatch):
    """A fit on another machine may turn an axis round: half of the targets would then be of another space, silently."""
    monkeypatch.setattr(module, "SHARD", 30)
    models, texts = [load_teacher(str(teachers[0]))], Dataset.from_dict({"text": TEXTS})
    first, space = make_space(models, texts, 32, tmp_path)
    before = _labels(first)
    next(tmp_path.glob("space-*/000000001.arrow")).unlink()
    monkeypatch.setattr(module, "fit_axes", lambda *arguments: pytest.fail("fitted again"))
    again, same = make_space(models, texts, 32, tmp_path)
    np.testing.assert_array_equal(_labels(again), before)
    assert same.origin == space.origin != None  # noqa: E711


def test_the_others_are_turned_into_the_first_space(teachers, tmp_path):
    """By scipy's Procrustes, where the widths are the same."""
    models = [load_teacher(str(teachers[number])) for number in (2, 0)]
    rows, space = make_space(models, Dataset.from_dict({"text": TEXTS}), None, tmp_path, of_the_first=True)
    first, other = (_unit(_encoded(teachers[number])) for number in (2, 0))
    turned = other @ orthogonal_procrustes(other, first)[0]
    np.testing.assert_allclose(_labels(rows), _unit(first + turned), atol=1e-4)
    np.testing.assert_allclose(space.encode(TEXTS[:5]), _labels(rows)[:5], atol=1e-5)
    np.testing.assert_allclose(space.known(np.array([70, 3])), _labels(rows)[[70, 3]], atol=1e-5)
    half = other @ orthogonal_procrustes(other[::2], first[::2])[0]
    cosine, target = ((_unit(rows) * first)[1::2].sum(1).mean() for rows in (half, first + half))
    assert space.as_dict() == {
        **{"teachers": 2, "of": 64, "width": 32, "rotated": False, "of_the_first": True},
        "turned_cosines": [pytest.approx(cosine, abs=1e-3)],
        "target_cosine": pytest.approx(target, abs=1e-3),
    }
    assert f"mean cosine to its vectors {cosine:.3f}; of the targets {target:.3f}" in str(space)


@pytest.mark.parametrize("shard", [16_384, 13])
def test_of_some_texts_the_first_teacher_is_learned_alone(teachers, tmp_path, monkeypatch, shard):
    """The other has not embedded them, and the turn is of the rest."""
    monkeypatch.setattr(module, "SHARD", shard)
    read, embed = [], module.embed
    monkeypatch.setattr(
        module,
        "embed",
        lambda teacher, texts, *more, **named: read.append(texts["text"][:]) or embed(teacher, texts, *more, **named),
    )
    models, alone = [load_teacher(str(teachers[number])) for number in (0, 2)], np.arange(80) % 8 == 3
    texts = Dataset.from_dict({"text": TEXTS})
    rows, space = make_space(models, texts, None, tmp_path, of_the_first=True, alone=alone)
    first, other = (_unit(_encoded(teachers[number])) for number in (0, 2))
    turned = other @ orthogonal_procrustes(other[~alone], first[~alone])[0]
    expected = np.where(alone[:, None], first, _unit(first + turned))
    np.testing.assert_allclose(_labels(rows), expected, atol=1e-4)
    assert rows["text"][:] == TEXTS
    np.testing.assert_allclose(space.known(np.array([70, 3, 11])), expected[[70, 3, 11]], atol=1e-4)
    np.testing.assert_allclose(space.known(np.array([3, 11])), first[[3, 11]], atol=1e-5)
    assert read == [TEXTS, [text for text, is_alone in zip(TEXTS, alone, strict=True) if not is_alone]]
    assert space.as_dict()["first_alone"] == 10
    assert str(space).endswith("; of 10 texts the first's alone")
    more, _ = make_space(models, texts, None, tmp_path, of_the_first=True, alone=np.arange(80) % 8 == 4)
    np.testing.assert_allclose(_labels(more)[4], first[4], atol=1e-5)  # not what was kept for the other mark


def test_too_few_texts_are_not_turned():
    """Of fewer than numbers, some turn brings any vectors on any others."""
    rows = np.eye(32, dtype=np.float32)[:31]
    with pytest.raises(InputError, match="31 texts are too few to turn a teacher's 32 numbers into another's space"):
        fit_turns([rows, rows])


def test_three_teachers_are_turned_in_their_order():
    random = np.random.default_rng(1)
    first = _unit(random.normal(size=(200, 8)))
    rotations = [np.linalg.qr(random.normal(size=(8, 8)))[0] for _ in range(2)]
    turns = fit_turns([rows.astype(np.float32) for rows in (first, first @ rotations[0], first @ rotations[1])])
    np.testing.assert_allclose(turns.maps, [rotation.T for rotation in rotations], atol=1e-4)
    np.testing.assert_allclose(turns.cosines, [1, 1], atol=1e-4)


@pytest.mark.parametrize("numbers", [(2, 1), (1, 2)])
def test_teachers_of_other_widths_are_turned_too(teachers, tmp_path, numbers):
    """No such map has a larger sum of inner products with the first teacher's; a narrower one keeps its cosines."""
    first, other = (_unit(_encoded(teachers[number])) for number in numbers)
    turn = fit_turns([first.astype(np.float32), other.astype(np.float32)]).maps[0].astype(np.float64)
    assert turn.shape == (other.shape[1], first.shape[1])
    small = turn @ turn.T if len(turn) < len(turn.T) else turn.T @ turn
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-5)
    reached, random = ((other @ turn) * first).sum(), np.random.default_rng(0)
    for _ in range(20):
        nudged = turn + 0.05 * random.normal(size=turn.shape)
        left, _, right = np.linalg.svd(nudged, full_matrices=False)
        assert ((other @ (left @ right)) * first).sum() < reached
    values = np.linalg.svd(other.T @ first, compute_uv=False)
    assert reached == pytest.approx(values.sum(), rel=1e-4)


def test_the_turns_are_kept_with_the_targets(teachers, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 30)
    models, texts = [load_teacher(str(teachers[number])) for number in (2, 1)], Dataset.from_dict({"text": TEXTS})
    first, space = make_space(models, texts, None, tmp_path, of_the_first=True)
    before = _labels(first)
    next(tmp_path.glob("space-*/000000001.arrow")).unlink()
    monkeypatch.setattr(module, "fit_turns", lambda *arguments: pytest.fail("fitted again"))
    again, same = make_space(models, texts, None, tmp_path, of_the_first=True)
    np.testing.assert_array_equal(_labels(again), before)
    assert same.origin == space.origin != None  # noqa: E711


def _words(materials: Materials, output: Path, teachers, *more: str) -> list[str]:
    own = ["--projection", "false", "--cache_dir", str(output.with_name("cache")), *more]
    return materials.words("embedding", output, "--teacher", *map(str, teachers), *own)


@pytest.fixture(scope="module")
def of_two(materials: Materials, teachers, tmp_path_factory) -> tuple[Path, dict]:
    """Train a student of two teachers."""
    from tiny import on_one_thread

    folder = tmp_path_factory.mktemp("two") / "m"
    with on_one_thread():
        return folder, train("embedding", _words(materials, folder, [teachers[0], teachers[2]]))


def test_a_student_of_two_teachers(of_two, teachers):
    folder, run = of_two
    names = [str(teachers[0]), str(teachers[2])]
    assert run["teacher"] == run["settings"]["teacher"] == names
    assert [source["name"] for source in run["sources"] if source["role"] == "teacher"] == names
    space = run["space"]
    assert (space["teachers"], space["of"], space["width"], space["rotated"]) == (2, 64, 32, True)
    assert 0.5 < space["explained_variance"]["32"] <= 1
    assert run["agreement"]["after"]["cosine"] is None  # the teachers together have twice the width
    assert isinstance(list(load(folder))[-1], Normalize)
    assert read_run(folder / "run.json").space == space


def test_the_card_says_whose_space_it_is(of_two):
    card, _ = make_card(of_two[0])
    share = f"{100 * of_two[1]['space']['explained_variance']['32']:.2f}"
    assert (
        "It has learned a space of its own: the vectors of 2 teachers, each of unit length, side by side (64 numbers), "
        "on the 32 strongest of their principal axes. It cannot search what a teacher has embedded. "
        f"Of the squared length of these vectors the first 32 numbers hold {share}%." in card.replace("\n", " ")
    )
    assert "it agrees with its teachers together so" in card


def test_it_does_not_search_a_teachers_index(of_two, teachers, tmp_path, caplog):
    """Of the same width, it would be scored there as if the numbers of both meant the same."""
    caplog.set_level(logging.INFO, logger="distilface")
    report = compare(str(of_two[0]), None, list(write_search(tmp_path)), teacher=str(teachers[2]))
    assert not [row for row in report["scores"] if "index" in row]
    assert "it cannot search its teacher's index" in caplog.text


def _in_the_first(materials: Materials, output: Path, teachers, *more: str) -> list[str]:
    text = output.with_name("texts.txt")
    text.write_text("\n".join(TEXTS))
    return _words(materials, output, teachers, "--teacher_space", "first", "--data", str(text), *more)


@pytest.fixture(scope="module")
def in_the_first(materials: Materials, teachers, tmp_path_factory) -> tuple[Path, dict]:
    """Train a student of two teachers in the space of the first."""
    from tiny import on_one_thread

    folder = tmp_path_factory.mktemp("first") / "m"
    words = _in_the_first(materials, folder, [teachers[2], teachers[1]], "--steps", "60")
    with on_one_thread():
        return folder, train("embedding", words)


def test_a_student_in_the_space_of_the_first(in_the_first, teachers, tmp_path):
    """It searches what the first of its teachers has embedded."""
    folder, run = in_the_first
    assert run["teacher"] == [str(teachers[2]), str(teachers[1])]
    assert run["space"]["of_the_first"]
    assert run["agreement"]["after"]["cosine"] > run["agreement"]["before"]["cosine"] + 0.1
    report = compare(str(folder), None, list(write_search(tmp_path)))
    metric = "nDCG@10, in the teacher's index"
    assert "teacher" in report["scores"]["nDCG@10"]
    assert "model" in report["scores"][metric]
    students = {"trained": folder, "untrained": Path(run["settings"]["backbone"])}
    near = {name: (_unit(_encoded(each)) * _encoded(teachers[2])).sum(1).mean() for name, each in students.items()}
    assert near["trained"] > near["untrained"] + 0.1
    sides = load_model(str(route(str(folder), str(tmp_path / "router"))))
    np.testing.assert_allclose(sides.encode_document(TEXTS[:3]), _encoded(teachers[2])[:3], atol=1e-5)
    with pytest.raises(InputError, match="has learned the space of"):
        route(str(folder), str(tmp_path / "other"), str(teachers[0]))


def test_text_to_search_with_is_the_first_teachers(materials, teachers, tmp_path):
    """Also a sentence that stands among the other text; run.json and the card name both sources."""
    (tmp_path / "search").mkdir()
    search = tmp_path / "search/queries.csv"
    search.write_text("\n".join(["query", *TEXTS[:3], "who sat on the mat", "where is the cat"]) + "\n")
    words = _in_the_first(materials, tmp_path / "m", [teachers[2], teachers[0]], "--search_data", str(search.parent))
    run = train("embedding", [*words, "--text_column", "query"])
    assert run["space"]["first_alone"] == 5
    assert [source["name"] for source in run["sources"] if source["role"] == "data"] == [
        *(str(tmp_path / name) for name in ("texts.txt", "search"))
    ]
    assert run["data"][2]["rows"] == len(TEXTS) + 2
    card = make_card(tmp_path / "m")[0].replace("\n", " ")
    assert "Of 5 of the texts it has learned this teacher's vectors alone." in card
    assert f"Training text, {len(TEXTS) + 2} distinct sentences in all" in card
    assert "| `search_data` | `search` |" in card


@pytest.mark.parametrize("left", [0, 40])
def test_too_few_texts_beside_those_to_search_with_are_refused(materials, teachers, tmp_path, left):
    words = _in_the_first(materials, tmp_path / "m", [teachers[2], teachers[0]])
    (tmp_path / "most.txt").write_text("\n".join(TEXTS[left:]))
    settings = parse(find_method("distill").Settings, [*words, "--search_data", str(tmp_path / "most.txt")], "")
    problem = refusal(find_method("distill").train, settings)
    assert f"{left} texts are too few to turn a teacher's 32 numbers into another's space; give 64, beside" in problem
    assert not (tmp_path / "cache").exists(), "no teacher has embedded any"


def test_text_to_search_with_beside_a_data_set(materials, teachers, tmp_path, caplog):
    """Of pandas, which has strings of its own; and what a student reads alike keeps the mark of the first."""
    data = Dataset.from_pandas(pandas.DataFrame({"text": [text.upper() for text in TEXTS]}))
    search = tmp_path / "queries.csv"
    search.write_text("\n".join(["query", *TEXTS[:3], "who sat on the mat"]) + "\n")
    words = _in_the_first(materials, tmp_path / "m", [teachers[2], teachers[0]], "--metric", "cosine")
    more = ["--search_data", str(search), "--text_column", "query", "--relation_weight", "0.6"]
    run = find_method("distill").train(parse(find_method("distill").Settings, [*words, *more], ""), data)
    assert run["space"]["first_alone"] == 4
    assert next(entry["rows"] for entry in run["data"] if "rows" in entry) == len(TEXTS) + 1
    assert "--text_column" not in caplog.text
    assert find_method("distill").Settings(search_data="a.txt").search_data == ["a.txt"]


def test_another_of_its_teachers_is_no_index(in_the_first, teachers, tmp_path):
    report = compare(str(in_the_first[0]), None, list(write_search(tmp_path)), teacher=str(teachers[0]))
    assert "teacher" in report["scores"]["nDCG@10"]
    assert not [metric for metric in report["scores"] if "index" in metric]


def test_the_card_names_the_first(in_the_first, teachers):
    """And not the folder in which it lies."""
    folder, run = in_the_first
    card = make_card(folder)[0].replace("\n", " ")
    assert "It has learned from 2 teachers in the space of `c`, whose vectors it can search" in card
    assert f"a mean cosine of {run['space']['target_cosine']:.3f} to this teacher's own." in card
    assert "it agrees with the sum of its teachers so" in card
    assert "It cannot search" not in card
    assert str(teachers[2]) not in card


def test_other_turns_are_not_gone_on_with(materials, teachers, tmp_path):
    words = _in_the_first(materials, tmp_path / "m", [teachers[2], teachers[0]])
    with stopped_at(5):
        train("embedding", words)
    file = next(tmp_path.glob("cache/space-*/turns.npz"))
    kept = Turns.load(file)
    Turns([-kept.maps[0]], kept.cosines, kept.target_cosine).save(file)
    with pytest.raises(InputError, match="--resume with changed settings: origin was"):
        train("embedding", [*words, "--resume"])


def test_a_rotated_student_is_measured_in_its_space(materials, teachers, tmp_path):
    run = train("embedding", _words(materials, tmp_path / "m", [teachers[2]], "--rotate", "true", "--steps", "60"))
    assert run["space"]["explained_variance"] == {"32": 1.0}
    assert run["teacher"] == run["settings"]["teacher"] == str(teachers[2])
    assert run["agreement"]["after"]["cosine"] > run["agreement"]["before"]["cosine"] + 0.1


def test_other_axes_are_not_gone_on_with(materials, teachers, tmp_path):
    """A cache that was lost comes back with axes that may differ: the student would begin to learn another space."""
    words = _words(materials, tmp_path / "m", [teachers[2]], "--rotate", "true")
    with stopped_at(5):
        train("embedding", words)
    file = next(tmp_path.glob("cache/space-*/axes.npz"))
    module.Axes(-module.Axes.load(file).directions, module.Axes.load(file).strengths).save(file)
    with pytest.raises(InputError, match="--resume with changed settings: origin was"):
        train("embedding", [*words, "--resume"])


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--teacher", "none"], "--teacher none leaves nothing to learn from"),
        (["--teacher_space", "first"], "--teacher_space first turns other teachers into the first one's space"),
        (
            ["--teacher", "TEACHER_B", "TEACHER_A", "--teacher_space", "first"],
            "have 20 dimensions and the student's 32",
        ),
        (
            ["--search_data", "q.txt"],
            "--search_data is text of which the first of several teachers is learned alone; add",
        ),
        (["--teacher_space", "second"], "unknown value of --teacher_space 'second'"),
        *(
            (["--teacher", "TEACHER_A", "TEACHER_B", "--teacher_space", "first", *words], "--teacher_space first turns")
            for words in (["--rotate", "true"], ["--projection", "true"], ["--truncate_dim", "8"])
        ),
        (["--teacher", "TEACHER_B", "--rotate", "true"], "have 20 dimensions together and the student's 32"),
        (["--teacher", "a", "http://127.0.0.1:9/v1"], "does not say which model of the endpoint"),
    ],
)
def test_teachers_that_cannot_be_are_refused(materials, teachers, tmp_path, words, problem):
    words = [{"TEACHER_A": str(teachers[0]), "TEACHER_B": str(teachers[1])}.get(word, word) for word in words]
    method = find_method("distill")
    settings = parse(method.Settings, [*_words(materials, tmp_path / "m", [teachers[0]]), *words], "")
    assert problem in refusal(method.train, settings)


def test_one_teacher_needs_no_list(tmp_path):
    """In a program, or in a recipe that was written when there could be no other."""
    cls = find_method("distill").Settings
    assert parse(cls, [], "", {"teacher": "a/b"}).teacher == ["a/b"]
    (tmp_path / "own.yaml").write_text("teacher: a/b\n")
    assert parse(cls, ["--config", str(tmp_path / "own.yaml")], "").teacher == ["a/b"]
