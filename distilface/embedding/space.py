"""The space that a student learns where it is not one teacher's as it is: of several, or one teacher's, rotated."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface import processes
from distilface.embedding.axes import Axes, fit_axes
from distilface.embedding.store import Store
from distilface.embedding.teacher_cache import SHARD, cache_folder, cache_name, embed
from distilface.embedding.turns import Turns, check_enough, fit_turns
from distilface.model.pooling import is_normalized
from distilface.settings import InputError

logger = logging.getLogger(__name__)

#: Texts from whose embeddings the axes, or the turns, are taken.
SAMPLE = 20_000
#: Numbers of an embedding of which run.json says how much they hold.
SHOWN = (64, 128, 256)
#: What is fitted to the teachers' embeddings, and kept.
Fitted = TypeVar("Fitted", Axes, Turns)


@dataclass(frozen=True)
class Space:
    """A space that is made of teachers'.

    Several teachers' embeddings are joined: each of unit length, side by side, of unit length again. The cosine of two
    texts is then the mean of the teachers' cosines. Or they are added up in the space of the first teacher, into which
    those of the others are turned, and the sum is of unit length again.

    Attributes:
        teachers: one or several.
        parts: their embeddings of the training text, each in a column ``label``.
        axes: on which the joined embeddings are seen; ``None`` leaves them as they are.
        turns: of the others into the first teacher's space; ``None`` puts them side by side.
        alone: of each training text, whether the first teacher's embedding alone is learned, and the others have not
            embedded it; ``None`` means of none.
    """

    teachers: Sequence[SentenceTransformer]
    parts: Sequence[Dataset]
    axes: Axes | None
    turns: Turns | None = None
    alone: np.ndarray | None = None

    def join(self, embeddings: Sequence[np.ndarray]) -> np.ndarray:
        """Return the teachers' embeddings of the same texts side by side, or turned; one teacher's as they are.

        Args:
            embeddings: of each teacher, shape (n, width).
        """
        if len(embeddings) == 1:
            return np.asarray(embeddings[0], np.float32)
        units = [_of_unit_length(each) for each in embeddings]
        return _of_unit_length(np.concatenate(units, axis=1) if self.turns is None else self.turns.add(units))

    def targets(self, joined: np.ndarray) -> np.ndarray:
        """Return what the student is to learn for joined embeddings, shape (n, width)."""
        if self.axes is None:
            return joined
        seen = joined @ self.axes.directions
        # What the axes that were left out held is missing in the length; a rotation keeps it.
        return _of_unit_length(seen) if self.loses and self.is_normalized else seen

    @property
    def loses(self) -> bool:
        """Whether some axes were left out."""
        return self.axes is not None and self.axes.directions.shape[1] < len(self.axes.directions)

    @property
    def is_normalized(self) -> bool:
        """Whether the targets have length 1."""
        return len(self.teachers) > 1 or is_normalized(self.teachers[0])

    def _yardstick(self, joined: np.ndarray) -> np.ndarray:
        return joined if self.loses else self.targets(joined)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by the teachers, as what a student is measured against: with all axes, if some were left out."""
        return self._yardstick(
            self.join([np.asarray(each.encode(list(texts), show_progress_bar=False)) for each in self.teachers])
        )

    def known(self, rows: np.ndarray) -> np.ndarray:
        """Return the same as :meth:`encode` of rows of the training text, of some of them the first teacher's alone."""
        return self._yardstick(self.joined(rows))

    def joined(self, rows: np.ndarray) -> np.ndarray:
        """Return the teachers' embeddings of rows of the training text, joined."""
        if self.alone is None:
            return self.join(self.embeddings(rows))
        result, both = _of_unit_length(_labels(self.parts[0].select(rows))), ~self.alone[rows]
        if both.any():
            result[both] = self.join(self.embeddings(rows[both]))
        return result

    @cached_property
    def shared(self) -> np.ndarray | None:
        """The rows of the training text that all teachers have embedded; ``None`` means all."""
        return None if self.alone is None else np.flatnonzero(~self.alone)

    def embeddings(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return each teacher's embeddings of rows of the training text that all of them have embedded."""
        places = rows if self.shared is None else np.searchsorted(self.shared, rows)
        return [_labels(part.select(places if number else rows)) for number, part in enumerate(self.parts)]

    def as_dict(self) -> dict[str, Any]:
        """Return what run.json says of it."""
        widths = [each.get_embedding_dimension() or 0 for each in self.teachers]
        about = {"teachers": len(self.teachers), "of": sum(widths)}
        if self.turns is not None:
            cosines = {"turned_cosines": list(self.turns.cosines), "target_cosine": self.turns.target_cosine}
            alone = {} if self.alone is None else {"first_alone": int(self.alone.sum())}
            return {**about, "width": widths[0], "rotated": False, "of_the_first": True, **cosines, **alone}
        if self.axes is None:
            return {**about, "width": sum(widths), "rotated": False}
        width = self.axes.directions.shape[1]
        shown = {str(count): round(self.axes.kept(count), 4) for count in (*SHOWN, width) if count <= width}
        return {**about, "width": width, "rotated": True, "explained_variance": shown}

    def __str__(self) -> str:
        about = self.as_dict()
        if self.turns is not None:
            cosines = ", ".join(f"{cosine:.3f}" for cosine in self.turns.cosines)
            return (
                f"the first teacher's, with the others turned into it (mean cosine to its vectors {cosines}; of the "
                f"targets {self.turns.target_cosine:.3f})"
                + (f"; of {about['first_alone']:,} texts the first's alone" if self.alone is not None else "")
            )
        whose = f"{len(self.teachers)} teachers side by side" if len(self.teachers) > 1 else "the teacher"
        shares = [f"the first {count} hold {share:.1%}" for count, share in about.get("explained_variance", {}).items()]
        kept = f"; on the principal axes {', '.join(shares)} of the squared length" if shares else ""
        return f"that of {whose}, {about['of']} numbers{kept}"

    @property
    def origin(self) -> dict[str, Any] | None:
        """What a training that goes on must find as it was: a cache that is lost may come back with other axes."""
        if self.turns is not None:
            return {"turns": self.turns.sha256}
        return None if self.axes is None else {"axes": self.axes.sha256}


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
    return fit_turns([_of_unit_length(rows) for rows in joined.embeddings(_sample(joined))])


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


def _labels(part: Dataset) -> np.ndarray:
    return np.asarray(part.with_format("numpy")["label"][:], np.float32)


def _of_unit_length(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
