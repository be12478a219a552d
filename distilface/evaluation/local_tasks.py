"""mteb's classes of tasks over local data: the evaluators and metrics are mteb's own."""

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, DatasetDict
from mteb._evaluators import ClusteringEvaluator
from mteb.abstasks import AbsTask, AbsTaskClassification, AbsTaskPairClassification, AbsTaskRetrieval
from mteb.abstasks.clustering_legacy import AbsTaskClusteringLegacy
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

#: How often a data set is clustered, each time in another order of its rows; the score is the mean.
ORDERS = 10


class _Local:
    """A task that holds its data; mteb's own tasks name theirs in a class."""

    dataset: Any

    def __init__(self, metadata: TaskMetadata, data: Any, **settings: Any) -> None:
        self.metadata = metadata
        super().__init__()
        self.dataset = {"default": data}
        self.data_loaded = True
        vars(self).update(settings)


class LocalClassification(_Local, AbsTaskClassification):
    """Logistic regression on 10 draws of ``samples_per_label`` of the training rows."""


class LocalClustering(_Local, AbsTaskClusteringLegacy):
    """Mini-batch k-means on each row of the data, which is a whole set in one order.

    The newer class of mteb draws its sets with replacement, which counts a text twice and leaves a third out.
    """

    evaluator = staticmethod(functools.partial(ClusteringEvaluator, clustering_batch_size=512))  # type: ignore[assignment]


class LocalRetrieval(_Local, AbsTaskRetrieval):
    """Retrieval among all documents, or a ranking of the candidates of each query (reranking)."""


class LocalPairClassification(_Local, AbsTaskPairClassification):
    """Pairs that belong together, or do not."""


class LocalSTS(_Local, AbsTaskSTS):
    """Scored pairs."""


@dataclass(frozen=True)
class Kind:
    """A type of tasks.

    Attributes:
        task: its class.
        type: as mteb calls it.
        score: the main one, among those that mteb computes.
        metric: how a table calls it.
        more: other scores to keep.
    """

    task: Any
    type: str
    score: str
    metric: str
    more: tuple[str, ...] = ()


KINDS = {
    "classification": Kind(LocalClassification, "Classification", "accuracy", "accuracy", ("f1",)),
    "clustering": Kind(LocalClustering, "Clustering", "v_measure", "v-measure", ("v_measure_std",)),
    "retrieval": Kind(LocalRetrieval, "Retrieval", "ndcg_at_10", "nDCG@10", ("recall_at_10", "recall_at_100")),
    "reranking": Kind(LocalRetrieval, "Reranking", "map_at_1000", "MAP", ("mrr_at_10",)),
    "pair_classification": Kind(LocalPairClassification, "PairClassification", "cosine_ap", "AP", ("cosine_f1",)),
    "sts": Kind(LocalSTS, "STS", "cosine_spearman", "Spearman", ("cosine_pearson",)),
}


def make_task(name: str, kind: Kind, data: Any, source: dict[str, str], **settings: Any) -> AbsTask:
    """Make a task of mteb.

    Args:
        name: of the task.
        kind: one of :data:`KINDS`.
        data: what the class of mteb reads, by its splits.
        source: ``path`` and ``revision`` of the data.
        settings: of the class, as ``samples_per_label``.
    """
    metadata = TaskMetadata(
        name=name,
        description=f"{name}, from local files",
        dataset=source,  # type: ignore[arg-type]
        type=kind.type,  # type: ignore[arg-type]
        category="t2t",
        eval_langs=["eng-Latn"],
        main_score=kind.score,
    )
    task: AbsTask = kind.task(metadata, data, **settings)
    return task


def in_orders(texts: Sequence[str], labels: Sequence[int]) -> DatasetDict:
    """Return a data set of clustering: the same rows in :data:`ORDERS` orders, of fixed seeds."""
    orders = [random.Random(seed).sample(range(len(texts)), len(texts)) for seed in range(ORDERS)]
    rows = {"sentences": [[texts[row] for row in order] for order in orders]}
    return DatasetDict(
        {"test": Dataset.from_dict(rows | {"labels": [[labels[row] for row in order] for order in orders]})}
    )


def search_data(
    documents: Dataset,
    queries: Dataset,
    relevant: dict[str, dict[str, int]],
    candidates: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Return the data of a search, or with ``candidates`` (of each query) of a reranking."""
    split = {"corpus": documents, "queries": queries, "relevant_docs": relevant, "top_ranked": candidates}
    return {"test": split}
