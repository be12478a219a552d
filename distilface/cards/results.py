"""Results files of the benchmarks: which of a file's scores are a model folder's, and how a card shows them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, eval_result_entries_to_yaml

from distilface.cards.facts import UNKNOWN, number
from distilface.model.folder import Folder
from distilface.run import Run
from distilface.runtimes.files import file_fingerprint
from distilface.settings import InputError

#: ``data.from`` of a result whose test sets came from the Hub, in the revision that mteb names.
FROM_HUB = "Hugging Face Hub"
#: Written into every file of ``.eval_results/``, so that a later card knows those of an earlier one.
SCORED = "distilface, with mteb"


@dataclass(frozen=True)
class Scores:
    """What one results file says of one model; every score is mteb's main score times 100.

    Attributes:
        own: task -> score; a language pair of a task is ``STS17 (en-ar)``.
        relatives: ``teacher`` and ``untrained``, if they were scored too -> their own scores.
        spread: task -> ``mean`` and ``sd`` over the seeds of the recipe.
        seeds: those seeds; empty if one model alone was scored.
        sources: task -> ``path`` and ``revision`` of its data.
        hub: whether the data are the Hub's.
        mteb: the version that scored.
        date: when, as ISO 8601, if the file says it.
        file: the folder's exported file that was scored, as ``onnx/model_q4.onnx``; empty if the folder was, in fp32.
    """

    own: dict[str, float]
    relatives: dict[str, dict[str, float]] = field(default_factory=dict)
    spread: dict[str, dict[str, float | None]] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    hub: bool = False
    mteb: str | None = None
    date: str | None = None
    file: str = ""


def read_scores(file: str | Path, folder: Folder) -> Scores:
    """Return the scores of a model folder that a results file holds.

    A result of ``run_mteb.py`` is the folder's if it holds its ``fingerprint``, or that of a file in its ``onnx/``; a
    row of ``run_seeds.py`` or ``run_crosslingual.py`` if it holds the same ``run.json``, which no two trainings share.

    Raises:
        InputError: if the file cannot be read, is not a result of these, or is of other models.
    """
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
        rows = _rows(result)
        names = [str(row["name"]) for row in rows]
        run = folder.run
        scores = [_scores(result, row) for row in rows if _is_of(row, folder, run)]
        scores += [replace(_scores(result, row), file=name) for row in rows if (name := _file_of(row, folder))]
    except FileNotFoundError:
        raise InputError(f"{file} does not exist; benchmarks/run_mteb.py --output writes such a file") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            f"{file} is not a result of run_mteb.py, run_seeds.py or run_crosslingual.py; give the file that one of "
            "them wrote with --output"
        ) from None
    if not scores:
        others = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        raise InputError(
            f"{file} scores other models than this folder ({others}); score it with benchmarks/run_mteb.py --output"
        )
    return scores[0]


def _rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """List the models that a result scores, each with its ``fingerprint`` or its ``run``, and its series' spread."""
    if "fingerprint" in result:
        return [result]
    runs = result.get("runs", {})
    series = result.get("variants", {"": result}).values()
    rows = [
        {"run": runs.get(row.get("stage")), **row, "spread": each.get("summary", {})}
        for each in series
        for row in each["models"]
    ]
    return [row for row in rows if row.get("stage") != "teacher"]


def _is_of(row: dict[str, Any], folder: Folder, run: Run | None) -> bool:
    if "fingerprint" in row:
        return bool(row["fingerprint"] == folder.fingerprint)
    return run is not None and Run.from_dict(row["run"]) == run


def _file_of(row: dict[str, Any], folder: Folder) -> str:
    """Return the exported file of the folder that a row scores, or nothing."""
    files = sorted(folder.path.glob("onnx/*.onnx")) if "fingerprint" in row else []
    scored = (file for file in files if row["fingerprint"] == file_fingerprint(folder.fingerprint, file))
    return next((file.relative_to(folder.path).as_posix() for file in scored), "")


