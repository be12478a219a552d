"""A model on onnxruntime alone: text to vectors, with the vectors of the folder's exported file."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distilface.light.dimensions import first_numbers
from distilface.light.files import AUTO, TOKENIZER, ends_in_unit_length, find_files
from distilface.light.session import usable_threads
from distilface.light.similarity import SIMILARITIES
from distilface.light.tokens import Tokens, batches_of, read_settings
from distilface.light.ways import Way, for_batches, on_one_thread, ways_of
from distilface.settings import InputError, check_known

if TYPE_CHECKING:
    from distilface.light.fastest import Choice


class LightEncoder:
    """A model folder's ONNX file on onnxruntime, without torch.

    >>> from distilface.light import LightEncoder
    >>> LightEncoder("models/none/there")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none/there is neither a folder nor a Hub id (owner/name)

    Args:
        model: a folder or a Hub id; ``None`` is the model of the wheel.
        variant: ``q4``, ``int8`` or ``onnx``; ``None`` takes the first of them that is there, ``auto`` the fastest way
            to run one of them on this processor (:func:`distilface.light.ways.ways_of`), which is measured for a second
            and remembered. Without ``one_by_one`` each thread then runs a batch of its own, so a call with one text
            takes one thread.
        file: another ONNX file of the folder, as ``onnx/model_quint8_avx2.onnx``.
        threads: of the computation; ``None`` takes all that the process may use, or, with ``one_by_one``, one where
            that is faster.
        one_by_one: ``auto`` takes what is fastest at texts that come one at a time, as queries do, and not in batches.

    Attributes:
        file: of the folder, that runs, or from which the file that runs was made.
        prompts: by their names.
        default_prompt: that stands before every text unless another is asked for.
        similarity_name: how two vectors are compared.
        dimension: numbers of a vector.

    Raises:
        InputError: if there is no such model, or no light encoder can run it.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        variant: str | None = None,
        file: str | None = None,
        threads: int | None = None,
        one_by_one: bool = False,
    ) -> None:
        auto = variant == AUTO
        if auto and file is not None:
            raise InputError(f"both variant={variant!r} and file={file!r} are given; give one")
        if one_by_one and not auto:
            raise InputError("one_by_one needs 'auto', which chooses the file; add it, or leave one_by_one out")
        folder, self.file = find_files(model, None if auto else variant, file)
        settings = read_settings(folder, "config_sentence_transformers.json")
        self.prompts: dict[str, str] = dict(settings.get("prompts") or {})
        self.default_prompt = self.prompts.get(settings.get("default_prompt_name") or "") or ""
        self.similarity_name: str = settings.get("similarity_fn_name") or "cosine"
        check_known([self.similarity_name], list(SIMILARITIES), f"similarity of {folder}:")
        self._without_prompt = _pools_without_prompt(folder)
        if self._without_prompt and any(self.prompts.values()):
            raise InputError(
                f"{folder} cannot be run by onnxruntime: its pooling leaves out the tokens of its prompts, of which "
                "an exported file does not know the number; load it in torch"
            )
        self._tokens, self._unit = Tokens(folder), ends_in_unit_length(folder)
        self._dimensions = settings.get("truncate_dim")
        self._open(_fastest_way(self, folder, threads, one_by_one) if auto else Way(self.file), threads)
        self._bytes = sum(part.stat().st_size for part in (self.file, folder / TOKENIZER))

    def _open(self, way: Way, threads: int | None) -> None:
        """Open a file of the folder in one of the ways to run it."""
        self.file = way.file
        self._session, width = way.open(threads)
        # A file may be older than the folder's truncate_dim, or of another exporter: it then gives all the numbers.
        self.dimension = min(width, self._dimensions or width)

    def running(self, way: Way, threads: int | None = None) -> "LightEncoder":
        """Return an encoder of the same folder that runs in another way (:func:`distilface.light.ways.ways_of`).

        Raises:
            InputError: if its file is damaged, or is not an exported file of a sentence encoder.
        """
        other = copy(self)
        other._open(way, threads)
        return other

    @property
    def max_seq_length(self) -> int:
        """Tokens that a text is cut at."""
        return self._tokens.length

    @property
    def megabytes(self) -> float:
        """Size of what was downloaded to run it, the ONNX file and the tokenizer, in 10^6 bytes."""
        return round(self._bytes / 1e6, 2)

    def encode(
        self,
        texts: str | Sequence[str],
        batch_size: int = 32,
        prompt: str | None = None,
        prompt_name: str | None = None,
        show_progress_bar: bool = False,
    ) -> np.ndarray:
        """Embed texts: float32 of shape (n, dimension), in the order given; of one string, its vector alone.

        A batch holds texts of similar length, so that little of it is padding, and fewer texts where they differ.

        Args:
            texts: one, or any number.
            batch_size: texts in a batch, at most.
            prompt: what stands before each text; ``None`` takes that of ``prompt_name``, else the model's default.
            prompt_name: of :attr:`prompts`.
            show_progress_bar: on stderr.

        Raises:
            InputError: on an unknown prompt, or a text that is not one.
        """
        before = self._prompt(prompt, prompt_name)
        rows = [texts] if isinstance(texts, str) else list(texts)
        if odd := [row for row in rows if not isinstance(row, str)]:
            raise InputError(f"a text must be a string, and {repr(odd[0])[:50]} is of type {type(odd[0]).__name__}")
        if batch_size < 1:
            raise InputError(f"batch_size {batch_size} is out of range; it must be 1 or more")
        ids = self._tokens.ids([before + row for row in rows])
        most = None if self._tokens.static else self._session.tokens  # a static model has no layers
        batches = batches_of(ids, batch_size, self._session.parts, most)
        outputs: Any = self._session.run(self._tokens.padded([ids[row] for row in batch]) for batch in batches)
        if show_progress_bar:
            from tqdm import tqdm

            outputs = tqdm(outputs, "batches", len(batches))
        embeddings = np.empty((len(ids), self.dimension), np.float32)
        for batch, whole in zip(batches, outputs, strict=True):
            embeddings[batch] = first_numbers(whole, self.dimension, self._unit)
        return embeddings[0] if isinstance(texts, str) else embeddings

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        """Return what stands before each text."""
        if prompt is None and name is not None:
            check_known([name], list(self.prompts), "prompt")
        before = self.prompts[name] if prompt is None and name is not None else prompt
        before = self.default_prompt if before is None else before
        if before and self._without_prompt:
            raise InputError(
                f"the prompt {before!r} cannot be taken: the model's pooling leaves out its tokens, of which an "
                "exported file does not know the number; load it in torch"
            )
        return before

    def similarity(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Compare each of some vectors with each of others, as the model says (mostly by the cosine).

        Args:
            one: of shape (n, dimension), or one vector.
            other: of shape (m, dimension), or one vector.

        Returns:
            float32 of shape (n, m), more where they are more alike.
        """
        rows = [np.atleast_2d(np.asarray(vectors, np.float32)) for vectors in (one, other)]
        return np.asarray(SIMILARITIES[self.similarity_name](*rows), np.float32)


def _pools_without_prompt(folder: Path) -> bool:
    """Return whether the pooling of a folder leaves out the tokens of a prompt (Instructor's way)."""
    poolings = [read_settings(place.parent, place.name) for place in folder.glob("*_Pooling/config.json")]
    return any(not pooling.get("include_prompt", True) for pooling in poolings)


def _ways(folder: Path, threads: int | None, one_by_one: bool) -> dict[str, Way]:
    """Return the ways to run a folder of which ``auto`` takes the fastest."""
    from distilface.environment import cores  # its import takes a while

    ways = ways_of(folder) if one_by_one else for_batches(ways_of(folder))
    if one_by_one and threads is None and (usable_threads() or cores()) > 1:
        ways |= on_one_thread(ways)
    return ways


def _fastest_way(encoder: LightEncoder, folder: Path, threads: int | None, one_by_one: bool) -> Way:
    """Return the way to run a folder that is fastest on this processor, of those that give a text one vector."""
    from distilface.light.fastest import agreeing, fastest  # its import takes a while

    ways = _ways(folder, threads, one_by_one)
    if len(ways) == 1:
        return next(iter(ways.values()))

    def opened() -> dict[str, Any]:
        """Open each of them that gives the vectors of the smallest file."""
        return agreeing(ways, lambda way: encoder.running(way, threads).encode)

    files = {name: [way.file] for name, way in ways.items()}
    return ways[fastest(files, threads or 0, opened, one_by_one).name]


def known_way(folder: Path, one_by_one: bool = False) -> "Choice | None":
    """Return what ``auto`` has measured of a folder on this processor, or ``None``; nothing is measured.

    Args:
        folder: the model folder.
        one_by_one: as :class:`LightEncoder` has it.
    """
    from distilface.light.fastest import remembered  # its import takes a while

    files = {name: [way.file] for name, way in _ways(folder, None, one_by_one).items()}
    return remembered(files, 0, one_by_one) if files else None
