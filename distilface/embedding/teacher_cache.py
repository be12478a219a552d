"""The teacher's embeddings: computed once, kept on disk, memory-mapped."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Value, concatenate_datasets, load_from_disk
from datasets.config import HF_DATASETS_CACHE
from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sentence_transformers import SentenceTransformer

from distilface.data.texts import fingerprint
from distilface.model import identity
from distilface.model.precision import has_bf16
from distilface.settings import InputError

#: Sentences in one file of the cache: an interrupted pass loses at most this many.
SHARD = 16_384


def embed(
    teacher: SentenceTransformer,
    texts: Dataset,
    cache_dir: str | Path | None = None,
    *,
    column: str = "text",
    batch_size: int = 128,
    bf16: bool | None = None,
) -> Dataset:
    """Return ``texts`` with the teacher's embeddings beside each, in a column ``label`` of float32.

    They are computed once and kept in ``cache_dir/<teacher>-<texts>-<precision>/``, a data set on disk per
    :data:`SHARD` sentences, written whole: an interrupted pass goes on at the first that is missing. The result is
    memory-mapped, so it costs the memory of a batch however long the text is. What is still to be computed and its
    size on disk are printed first.

    Args:
        teacher: as :func:`load_teacher` gives it; its default prompt is applied.
        texts: a column of sentences.
        cache_dir: default ``distilface`` in the cache folder of the data sets library.
        column: the column that holds the text.
        batch_size: sentences in one forward pass, of similar lengths.
        bf16: autocast to bf16; ``None`` does so where the machine has it.

    Raises:
        InputError: if the disk has no room for them, the teacher gives NaN, or a cached file is damaged, holds NaN
            or the wrong number of rows.
    """
    bf16 = has_bf16() if bf16 is None else bf16
    dimension = teacher.get_embedding_dimension()
    if dimension is None:
        raise InputError("the teacher does not tell the width of its embeddings; use one with a pooling")
    name = f"{identity.fingerprint(teacher)[:16]}-{fingerprint(texts, column)}-{'bf16' if bf16 else 'fp32'}"
    folder = Path(cache_dir or Path(HF_DATASETS_CACHE) / "distilface") / name
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(texts), SHARD)
    files = [folder / f"{start:09d}" for start in starts]
    missing = [(start, file) for start, file in zip(starts, files, strict=True) if not file.exists()]
    if missing:
        _announce(missing, len(texts), dimension, folder)
        _compute(teacher, texts.select_columns([column]), missing, dimension, batch_size, bf16)
    shards = [_checked(file, min(SHARD, len(texts) - start)) for start, file in zip(starts, files, strict=True)]
    return concatenate_datasets([texts.select_columns([column]), concatenate_datasets(shards)], axis=1)


def _announce(missing: list[tuple[int, Path]], rows: int, dimension: int, folder: Path) -> None:
    todo = sum(min(SHARD, rows - start) for start, _ in missing)
    size, free = todo * dimension * 4, shutil.disk_usage(folder).free
    print(
        f"teacher: {todo:,} of {rows:,} embeddings to compute, {dimension} x float32, {size / 1e6:,.0f} MB in {folder}",
        file=sys.stderr,
    )
    if size > free:
        raise InputError(
            f"the teacher's embeddings need {size / 1e6:,.0f} MB and {folder} has {free / 1e6:,.0f} MB free; "
            "free some space or name another folder with --cache-dir"
        )


def _compute(
    teacher: SentenceTransformer,
    texts: Dataset,
    missing: list[tuple[int, Path]],
    dimension: int,
    batch_size: int,
    bf16: bool,
) -> None:
    """Embed the missing shards; within one, sentences are batched by length (``encode`` sorts them)."""
    columns = (
        TextColumn("teacher"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]} sentences/s"),
        TimeRemainingColumn(),
    )
    with _library_bars_off(), Progress(*columns, console=Console(stderr=True)) as progress:
        total = sum(min(SHARD, len(texts) - start) for start, _ in missing)
        task, done, began = progress.add_task("", total=total, rate="-"), 0, time.perf_counter()
        for start, file in missing:
            rows = texts[start : start + SHARD][texts.column_names[0]]
            with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
                embeddings = teacher.encode(rows, batch_size=batch_size, show_progress_bar=False)
            _write(_finite(np.asarray(embeddings, np.float32), rows), dimension, file)
            done += len(rows)
            rate = f"{done / (time.perf_counter() - began):,.0f}"
            progress.update(task, completed=done, rate=rate)


@contextlib.contextmanager
def _library_bars_off() -> Iterator[None]:
    """Keep the data sets library from drawing a bar for each shard amid ours."""
    shown = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            enable_progress_bars()


def _finite(embeddings: np.ndarray, rows: list[str]) -> np.ndarray:
    """Refuse NaN before it is kept: computed anew, it would be the same."""
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise InputError(f"the teacher gives NaN or infinity for {rows[int(bad.argmax())]!r:.60}; use another teacher")
    return embeddings


def _write(embeddings: np.ndarray, dimension: int, folder: Path) -> None:
    """Write one shard under a temporary name and rename it, so that a shard that exists is whole.

    Another process may have written the same one meanwhile; that is then kept.
    """
    features = Features({"label": List(Value("float32"), length=dimension)})
    partial = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    try:
        Dataset.from_dict({"label": embeddings}, features=features).save_to_disk(partial)
        partial.replace(folder)
    except OSError:
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _checked(folder: Path, rows: int) -> Dataset:
    """Map one shard from disk, after a look at every number of a copy that is dropped at once."""
    remedy = f"delete {folder} and run again; it is computed anew"
    try:
        label = load_from_disk(str(folder), keep_in_memory=True).with_format("arrow")[:]["label"]
        numbers = label.combine_chunks().flatten().to_numpy()
        shard = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise InputError(f"cached embeddings cannot be read ({type(error).__name__}); {remedy}") from None
    if not np.isfinite(numbers).all():
        bad = int(np.flatnonzero(~np.isfinite(numbers))[0]) // (len(numbers) // len(label))
        raise InputError(f"cached embeddings hold {numbers[~np.isfinite(numbers)][0]} in row {bad}; {remedy}")
    if len(label) != rows:
        raise InputError(f"cached embeddings hold {len(label)} rows, not {rows}; {remedy}")
    return shard
