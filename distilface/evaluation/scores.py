"""Scores of a model on MTEB's tasks, by mteb's own evaluators and results; and its size."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache
from mteb.results import TaskResult
from sentence_transformers import SentenceTransformer
from tqdm.auto import tqdm

from distilface.evaluation.means import means_by_type
from distilface.evaluation.mteb_model import MtebModel
from distilface.evaluation.tasks import find_tasks, task_types
from distilface.hub_ids import is_endpoint, resolve, unreachable
from distilface.model.loading import load_model
from distilface.model.router import check_no_router
from distilface.runtimes.base import Encoder
from distilface.runtimes.endpoint import EndpointEncoder
from distilface.runtimes.torch import TorchEncoder
from distilface.settings import InputError

#: The seven English STS tasks of MTEB's first version, on which small encoders are compared.
STS_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
#: The five that the DistilFace paper ran (arXiv 2401.12472); its 72.1 is their mean.
PAPER_TASKS = ("STS12", "STS13", "STS14", "STS15", "STSBenchmark")


#: What can be scored: a folder, a Hub id, ``URL#MODEL`` of an endpoint, a model in memory, or any encoder.
Scored = str | Path | SentenceTransformer | Encoder


def as_encoder(model: Scored) -> Encoder:
    """Return an encoder as it is, and an endpoint's; anything else in torch, in fp32 however its weights are stored.

    Raises:
        InputError: on what :func:`distilface.model.loading.load_model` refuses, a folder of two encoders, or an
            endpoint without embeddings.
    """
    if isinstance(model, Encoder):
        return model
    if isinstance(model, str) and is_endpoint(model):
        return EndpointEncoder(model)
    if not isinstance(model, SentenceTransformer):
        check_no_router(Path(resolve(str(model))))
        model = load_model(model)
    return TorchEncoder(model)


def _weight_files(folder: Path) -> list[Path]:
    """List the weight files that a load reads: the modules' own, not checkpoints or exports beside them."""
    modules = folder / "modules.json"
    places = [module["path"] for module in json.loads(modules.read_bytes())] if modules.is_file() else [""]
    return [
        file
        for place in dict.fromkeys(places)
        for file in list((folder / place).glob("*.safetensors")) or (folder / place).glob("pytorch_model*.bin")
    ]


def model_size(model: Scored) -> dict[str, float]:
    """Return ``parameters`` (a count) and ``megabytes`` (of 10^6 bytes) of a model's weights.

    The megabytes of a folder or an exported file are those on disk, of any other model those of the weights in fp32.
    """
    encoder = as_encoder(model)
    size = encoder.megabytes
    if not isinstance(model, SentenceTransformer | Encoder) and Path(model).is_dir():
        size = round(sum(file.stat().st_size for file in _weight_files(Path(model))) / 1e6, 2)
    return {"parameters": sum(weight.numel() for weight in encoder.model.parameters()), "megabytes": size}


def means(scores: dict[str, float]) -> dict[str, float | None]:
    """Return ``mean_of_5`` (the paper's tasks) and ``mean_of_7`` (all the STS tasks).

    A mean is ``None`` if the score of one of its tasks is missing.
    """
    return {"mean_of_5": _mean(scores, PAPER_TASKS), "mean_of_7": _mean(scores, STS_TASKS)}


def all_means(scores: dict[str, float], names: Sequence[str]) -> dict[str, float | None]:
    """Return :func:`means`, and of tasks of several types also those by type and over all.

    Args:
        scores: of the tasks.
        names: of the tasks and benchmarks that were scored.
    """
    types = task_types(names)
    several = len({types[name] for name in scores if name in types}) > 1
    return means(scores) | (means_by_type(scores, types) if several else {})


def _mean(scores: dict[str, float], tasks: Sequence[str]) -> float | None:
    known = [scores[task] for task in tasks if task in scores]
    return round(sum(known) / len(tasks), 4) if len(known) == len(tasks) else None


