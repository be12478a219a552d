"""The teacher's embeddings: computed once, kept on disk, memory-mapped."""

import ctypes
import logging
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from datasets.config import HF_DATASETS_CACHE
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from distilface import processes
from distilface.console import duration
from distilface.data.fingerprints import fingerprint
from distilface.embedding.known import KEY_BYTES, Known, keep_keys, keys_of
from distilface.embedding.rounding import bytes_of
from distilface.embedding.store import Store
from distilface.model import identity
from distilface.model.precision import has_bf16
from distilface.runtimes.endpoint import announce_cost, client_of
from distilface.settings import InputError

logger = logging.getLogger(__name__)
#: From so many sentences on, it is first measured how long they will take, on a sample of so many.
TIMED, SAMPLE = 5_000, 512
#: Sentences in one shard of the cache: an interrupted pass loses at most this many.
SHARD = 16_384
#: The same of a teacher behind an endpoint, where every sentence may be paid for.
ENDPOINT_SHARD = 2_048


def cache_folder(cache_dir: str | Path | None = None) -> Path:
    """Return the folder of all teachers' embeddings; by default in the cache folder of the data sets library."""
    return Path(cache_dir or Path(HF_DATASETS_CACHE) / "distilface")


def computes_in_bf16(teacher: SentenceTransformer, bf16: bool | None = None) -> bool:
    """Return whether a teacher computes in bf16 here; an endpoint computes elsewhere, in what it has."""
    return client_of(teacher) is None and (has_bf16() if bf16 is None else bf16)


def cache_name(
    teacher: SentenceTransformer,
    texts: Dataset,
    column: str = "text",
    bf16: bool | None = None,
    dtype: str = "float32",
) -> str:
    """Return what a teacher's embeddings of texts are kept under; the arguments are those of :func:`embed`."""
    precision = "bf16" if computes_in_bf16(teacher, bf16) else "fp32"
    precision += "" if dtype == "float32" else f"-{dtype}"
    return f"{identity.fingerprint(teacher)[:16]}-{fingerprint(texts, column)}-{precision}"


def embed(
    teacher: SentenceTransformer,
    texts: Dataset,
    cache_dir: str | Path | None = None,
    *,
    column: str = "text",
    batch_size: int = 128,
    bf16: bool | None = None,
    dtype: str = "float32",
) -> Dataset:
    """Return ``texts`` with the teacher's embeddings beside each, in a column ``label``, of float32 by default.

    The embeddings are computed once and kept in ``cache_dir/<teacher>-<texts>-<precision>/``, a shard per :data:`SHARD`
    sentences (:data:`ENDPOINT_SHARD` of an endpoint's): an interrupted pass goes on with the shards that are missing,
    and a second process waits for the first. Processes that train together share the shards out. The result is
    memory-mapped, so it costs the memory of a batch however long the text is. A text that the cache holds among other
    texts, in the same precision, is not embedded again. What is still to be computed, its size on disk, how long it
    will take and what is sent to an endpoint are logged first.

    Args:
        teacher: as :func:`load_teacher` gives it; its default prompt is applied.
        texts: a column of sentences.
        cache_dir: default ``distilface`` in the cache folder of the data sets library.
        column: the column that holds the text.
        batch_size: sentences in one forward pass, of similar lengths.
        bf16: autocast to bf16; ``None`` does so where the machine has it. An endpoint computes in what it has.
        dtype: what they are kept in; of float16 and int8, :func:`distilface.embedding.rounding.restored` makes float32.

    Raises:
        InputError: if the disk has no room for them, the teacher gives NaN, or a shard is damaged.
    """
    bf16 = computes_in_bf16(teacher, bf16)
    shard = SHARD if client_of(teacher) is None else ENDPOINT_SHARD
    if teacher.get_embedding_dimension() is None:
        raise InputError("the teacher does not tell the width of its embeddings; use one with a pooling")
    name = cache_name(teacher, texts, column, bf16, dtype)
    store = Store(cache_folder(cache_dir) / name, "label", "the teacher", dtype)
    texts = texts.select_columns([column])
    sizes = [min(shard, len(texts) - start) for start in range(0, len(texts), shard)]
    if processes.from_first(lambda: store.missing(len(sizes))):
        with store.locked(wait=True) if processes.is_first() else nullcontext():
            missing = processes.from_first(lambda: _begin(store, len(sizes)))
            _compute(teacher, texts, store, sizes, missing, batch_size, bf16)
            processes.wait()
    return store.beside(texts, sizes)