def _scores(result: dict[str, Any], row: dict[str, Any]) -> Scores:
    compared = result.get("compared", {})
    others = list(compared.values() if isinstance(compared, dict) else compared)
    others += [{**other, "role": "teacher"} for other in result.get("models", []) if other.get("stage") == "teacher"]
    data = result.get("data", {})
    return Scores(
        own=row["scores"],
        relatives={other["role"]: other["scores"] for other in others},
        spread=row.get("spread", {}),
        seeds=result.get("seeds", []),
        sources=data.get("tasks", data),
        hub=data.get("from") == FROM_HUB,
        mteb=result.get("versions", {}).get("mteb"),
        date=result.get("date"),
    )


def score_table(scores: Scores) -> dict[str, Any]:
    """Lay out one result: a row for each task, then the means, in as many columns as it has."""
    from distilface.evaluation.scores import means  # with mteb, which takes seconds to import

    several = len(scores.seeds) > 1
    columns = {"this model": scores.own, **scores.relatives}
    totals = {name: means(column) for name, column in columns.items()}
    spread = {name: f"{number(value['mean'])} ± {number(value['sd'])}" for name, value in scores.spread.items()}
    rows = [(task, task, [number(column.get(task)) for column in columns.values()]) for task in scores.own]
    for name, words in (
        ("mean_of_5", "mean of STS12–15 and STSBenchmark"),
        ("mean_of_7", "mean of the seven English STS tasks"),
    ):
        if totals["this model"][name] is not None:
            rows.append((name, words, [number(total[name]) for total in totals.values()]))
    return {
        "heads": [*columns, *(["mean ± sd"] if several else [])],
        "rows": [(words, [*cells, *([spread.get(name, UNKNOWN)] if several else [])]) for name, words, cells in rows],
        "means": {name: total["mean_of_7"] for name, total in totals.items() if total["mean_of_7"] is not None},
        "scores": scores,
    }


def model_index(dev_scores: list[dict[str, Any]], scored: Sequence[Scores]) -> list[EvalResult]:
    """Return every score for the metadata: of mteb's tasks, then those that chose the checkpoint."""
    results = []
    for scores in scored:
        for name, score in scores.own.items():
            if number(score) == UNKNOWN:
                continue
            task, _, subset = name.rstrip(")").partition(" (")
            path, metric = _task(task)
            revision = scores.sources.get(task, {}).get("revision")
            results.append(
                EvalResult(
                    task_type="sentence-similarity",
                    task_name="STS",
                    dataset_type=path,
                    dataset_name=f"MTEB {name}" + ("" if scores.hub else ", read from local files"),
                    dataset_config=subset or None,
                    dataset_split="test",
                    dataset_revision=revision if scores.hub else None,
                    metric_type=metric,
                    metric_value=score,
                )
            )
    return results + [
        EvalResult(
            task_type="sentence-similarity",
            dataset_type=row["source"],
            dataset_name=f"development set {row['source']}, which chose the checkpoint",
            metric_type=row["metric"],
            metric_value=row["score"],
            metric_name=row["what"],
        )
        for row in dev_scores
    ]


def _task(name: str) -> tuple[str, str]:
    """Return the Hub's data set of one of mteb's tasks, and the name of its main score."""
    from distilface.evaluation.tasks import CROSSLINGUAL, find_tasks  # with mteb, which takes seconds to import

    if name == CROSSLINGUAL:
        return name, "cosine_spearman"
    metadata = find_tasks([name])[0].metadata
    return metadata.dataset["path"], metadata.main_score


def eval_results(scored: Sequence[Scores], facts: dict[str, Any]) -> dict[str, str]:
    """Return the files of ``.eval_results/``, each a task that was scored on the Hub's own data, by their names.

    Such a file claims the revision of the Hub's data set, which a score on local files cannot claim.
    """
    files = {}
    for scores in (each for each in scored if each.hub):
        for task in scores.sources:
            path, revision = scores.sources[task]["path"], scores.sources[task]["revision"]
            entry = EvalResultEntry(
                dataset_id=path,
                task_id=task,
                value=scores.own[task],
                dataset_revision=revision,
                date=scores.date,
                source_url=facts["links"]["mteb"],
                source_name=f"{SCORED} {scores.mteb or UNKNOWN}",
            )
            files[f"{task}.yaml"] = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False)
    return files
