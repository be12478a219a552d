"""The settings of an evaluation."""

from dataclasses import dataclass

from distilface.settings import InputError, setting


@dataclass
class EvaluateSettings:
    """distilface evaluate MODEL: its scores on MTEB's tasks, on a suite of your own or in your own search, by mteb.

        distilface evaluate models/mine --data-dir STS --output scores.json
        distilface evaluate models/mine --suite SUITE --variants q4 --output scores.json
        distilface evaluate models/mine --queries q.jsonl --documents d.jsonl --relevant r.tsv

    A suite and a search also score the model's teacher and its exported files, side by side (docs/evaluate.md).

    A model of the size of all-MiniLM-L6-v2 takes about 4 minutes of one core. benchmarks/run_mteb.py scores it beside
    its teacher, its untrained self and published models.
    """

    model: str = setting("", "a model folder or a Hub id; also as the first word")
    tasks: list[str] = setting([], "names of MTEB tasks and benchmarks; default the seven English STS tasks")
    data_dir: str | None = setting(None, "a folder of <task>.jsonl[.gz]; default the Hub's data")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default nowhere")
    batch_size: int = setting(32, "sentences in a batch")
    suite: str | None = setting(
        None, "a folder of tasks: tasks.json and <task>.jsonl[.gz]", excludes=["tasks", "data_dir", "queries"]
    )
    queries: str | None = setting(
        None, "your own search: a .jsonl of queries (_id, text)", excludes=["tasks", "data_dir", "suite"]
    )
    documents: str | None = setting(None, "a .jsonl of documents (_id, title, text)", needs={"queries": True})
    relevant: str | None = setting(None, "a .tsv of judgements (query-id, corpus-id, score)", needs={"queries": True})
    variants: list[str] = setting([], "exported files to score beside the model, as q4 or int8; of a suite or a search")
    beside: list[str] = setting([], "other models to score beside it, of a suite or a search: folders or Hub ids")
    teacher: str = setting(
        "", "of a suite or a search: a folder, a Hub id or URL#MODEL; default run.json's, none leaves it out"
    )
    output: str | None = setting(None, "write the scores to this JSON file")


def check_settings(settings: EvaluateSettings) -> None:
    """Check what one setting alone does not show.

    Raises:
        InputError: on a batch of nothing, a search of which a file is missing, or settings that nothing reads.
    """
    if settings.batch_size < 1:
        raise InputError(f"--batch_size {settings.batch_size} is out of range; it must be 1 or more")
    search = {name: getattr(settings, name) for name in ("queries", "documents", "relevant")}
    if any(search.values()) and not all(search.values()):
        missing = ", ".join(f"--{name}" for name, value in search.items() if not value)
        raise InputError(f"a search needs queries, documents and judgements; give {missing} too")
    side_by_side = settings.suite or settings.queries
    only = next((name for name in ("variants", "beside", "teacher") if getattr(settings, name)), None)
    if not side_by_side and only:
        raise InputError(f"--{only} is of a suite or a search; give --suite, or --queries with its files")