def evaluate(
    model: Scored,
    tasks: Sequence[str] = STS_TASKS,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Score a model with mteb; mteb seeds Python's, numpy's and torch's generators on the way.

    Args:
        model: a folder, a Hub id or a model in memory, which are scored in fp32; or any encoder, as an exported file
            (:func:`distilface.runtimes.opening.open_file`), which is scored in its own precision.
        tasks: names of MTEB tasks and benchmarks.
        data_dir: local data, see :func:`distilface.evaluation.tasks.find_tasks`; ``None`` takes the Hub's.
        cache_dir: mteb's folder of results, which may hold any number of models: a result is used again only for the
            same fingerprint (:attr:`Encoder.fingerprint`) on the same data. ``None`` keeps none.
        batch_size: sentences in a batch.

    Returns:
        mteb's main score of each task (for STS, the Spearman correlation of the cosines) times 100. A task in
        several languages has the mean over its subsets, then each of these as ``STS17 (en-ar)``.

    Raises:
        InputError: on what :func:`as_encoder` and :func:`distilface.evaluation.tasks.find_tasks` refuse, data that the
            Hub does not give, or a model whose embeddings are all alike.
    """
    chosen = find_tasks(tasks, data_dir)
    encoder = as_encoder(model)
    scored = MtebModel(encoder)
    identity = {"name": _name(model), "revision": encoder.fingerprint}
    cache = ResultCache(cache_dir) if cache_dir is not None else None
    scores: dict[str, float] = {}
    for task in (progress := tqdm(chosen, unit="task", disable=None)):
        progress.set_description(task.metadata.name)
        data = {} if data_dir is None else {"data": task.metadata.revision.removeprefix("sha256:")[:16]}
        update = identity | {"experiment_kwargs": data}
        scored.mteb_model_meta = scored.mteb_model_meta.model_copy(update=update)
        scores |= _scores(scored, task, cache, batch_size)
    return scores


def _name(model: Scored) -> str:
    """Name a model as mteb asks, ``owner/name``; the revision is what tells two models apart."""
    if isinstance(model, SentenceTransformer | Encoder):
        return "local/memory"
    return f"local/{Path(model).resolve().name}" if Path(model).is_dir() else str(model)


def _scores(model: MtebModel, task: AbsTask, cache: ResultCache | None, batch_size: int) -> dict[str, float]:
    """Score one task: its main score, and that of each subset where it has several."""
    name = task.metadata.name
    task_result = run_task(model, task, cache, batch_size).validate_and_filter_scores(task)
    scores = {name: task_result.get_score()}
    if len(task.hf_subsets) > 1:
        rows = [entry for split in task_result.scores.values() for entry in split]
        for subset in task.hf_subsets:
            values = [entry["main_score"] for entry in rows if entry["hf_subset"] == subset]
            scores[f"{name} ({subset})"] = sum(values) / len(values)
    if not all(math.isfinite(score) for score in scores.values()):
        raise InputError(f"no score on {name}: the model embeds every text alike; it has collapsed")
    return {key: round(100 * float(score), 4) for key, score in scores.items()}


def run_task(model: Any, task: AbsTask, cache: ResultCache | None, batch_size: int) -> TaskResult:
    """Run a task by mteb.

    Raises:
        InputError: on data that the Hub does not give.
    """
    name = task.metadata.name
    kwargs: Any = {"batch_size": batch_size, "show_progress_bar": False}
    try:
        result = mteb.evaluate(
            model, task, cache=cache, co2_tracker=False, encode_kwargs=kwargs, show_progress_bar=False
        )
    except (ConnectionError, DatasetNotFoundError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        remedy = "connect, or give a folder of data files with --data-dir"
        raise unreachable(f"the data of task {name}", remedy, error) from None
    if not result.task_results:
        raise InputError(f"task {name} is private on the Hub; log in with access to it, or leave it out")
    return result.task_results[0]
