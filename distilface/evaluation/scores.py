"""Scores of a model on MTEB's tasks, through mteb's own evaluator and results; its identity and its size."""

import copy
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from mteb.abstasks import AbsTask
from mteb.cache import ResultCache
from mteb.models import SentenceTransformerEncoderWrapper
from sentence_transformers import SentenceTransformer
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from distilface.evaluation.file_model import FileModel
from distilface.evaluation.tasks import find_tasks
from distilface.hub_ids import unreachable
from distilface.model.identity import fingerprint
from distilface.model.loading import load_model
from distilface.runtimes.encoders import megabytes
from distilface.settings import InputError

#: The seven English STS tasks of MTEB's first version, the set that small encoders are compared on.
STS_TASKS = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSBenchmark", "SICK-R")
#: The five that the DistilFace paper ran (arXiv 2401.12472); its 72.1 is their mean.
PAPER_TASKS = ("STS12", "STS13", "STS14", "STS15", "STSBenchmark")


class OnceEncoder(SentenceTransformerEncoderWrapper):
    """mteb's wrapper, which embeds a sentence of the STS tasks once, in however many pairs and tasks it stands.

    Of the 47,700 sentences of the seven tasks 26,771 are different: nearly half of the time. A model with prompts,
    which may depend on the task, and tasks of other types are left to mteb.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__(model)
        self._known: dict[str, np.ndarray] = {}

    def encode(self, inputs: DataLoader, *, task_metadata: Any, **kwargs: Any) -> Any:
        """Return the embeddings of all sentences of ``inputs``, shape (sentences, dimension)."""
        if task_metadata.type != "STS" or any((self.model_prompts or {}).values()):
            return super().encode(inputs, task_metadata=task_metadata, **kwargs)
        texts = [text for batch in inputs for text in batch["text"]]
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            rows = DataLoader(Dataset.from_dict({"text": new}), batch_size=1000)  # type: ignore[arg-type]
            vectors = super().encode(rows, task_metadata=task_metadata, **kwargs)
            self._known.update(zip(new, vectors, strict=True))
        return np.stack([self._known[text] for text in texts])


def _loaded(model: str | Path | SentenceTransformer) -> SentenceTransformer:
    if not isinstance(model, SentenceTransformer):
        return load_model(model)
    if all(weight.dtype == torch.float32 for weight in model.parameters()):
        return model
    return copy.deepcopy(model).float()


def _weight_files(folder: Path) -> list[Path]:
    """List the weight files that a load reads: the modules' own, not checkpoints or exports beside them."""
    modules = folder / "modules.json"
    parts = [part["path"] for part in json.loads(modules.read_bytes())] if modules.is_file() else [""]
    return [
        file
        for part in dict.fromkeys(parts)
        for file in list((folder / part).glob("*.safetensors")) or (folder / part).glob("pytorch_model*.bin")
    ]


def model_size(model: str | Path | SentenceTransformer) -> dict[str, float]:
    """Return ``parameters`` (a count) and ``megabytes`` (of 10^6 bytes) of a model's weights.

    The megabytes of a folder or an exported file are those on disk, else those of the weights in fp32.
    """
    parameters = sum(weight.numel() for weight in _loaded(model).parameters())
    if isinstance(model, FileModel):
        return {"parameters": parameters, "megabytes": megabytes(model.file)}
    stored = 4 * parameters
    if not isinstance(model, SentenceTransformer) and Path(model).is_dir():
        stored = sum(file.stat().st_size for file in _weight_files(Path(model)))
    return {"parameters": parameters, "megabytes": round(stored / 1e6, 2)}


def means(scores: dict[str, float]) -> dict[str, float | None]:
    """Return ``mean_of_5`` (the paper's tasks) and ``mean_of_7`` (all the STS tasks).

    A mean is ``None`` if the score of one of its tasks is missing.
    """
    return {"mean_of_5": _mean(scores, PAPER_TASKS), "mean_of_7": _mean(scores, STS_TASKS)}


