"""The trainings that a model went through before the last one, which its ``run.json`` hands on."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from distilface.run import read_run

#: What is handed on of a training.
KEPT = ("method", "baseline_model", "layers", "compression", "teacher", "seed", "steps", "train_seconds")


def history_of(source: str | None) -> list[dict[str, Any]]:
    """Return the trainings that made a model, the first one first; none of a Hub id, or a folder that tells of none.

    Args:
        source: a Hub id or a folder of this machine; ``None`` has none.

    Returns:
        Of each :data:`KEPT`, as its ``run.json`` has it, the ``rows`` of its text, and its ``texts``, as the sources of
        ``run.json`` are written.

    Raises:
        InputError: as :func:`distilface.run.read_run`.
    """
    if source is None or not (file := Path(source) / "run.json").is_file():
        return []
    run = read_run(file)
    content = run.as_dict()
    texts = [asdict(text) for text in run.texts]
    return [*run.history, {**{key: content[key] for key in KEPT}, "rows": run.text_rows.get("rows"), "texts": texts}]
