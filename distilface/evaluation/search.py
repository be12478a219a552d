"""Your own search, scored by mteb: the teacher, the model, its exported files, BM25."""

import logging
from collections.abc import Mapping
from typing import Any

import mteb
from mteb.abstasks import AbsTask

from distilface.evaluation.comparison import local_scores, teacher_index
from distilface.evaluation.local_tasks import KINDS, make_task
from distilface.evaluation.mteb_model import CachedModel
from distilface.evaluation.search_files import Search
from distilface.extras import Extra
from distilface.runtimes.base import Encoder

logger = logging.getLogger(__name__)

BM25 = "bm25"
_BM25 = Extra("BM25's scores", ("bm25s", "Stemmer"), "search")
#: What mteb calls each metric of a search.
METRICS = {"nDCG@10": "ndcg_at_10", "recall@10": "recall_at_10", "recall@100": "recall_at_100"}


def score_search(
    encoders: Mapping[str, Encoder], search: Search, batch_size: int = 32, *, shared: bool = True
) -> dict[str, dict[str, float]]:
    """Score encoders, and BM25 where its packages are installed, on a search.

    Args:
        encoders: by their names (:func:`distilface.evaluation.encoders.open_encoders`).
        search: of :func:`distilface.evaluation.search_files.read_search`.
        batch_size: texts in a batch.
        shared: whether the model has its teacher's space.

    Returns:
        Of each metric, and of each in the teacher's index, the scores by the encoders' names, times 100.

    Raises:
        InputError: on a model whose embeddings are all alike, or not finite.
    """
    task = make_task("search", KINDS["retrieval"], search.data, {"path": "local", "revision": "local"})
    models = {name: CachedModel(encoder) for name, encoder in encoders.items()}
    scores: dict[str, dict[str, float]] = {}
    for name, model in models.items():
        logger.info(f"{name}: {len(search.queries)} queries among {len(search.documents)} documents")
        _add(scores, name, "", model, task, batch_size)
        if index := teacher_index(models, name, shared):
            _add(scores, name, ", in the teacher's index", index, task, batch_size)
    if _BM25.missing:
        logger.warning("BM25 is not compared: pip install 'distilface[search]' brings its packages")
    else:
        _add(scores, BM25, "", mteb.get_model("mteb/baseline-bm25s"), task, batch_size)
    order = [f"{metric}{where}" for metric in METRICS for where in ("", ", in the teacher's index")]
    return {row: scores[row] for row in order if row in scores}


def _add(
    scores: dict[str, dict[str, float]], name: str, where: str, model: Any, task: AbsTask, batch_size: int
) -> None:
    main, more = local_scores(model, task, "retrieval", batch_size)
    for metric, key in METRICS.items():
        scores.setdefault(f"{metric}{where}", {})[name] = {**more, KINDS["retrieval"].score: main}[key]
