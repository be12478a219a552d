"""The targets of a student that learns another space than one teacher's as it is: computed once and kept."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface import processes
from distilface.embedding.axes import Axes, fit_axes
from distilface.embedding.joined import Space, of_unit_length
from distilface.embedding.store import Store
from distilface.embedding.teacher_cache import SHARD, cache_folder, cache_name, embed
from distilface.embedding.turns import Turns, check_enough, fit_turns
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Texts from whose embeddings the axes, or the turns, are taken.
SAMPLE = 20_000
#: What is fitted to the teachers' embeddings, and kept.
Fitted = TypeVar("Fitted", Axes, Turns)


def make_space(
    teachers: Sequence[SentenceTransformer],
    texts: Dataset,
    width: int | None,
    cache_dir: str | Path | None = None,
    batch_size: int = 128,
    of_the_first: bool = False,
    alone: np.ndarray | None = None,
) -> tuple[Dataset, Space]:
    """Return texts with the targets of a space beside each, in a column ``label`` of float32, and the space.

    Each teacher's embeddings are computed and kept by :func:`distilface.embedding.teacher_cache.embed`; the targets are
    kept beside them, and with them the axes or the turns: another fit might have others, in the last digits or
    altogether.

    Args:
        teachers: one or several.
        texts: in a column ``text``.
        width: of the targets: the first so many principal axes of the joined embeddings, of up to :data:`SAMPLE` of the
            texts; ``None`` joins them and no more.
        cache_dir: as of ``embed``.
        batch_size: sentences in one forward pass.
        of_the_first: turn the other teachers into the space of the first; then ``width`` is ``None``.
        alone: of each text, whether the target is the first teacher's embedding alone: the others do not embed it.

    Raises:
        InputError: as ``embed`` does; or if the disk has no room for the targets, or the texts are too few for axes or
            turns.
    """
    shared = texts if alone is None else texts.select(np.flatnonzero(~alone)).flatten_indices()
    if of_the_first:
        check_enough(len(shared), [each.get_embedding_dimension() or 0 for each in teachers])
    read = [texts, *[shared] * (len(teachers) - 1)]
    parts = [embed(*each, cache_dir, batch_size=batch_size) for each in zip(teachers, read, strict=True)]
    names = " ".join(cache_name(*each) for each in zip(teachers, read, strict=True))
    key = hashlib.sha256(f"{names} {'of the first' if of_the_first else width}".encode()).hexdigest()[:32]
    store = Store(cache_folder(cache_dir) / f"space-{key}", "label", "the space of the teachers")
    sizes = [min(SHARD, len(texts) - start) for start in range(0, len(texts), SHARD)]
    joined = Space(teachers, parts, None, alone=alone)
    file = store.folder / ("turns.npz" if of_the_first else "axes.npz")

    def found() -> Space:
        """Return the space, with the axes or turns that are kept; fit and keep them where they are not."""
        if of_the_first:
            return replace(joined, turns=_kept(file, Turns.load, lambda: _turns(joined)))
        return joined if width is None else replace(joined, axes=_kept(file, Axes.load, lambda: _axes(joined, width)))

    def keep() -> None:
        """Write the targets where they are not there."""
        fits = of_the_first or width is not None
        if store.missing(len(sizes)) or (fits and not file.is_file()):
            with store.locked(wait=True):
                _compute(found(), store, sizes)

    processes.from_first(keep)
    space = found()
    return store.beside(texts.select_columns(["text"]), sizes), space


def _kept(file: Path, load: Callable[[Path], Fitted], fit: Callable[[], Fitted]) -> Fitted:
    """Return what is kept in a file, or fit and keep it."""
    if file.is_file():
        return load(file)
    fitted = fit()
    fitted.save(file)
    return fitted


def _axes(joined: Space, width: int) -> Axes:
    axes = fit_axes(joined.known(_sample(joined)), width)
    if not axes.strengths.sum() > 0:
        raise InputError("the teachers' embeddings are all zero; use other teachers")
    return axes


def _turns(joined: Space) -> Turns:
    return fit_turns([of_unit_length(rows) for rows in joined.embeddings(_sample(joined))])


def _sample(joined: Space) -> np.ndarray:
    """Return the rows of the training text that a fit looks at, of those that all teachers have embedded."""
    count = len(joined.parts[-1])
    rows = np.linspace(0, count - 1, min(SAMPLE, count)).astype(int)
    return rows if joined.shared is None else joined.shared[rows]


def _compute(space: Space, store: Store, sizes: Sequence[int]) -> None:
    """Write the targets that are missing, a shard at a time."""
    starts = np.cumsum([0, *sizes])
    store.check_room(
        sum(sizes[number] for number in store.missing(len(sizes))) * space.as_dict()["width"] * 4,
        "another folder with --cache-dir",
    )
    for number in store.missing(len(sizes)):
        rows = np.arange(starts[number], starts[number + 1])
        store.write(number, space.parts[0].select(rows)["text"][:], space.targets(space.joined(rows)))