def _mean(scores: dict[str, float], tasks: Sequence[str]) -> float | None:
    known = [scores[task] for task in tasks if task in scores]
    return round(sum(known) / len(tasks), 4) if len(known) == len(tasks) else None


def evaluate(
    model: str | Path | SentenceTransformer,
    tasks: Sequence[str] = STS_TASKS,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Score a model with mteb, in fp32; mteb seeds Python's, numpy's and torch's generators on the way.

    Args:
        model: a folder, a Hub id, or a model in memory, an exported file among them
            (:class:`distilface.runtimes.encoders.FileModel`).
        tasks: names of MTEB tasks and benchmarks.
        data_dir: local data, see :func:`distilface.evaluation.tasks.find_tasks`; ``None`` takes the Hub's.
        cache_dir: mteb's folder of results, which may hold any number of models: a result is found again only
            for the same fingerprint on the same data. ``None`` keeps none.
        batch_size: sentences in a batch.

    Returns:
        mteb's main score of each task (for STS, the Spearman correlation of the cosines) times 100. A task in
        several languages has the mean over its subsets, then each of these as ``STS17 (en-ar)``.

    Raises:
        InputError: on what :func:`load_model` and :func:`distilface.evaluation.tasks.find_tasks` refuse, data that
            cannot be had from the Hub, or a model whose embeddings are all alike.
    """
    found = find_tasks(tasks, data_dir)
    loaded = _loaded(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="mteb")
        encoder = OnceEncoder(loaded)
    identity = {"name": _name(model), "revision": fingerprint(loaded)}
    cache = ResultCache(cache_dir) if cache_dir is not None else None
    scores: dict[str, float] = {}
    for task in (progress := tqdm(found, unit="task", disable=None)):
        progress.set_description(task.metadata.name)
        data = {} if data_dir is None else {"data": task.metadata.revision.removeprefix("sha256:")[:16]}
        update = identity | {"experiment_kwargs": data}
        encoder.mteb_model_meta = encoder.mteb_model_meta.model_copy(update=update)
        scores |= _scores(encoder, task, cache, batch_size)
    return scores


def _name(model: str | Path | SentenceTransformer) -> str:
    """Name a model as mteb asks, ``owner/name``; it is the revision that tells two models apart."""
    if isinstance(model, SentenceTransformer):
        return "local/memory"
    return f"local/{Path(model).resolve().name}" if Path(model).is_dir() else str(model)


def _scores(
    encoder: SentenceTransformerEncoderWrapper, task: AbsTask, cache: ResultCache | None, batch_size: int
) -> dict[str, float]:
    """Score one task: its main score, and each subset's where it has several."""
    name = task.metadata.name
    kwargs: Any = {"batch_size": batch_size, "show_progress_bar": False}
    try:
        result = mteb.evaluate(
            encoder, task, cache=cache, co2_tracker=False, encode_kwargs=kwargs, show_progress_bar=False
        )
    except (ConnectionError, DatasetNotFoundError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        remedy = "connect, or give a folder of data files with --data-dir"
        raise unreachable(f"the data of task {name}", remedy, error) from None
    if not result.task_results:
        raise InputError(f"task {name} is private on the Hub; log in with access to it, or leave it out")
    found = result.task_results[0].validate_and_filter_scores(task)
    scores = {name: found.get_score()}
    if len(task.hf_subsets) > 1:
        entries = [entry for split in found.scores.values() for entry in split]
        for subset in task.hf_subsets:
            values = [entry["main_score"] for entry in entries if entry["hf_subset"] == subset]
            scores[f"{name} ({subset})"] = sum(values) / len(values)
    if not all(math.isfinite(score) for score in scores.values()):
        raise InputError(f"no score on {name}: the model embeds every text alike; it has collapsed")
    return {key: round(100 * float(score), 4) for key, score in scores.items()}