def _begin(store: Store, count: int) -> list[int]:
    """Return the shards that are missing, with those of an older version renamed.

    Those were folders of data sets, each named after the first of its rows.
    """
    for file in store.folder.glob(f"{'[0-9]' * 9}/data-00000-of-00001.arrow"):
        file.replace(store.path_of(int(file.parent.name) // SHARD))
        shutil.rmtree(file.parent)
    return store.missing(count)


def _rate(teacher: SentenceTransformer, sample: list[str], bf16: bool) -> float:
    """Return the sentences a second that a teacher embeds, measured for a second after its first pass.

    In that pass the kernels for bf16 are made, which can take longer than all that is measured; the texts come by
    length, as in the computation.
    """
    done = 0
    with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
        teacher.encode(sample[:128], show_progress_bar=False)
        began = time.perf_counter()
        while done < len(sample) and time.perf_counter() < began + 1:
            done += len(teacher.encode(sample[done : done + 128], show_progress_bar=False))
    return done / (time.perf_counter() - began)


def _give_back() -> None:
    """Give memory that is free back to the system.

    glibc keeps what a shard leaves in pieces between what stays: about 110 bytes a row by measurement, for good.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _compute(
    teacher: SentenceTransformer,
    texts: Dataset,
    store: Store,
    sizes: list[int],
    missing: list[int],
    batch_size: int,
    bf16: bool,
) -> None:
    """Embed this process's part of the missing shards.

    Within one, sentences are batched by length (``encode`` sorts them).
    """
    starts, column = np.cumsum([0, *sizes]), texts.column_names[0]

    def sentences_of(number: int) -> list[str]:
        """Read the sentences of a shard."""
        return list(texts[starts[number] : starts[number + 1]][column])

    written, width = sum(sizes[number] for number in missing), teacher.get_embedding_dimension() or 0
    if not written:  # another process has computed them meanwhile
        return
    known = Known(store, {number: sizes[number] for number in missing}, sentences_of)
    found = known.count()
    rows, size = written - found, written * (bytes_of(width, store.dtype) + KEY_BYTES)
    logger.info(
        f"teacher: {rows:,} of {len(texts):,} embeddings to compute, {width} x {store.dtype}, {size / 1e6:,.0f} MB in "
        f"{store.folder}" + (f"; {found:,} are taken from those of other text" if found else "")
    )
    processes.from_first(lambda: store.check_room(size, "another folder with --cache-dir"))
    announce_cost(teacher, (text for number in missing for text in known.missing(number, sentences_of(number))))
    if rows >= TIMED and client_of(teacher) is None:
        sample = texts[np.linspace(0, len(texts) - 1, SAMPLE).astype(int)][column]
        rate = _rate(teacher, sample, bf16) * processes.count()
        logger.info(f"teacher: {rate:,.0f} sentences a second of your text, so about {duration(rows / rate)}")
    mine = missing[processes.index() :: processes.count()]
    kept = len(texts) - written
    with tqdm(
        total=kept + sum(sizes[number] for number in mine),
        initial=kept,
        desc="teacher",
        unit=" sentences",
        unit_scale=True,
        disable=not processes.is_first(),
    ) as bar:
        for number in mine:
            sentences = sentences_of(number)
            embeddings = np.empty((len(sentences), width), np.float32)
            new = known.fill(number, embeddings)
            if len(new):
                with torch.autocast(teacher.device.type, torch.bfloat16, enabled=bf16):
                    embeddings[new] = teacher.encode(
                        [sentences[row] for row in new], batch_size=batch_size, show_progress_bar=False
                    )
            store.write(number, sentences, embeddings)
            keep_keys(store.path_of(number), keys_of(sentences))
            _give_back()
            bar.update(len(sentences))
