"""The settings of an evaluation."""

from dataclasses import dataclass

from distilface.settings import setting


@dataclass
class EvaluateSettings:
    """distilface evaluate MODEL: its scores on MTEB's tasks, by mteb itself.

        distilface evaluate models/mine --data-dir STS --output scores.json

    A model of the size of all-MiniLM-L6-v2 takes about 4 minutes of one core. benchmarks/run_mteb.py scores it beside
    its teacher, its untrained self and published models.
    """

    model: str = setting("", "a model folder or a Hub id; also as the first word")
    tasks: list[str] = setting([], "names of MTEB tasks and benchmarks; default the seven English STS tasks")
    data_dir: str | None = setting(None, "a folder of <task>.jsonl[.gz]; default the Hub's data")
    cache_dir: str | None = setting(None, "where mteb keeps its results; default nowhere")
    batch_size: int = setting(32, "sentences in a batch")
    output: str | None = setting(None, "write the scores to this JSON file")
