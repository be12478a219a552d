"""The agreement of a student with its teacher, against scipy and scikit-learn on the whole matrices."""

import math

import numpy as np
import pytest
from oracles import off_diagonal_cosines
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr
from sklearn.neighbors import NearestNeighbors
from tiny import tiny_model

from distilface.embedding.agreement import Agreement, agreement
from distilface.training.evaluators import AgreementEvaluator


def _pair(rows: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    teacher = random.normal(size=(rows, 16)).astype(np.float32)
    return teacher, (teacher @ random.normal(size=(16, width)) + random.normal(size=(rows, width))).astype(np.float32)


def _neighbours(embeddings: np.ndarray, count: int) -> np.ndarray:
    rows = embeddings.astype(np.float64)
    return NearestNeighbors(n_neighbors=count, metric="cosine").fit(rows).kneighbors(return_distance=False)


@pytest.mark.parametrize(("rows", "width"), [(700, 8), (700, 16), (12, 8), (11, 8), (5, 16), (3, 4)])
def test_it_is_what_scipy_and_sklearn_say(rows: int, width: int):
    """700 rows take two blocks; of 11 texts and fewer, each has all the others as neighbours."""
    teacher, student = _pair(rows, width)
    result = agreement(teacher, student)
    count = min(10, rows - 1)
    near, other = _neighbours(teacher, count), _neighbours(student, count)
    recall = np.mean([len({*a} & {*b}) / count for a, b in zip(near, other, strict=True)])
    assert result.recall == pytest.approx(100 * recall)
    pairs = [1 - pdist(array.astype(np.float64), "cosine") for array in (teacher, student)]
    assert result.spearman == pytest.approx(100 * spearmanr(*pairs).statistic, abs=1e-6)
    if width == 16:
        rows_cosine = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(teacher, student, strict=True)]
        assert result.cosine == pytest.approx(np.mean(rows_cosine), abs=1e-6)
    else:
        assert result.cosine is None


def test_a_model_agrees_with_itself():
    teacher, _ = _pair(40, 16)
    assert agreement(teacher, 3 * teacher).as_dict() == {"cosine": 1.0, "spearman": 100.0, "recall": 100.0}


def test_equal_texts_tie():
    """A product of matrices gives equal rows different last bits; a copy of the model must still agree wholly."""
    teacher, _ = _pair(50, 16)
    doubled = np.concatenate([teacher] * 12)
    assert agreement(doubled, doubled[:, ::-1].copy()).recall == 100


def test_a_collapsed_student_has_no_ranking(recwarn: pytest.WarningsRecorder):
    teacher, _ = _pair(30, 16)
    result = agreement(teacher, np.ones((30, 16)))
    assert math.isnan(result.spearman)
    assert result.as_dict()["spearman"] is None
    assert not recwarn.list


def test_an_embedding_that_is_not_finite_gives_nan():
    """NaN sorts last: without a word the recall would be some number, and a broken checkpoint might be chosen."""
    teacher, student = _pair(30, 8)
    student[3, 2] = np.nan
    result = agreement(teacher, student)
    assert result.cosine is None
    assert math.isnan(result.spearman)
    assert math.isnan(result.recall)
    assert Agreement(math.nan, 1.0, 2.0).as_dict() == {"cosine": None, "spearman": 1.0, "recall": 2.0}


def test_a_zero_vector_is_no_neighbour_of_any():
    teacher, _ = _pair(30, 16)
    teacher[4] = 0
    assert agreement(teacher, teacher).cosine == pytest.approx(29 / 30)


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((2, 3), (2, 3)), ((4, 3), (4,))])
def test_other_texts_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    with pytest.raises(ValueError, match="three or more"):
        agreement(np.ones(shapes[0]), np.ones(shapes[1]))


def test_a_score_is_of_one_pass_over_the_texts(tmp_path, monkeypatch):
    """A large teacher's pass takes minutes, and that of one behind an endpoint may have to be paid for."""
    texts = [f"text {number}" for number in range(300)]
    model, (teacher, own) = tiny_model(tmp_path / "m"), _pair(len(texts), 16)
    passes = []
    monkeypatch.setattr(model, "encode", lambda read, **_: passes.append(read) or own)
    evaluator = AgreementEvaluator(texts, teacher)
    scores = evaluator(model)
    near, other = _neighbours(teacher, 10), _neighbours(own, 10)
    recall = np.mean([len({*a} & {*b}) / 10 for a, b in zip(near, other, strict=True)])
    assert scores["recall"] == evaluator.score(model) == pytest.approx(100 * recall, abs=1e-4)
    assert scores["mean_cosine"] == pytest.approx(off_diagonal_cosines(own[:256]).mean(), abs=1e-6)
    assert passes == [texts, texts]
