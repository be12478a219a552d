"""The trainings that a model went through before the last one, which its ``run.json`` hands on."""

import logging
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from distilface.run import Earlier, read_run
from distilface.settings import InputError

logger = logging.getLogger(__name__)


def history_of(*sources: str | None) -> list[dict[str, Any]]:
    """Return the trainings that made some models, each once, the first one first.

    Args:
        sources: Hub ids and folders of this machine; a Hub id, ``None``, and a folder that tells of no training have
            none. A ``run.json`` that cannot be read is logged.

    Returns:
        Entries of ``history`` in a ``run.json`` (:class:`distilface.run.Earlier`).
    """
    found: list[Earlier] = []
    for source in sources:
        for each in _of(Path(source)) if source else []:
            if each not in found:
                found.append(each)
    return [asdict(each) for each in found]


def _of(folder: Path) -> list[Earlier]:
    """Return the trainings that made a folder's model."""
    file = folder / "run.json"
    if not file.is_file():
        return []
    try:
        run = read_run(file)
    except InputError as error:
        logger.warning(f"the trainings before this one are not known: {error}")
        return []
    if run.steps is None:  # nothing was trained
        return run.history
    content = run.as_dict()
    own = {each.name: content[each.name] for each in fields(Earlier) if each.name in content}
    rows = run.text_rows.get("rows")
    return [*run.history, Earlier(**own | {"model": folder.resolve().name, "rows": rows, "texts": run.texts})]
