"""A space that is made of teachers': their embeddings joined, and seen on axes or turned into the first one's space."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformer

from distilface.embedding.axes import Axes
from distilface.embedding.turns import Turns
from distilface.model.pooling import is_normalized

#: Numbers of an embedding of which run.json says how much they hold.
SHOWN = (64, 128, 256)


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
        units = [of_unit_length(each) for each in embeddings]
        return of_unit_length(np.concatenate(units, axis=1) if self.turns is None else self.turns.add(units))

    def targets(self, joined: np.ndarray) -> np.ndarray:
        """Return what the student is to learn for joined embeddings, shape (n, width)."""
        if self.axes is None:
            return joined
        seen = joined @ self.axes.directions
        # What the axes that were left out held is missing in the length; a rotation keeps it.
        return of_unit_length(seen) if self.loses and self.is_normalized else seen

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
        result, both = of_unit_length(_labels(self.parts[0].select(rows))), ~self.alone[rows]
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


def _labels(part: Dataset) -> np.ndarray:
    return np.asarray(part.with_format("numpy")["label"][:], np.float32)


def of_unit_length(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; one of zeros stays."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)
