"""Score each stage, print the table."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteb.cache import ResultCache

from benchmarks import crosslingual
from benchmarks.files import save_result
from benchmarks.sts.comparison import Row, measure
from distilface.environment import environment
from distilface.evaluation.scores import evaluate
from distilface.evaluation.tables import console, number_table
from distilface.evaluation.tasks import CROSSLINGUAL, data_sources, find_tasks
from distilface.hub_ids import resolve
from distilface.methods.multistage.stages import STAGES
from distilface.model.folder import Folder
from distilface.model.loading import load_model
from distilface.run import read_run
from distilface.settings import InputError, parse, setting

MONOLINGUAL = "STSBenchmarkMultilingualSTS"
MEANS = ("en-xx", "xx-xx", "en", "STS17")


@dataclass
class Settings:
    """Options of the benchmark."""

    model: str = setting("models/xx-minilm-small", "the folder of train_multistage.py; <model>.stages is beside it")
    stsb_dir: str = setting("stsb_xx", "a folder of STS-B's test pairs, en-de.jsonl[.gz] and de-de.jsonl[.gz] ...")
    sts17_dir: str | None = setting(None, "a folder of STS17's pairs, es-en.jsonl[.gz] ...; default none")
    output: str | None = setting(None, "write the result to this JSON file")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default $MTEB_CACHE or ~/.cache/mteb")


def stages(model: str) -> dict[str, Path]:
    """Return the folder of each stage that is there, by its name and in order.

    Raises:
        InputError: if the model is not what train_multistage.py writes.
    """
    run = Folder(Path(model)).run
    if run is None or run.method != "multistage":
        raise InputError(f"{model} is not a folder of training/train_multistage.py; give --model one")
    folders = {stage.name: stage.folder(model).path for stage in STAGES}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


def table_size(model: str) -> int:
    """Return the number of parameters of a model's embedding table, which has one row a token."""
    transformer: Any = load_model(model)[0]
    return int(transformer.model.get_input_embeddings().weight.numel())


def language_means(scores: dict[str, float]) -> dict[str, float]:
    """Return the means that a multilingual student is judged by.

    ``en-xx`` is over STS-B's pairs of English and another language, ``xx-xx`` over the other languages within
    themselves, ``en`` English STS-B, and ``STS17`` the mean over its pairs.
    """
    inside = {
        name.removeprefix(f"{MONOLINGUAL} (")[:-1]: score
        for name, score in scores.items()
        if name.startswith(f"{MONOLINGUAL} (")
    }
    others = [score for name, score in inside.items() if name != "en"]
    values = {"en-xx": scores[CROSSLINGUAL], "en": inside.get("en"), "STS17": scores.get("STS17")}
    values["xx-xx"] = sum(others) / len(others) if others else None
    return {name: round(score, 4) for name in MEANS if (score := values[name]) is not None}


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Print a row for each model: its size, then its means."""
    heads = [name for name in MEANS if name in rows[0]["means"]]
    table = number_table("params", "table", "MB", *heads)
    for row in rows:
        sizes = (f"{row['parameters'] / 1e6:.1f}M", f"{row['embedding_table'] / 1e6:.1f}M", f"{row['megabytes']:.0f}")
        table.add_row(row["stage"], *sizes, *(f"{row['means'][head]:.2f}" for head in heads))
    console().print(table)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Score, print the table, write the JSON; return its content."""
    settings = parse(Settings, argv, crosslingual.__doc__ or "")
    places = {CROSSLINGUAL: settings.stsb_dir, MONOLINGUAL: settings.stsb_dir}
    places |= {} if settings.sts17_dir is None else {"STS17": settings.sts17_dir}
    sources = {name: data_sources(find_tasks([name], place))[name] for name, place in places.items()}
    folders = stages(settings.model)
    runs = {stage: read_run(folder / "run.json") for stage, folder in folders.items()}
    teacher = read_run(Path(settings.model) / "run.json").teachers[0].name
    cache = settings.cache_dir or ResultCache().cache_path

    def score(model: Any) -> dict[str, float]:
        """Score one model on all of the data."""
        scores: dict[str, float] = {}
        for name, place in places.items():
            scores |= evaluate(model, [name], place, cache)
        return scores

    models = {"teacher": (teacher, resolve(teacher))}
    models |= {stage: (str(folder), str(folder)) for stage, folder in folders.items()}
    rows: list[dict[str, Any]] = []
    for stage, (name, folder) in models.items():
        row: Row = measure(name, folder, stage, score)
        kept = {key: value for key, value in row.as_dict().items() if key not in ("role", "mean_of_5", "mean_of_7")}
        rows.append(
            {"stage": stage, **kept, "embedding_table": table_size(folder), "means": language_means(row.scores)}
        )
    print_rows(rows)
    contents = {stage: run.as_dict() for stage, run in runs.items()}
    result = {"models": rows, "runs": contents, "data": sources, **environment()}
    save_result(settings.output, result)
    return result
