"""MTEB's tasks by name: mteb's own task objects, with their data on the Hub or in local files."""

import contextlib
import copy
import gzip
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTask
from mteb.abstasks.sts import AbsTaskSTS

from distilface.data.pairs import read_pairs
from distilface.settings import InputError, check_known

#: STS-B with its first side in English and its second in another language: a task that mteb has not. Its data are
#: made of STSBenchmarkMultilingualSTS's, and are read from local files only.
CROSSLINGUAL = "STSBenchmarkCrosslingualSTS"
_MONOLINGUAL = "STSBenchmarkMultilingualSTS"


def find_tasks(names: Sequence[str], data_dir: str | Path | None = None) -> list[AbsTask]:
    """Turn names of MTEB tasks and benchmarks into mteb's task objects, each once, in order.

    Args:
        names: tasks (``STS17``) and benchmarks (``MTEB(eng, v2)``); also :data:`CROSSLINGUAL`.
        data_dir: a folder of ``<task>.jsonl`` or ``<task>.jsonl.gz`` with the columns ``sentence1``,
            ``sentence2`` and ``score``; the tasks then hold that data, and name the file and its sha256 (of
            the text, not of the gzip) where they named the Hub's data set. Of a task in several languages each
            subset is a file, ``en-ar.jsonl``; those that are not there are left out, and named with its data.
            ``None`` leaves the tasks to the Hub.

    Raises:
        InputError: on an unknown name (the nearest is named), a task that is not of text, or a file that is
            missing or malformed.
    """
    by_name: dict[str, AbsTask] = {}
    for name in names:
        tasks = _lookup(name)
        if not tasks:
            check_known([name], _known_names(), "task")
        by_name |= {task.metadata.name: task for task in tasks}
    for name, task in by_name.items():
        if set(task.modalities) != {"text"}:
            raise InputError(f"task {name} is not of text alone ({', '.join(task.modalities)}); leave it out")
    if data_dir is None and CROSSLINGUAL in by_name:
        raise InputError(f"task {CROSSLINGUAL} is read from local files only; give --data-dir")
    if data_dir is None:
        return list(by_name.values())
    return [_with_local_data(task, Path(data_dir)) for task in by_name.values()]


def data_sources(tasks: Sequence[AbsTask]) -> dict[str, Any]:
    """Return each task's data: ``path`` and ``revision``, the Hub's or a local file's name and sha256.

    Of local files in several languages, ``path`` names them all, and ``missing`` the subsets without one.
    """
    return {task.metadata.name: dict(task.metadata.dataset) for task in tasks}


def task_types(names: Sequence[str]) -> dict[str, str]:
    """Return the type of each task, as ``Retrieval``, of names of tasks and benchmarks that are known."""
    return {task.metadata.name: task.metadata.type for name in names for task in _lookup(name)}


def _crosslingual() -> AbsTask:
    """Make the task that mteb has not, with the evaluator and the scale of its monolingual sister."""
    task = copy.copy(mteb.get_task(_MONOLINGUAL))
    languages: Any = {**task.metadata.eval_langs, "ja": ["jpn-Jpan"]}  # type: ignore[dict-item]
    pairs = {f"en-{name}": ["eng-Latn", *scripts] for name, scripts in languages.items() if name != "en"}
    task.metadata = task.metadata.model_copy(update={"name": CROSSLINGUAL, "eval_langs": pairs})
    task.hf_subsets = list(pairs)
    return task


def _lookup(name: str) -> list[AbsTask]:
    if name == CROSSLINGUAL:
        return [_crosslingual()]
    with contextlib.suppress(KeyError):
        return [mteb.get_task(name)]
    with contextlib.suppress(KeyError):
        return list(mteb.get_benchmark(name).tasks)
    return []


def _known_names() -> list[str]:
    tasks = mteb.get_tasks(modalities=["text"], exclude_superseded=False)
    return [CROSSLINGUAL, *(task.metadata.name for task in tasks), *(b.name for b in mteb.get_benchmarks())]


def data_file(name: str, folder: Path) -> Path | None:
    """Return the file of a task in a folder, ``<name>.jsonl`` or ``<name>.jsonl.gz``, or ``None``."""
    return next((file for end in (".jsonl", ".jsonl.gz") if (file := folder / f"{name}{end}").is_file()), None)


def _local_files(task: AbsTask, folder: Path) -> dict[str, Path]:
    """Find the file of each subset of a task; a task in one language has one, ``default``, named as the task is.

    A subset of one language, ``de``, may also be called ``de-de``.
    """
    if not folder.is_dir():
        raise InputError(f"the data folder {folder} does not exist")
    name, remedy = task.metadata.name, "name what it holds with --tasks"
    if not task.metadata.is_multilingual:
        if (file := data_file(name, folder)) is None:
            raise InputError(f"{folder} holds no {name}.jsonl or {name}.jsonl.gz; {remedy}")
        return {"default": file}
    candidates = {
        subset: data_file(subset, folder) or data_file(f"{subset}-{subset}", folder) for subset in task.hf_subsets
    }
    files = {subset: file for subset, file in candidates.items() if file is not None}
    if not files:
        raise InputError(f"{folder} holds no subset of {name}, as {task.hf_subsets[0]}.jsonl[.gz]; {remedy}")
    return files


def checksum(files: Sequence[Path]) -> str:
    """Return the sha256 of the text of files; of several, with their names between."""
    texts = [gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files]
    if len(files) > 1:
        texts = [part for file, text in zip(files, texts, strict=True) for part in (file.name.encode(), text)]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def _with_local_data(task: AbsTask, folder: Path) -> AbsTask:
    """Return a copy of a task that holds local files; mteb's benchmarks share their own objects."""
    name = task.metadata.name
    if not isinstance(task, AbsTaskSTS):
        raise InputError(f"task {name} is read from the Hub only; --data-dir serves STS")
    files = _local_files(task, folder)
    rows = {subset: Dataset.from_list(read_pairs(file, least=2)) for subset, file in files.items()}
    paths = list(files.values())
    source = {"path": " ".join(file.name for file in paths), "revision": f"sha256:{checksum(paths)}"}
    update: dict[str, Any] = {"dataset": source, "superseded_by": None}
    split = "test" if "test" in task.eval_splits else task.eval_splits[0]
    local = copy.copy(task).filter_eval_splits([split])
    if task.metadata.is_multilingual:
        if missing := [subset for subset in task.hf_subsets if subset not in files]:
            source["missing"] = " ".join(missing)
        languages: Any = task.metadata.eval_langs
        update["eval_langs"] = {subset: languages[subset] for subset in files}
        local.hf_subsets = list(files)
    local.metadata = task.metadata.model_copy(update=update)
    local.dataset = {subset: DatasetDict({split: data}) for subset, data in rows.items()}
    local.data_loaded = True
    return local
