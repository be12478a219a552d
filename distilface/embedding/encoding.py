"""A model folder over a file of text of any size: every row's embedding in one file, in bounded memory."""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from distilface.data.text_file import Survey, TextFile
from distilface.embedding.output import Output, columns_of
from distilface.embedding.partitions import encode_folder
from distilface.embedding.ray_workers import on_ray
from distilface.embedding.report import Encoded
from distilface.embedding.settings import (
    EncodeSettings,
    check,
    check_free,
    difference,
    is_of_folders,
    key_of,
    model_of,
    variant_of,
)
from distilface.embedding.worker import Variant, in_process
from distilface.model.folder import open_folder
from distilface.model.static import length_limit
from distilface.settings import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """All that an encoding works with."""

    settings: EncodeSettings
    output: Output
    source: TextFile
    survey: Survey
    variant: Variant
    model: SentenceTransformer

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.model.get_embedding_dimension() or 0


def encode(settings: EncodeSettings) -> Encoded:
    """Embed every row of a file, in order, into one file; an interrupted pass goes on where it stopped.

    A folder is embedded part by part (:func:`~distilface.embedding.partitions.encode_folder`). A file is read once for
    its mistakes. Then chunks of it are embedded, and each is kept as a shard in ``<output>.shards/``; at the end the
    shards become the output in one step, and are dropped. The same file, folder and settings give the same bytes,
    resumed or not: the batches are the same.

    A .parquet has the columns ``row`` (from 0), ``text`` if asked, and ``embedding``, a list of fixed size; a .npy is
    an array of shape (rows, width). Both are float32. A row without text keeps its place and is zeros; of a text that
    is longer than the model reads, the first part counts.

    Raises:
        InputError: on a mistake in the settings, the folder or the input (with its line), an output that is there,
            shards of another encoding, a disk without room, or a model that gives NaN.
        KeyboardInterrupt: on Ctrl-C, saying how to go on.
    """
    if is_of_folders(settings):
        return encode_folder(settings)
    output = Output(Path(settings.output), settings.folder)
    source = TextFile(Path(settings.input), settings.text_column, settings.chunk_rows)
    output.drop_empty()
    check(settings, output)
    source.check()
    folder = open_folder(settings.folder)
    variant = variant_of(settings, folder)
    task = _Task(settings, output, source, source.survey(), variant, model_of(settings, folder))
    key = key_of(settings, folder, variant, task.survey.text_sha256)
    with output.locked():
        report = _settled(output, key)
        if report is None:
            _begin(settings, output, key)
            report = _run(task)
            output.finish(asdict(report))
    return report


def _settled(output: Output, key: dict[str, Any]) -> Encoded | None:
    """Do the last step of a run that was killed before it, and return that run's report if it is of this encoding."""
    note = output.note
    if "report" not in note:
        return None
    output.settle()
    return Encoded(**note["report"]) if note["key"] == key else None


def _begin(settings: EncodeSettings, output: Output, key: dict[str, Any]) -> None:
    """Begin, or go on; without ``overwrite``, refuse to replace an output or the start of another encoding."""
    check_free(settings)
    before = output.note.get("key")
    if before == key:
        return
    if before is not None:
        if not settings.overwrite:
            raise InputError(
                f"{output.folder} holds the beginning of another encoding ({difference(before, key)}); go on with "
                "what it was begun with, begin anew with --overwrite, or name another output"
            )
        logger.warning("%s: the beginning of another encoding is dropped (%s)", output.folder, difference(before, key))
    output.begin(key)


def _run(task: _Task) -> Encoded:
    """Write the shards that are missing, and join all of them."""
    output, survey = task.output, task.survey
    missing = output.missing(len(survey.sizes))
    rows = sum(survey.sizes[number] for number in missing)
    _announce(task, rows)
    began = time.perf_counter()
    try:
        if missing:
            _write(task, missing, rows)
        seconds = time.perf_counter() - began
        truncated, size = output.join(survey.sizes, task.width)
    except KeyboardInterrupt:
        kept = survey.rows - sum(survey.sizes[number] for number in output.missing(len(survey.sizes)))
        raise KeyboardInterrupt(
            f"{kept:,} of {survey.rows:,} rows are kept in {output.folder}; run the same command again to go on"
        ) from None
    return Encoded(
        output=task.settings.output,
        rows=survey.rows,
        width=task.width,
        empty=survey.empty,
        truncated=truncated,
        limit=length_limit(task.model),
        megabytes=size / 1e6,
        computed=rows,
        seconds=seconds,
    )


def _announce(task: _Task, rows: int) -> None:
    """Log what is to be done, and refuse a disk that has no room: shards and whole file stand side by side."""
    survey, variant = task.survey, task.variant
    each = task.width * 4 + (8 if task.output.file.suffix == ".parquet" else 0)
    size = survey.rows * each + (survey.bytes if task.settings.keep_text else 0)
    kept = f", {survey.rows - rows:,} are there" if rows < survey.rows else ""
    export = variant.export
    kind = f"{variant.name} ({export.file.name} {export.words}".rstrip() + ")" if export else variant.name
    logger.info(
        f"encode: {rows:,} of {survey.rows:,} rows to compute{kept}; {kind}, {task.width} dimensions, "
        f"about {size / 1e6:,.1f} MB in {task.output.file}"
    )
    task.output.check_room(size + size * rows // survey.rows, "a file elsewhere")


def _write(task: _Task, missing: list[int], rows: int) -> None:
    """Embed the chunks that are missing, ``rows`` in all, and write each as a shard."""
    settings, survey = task.settings, task.survey
    if settings.engine == "ray":
        chunks = on_ray(task.variant, task.source, survey, missing, settings.workers)
    else:
        chunks = in_process(task.variant, task.model, task.source.surveyed_chunks(survey, missing))
    bar = tqdm(total=survey.rows, initial=survey.rows - rows, desc="encode", unit=" rows", unit_scale=True)
    with bar, contextlib.closing(chunks):
        for chunk in chunks:
            columns = columns_of(chunk.number * settings.chunk_rows, chunk.texts, settings.keep_text)
            task.output.write(chunk.number, chunk.texts, chunk.embeddings, columns, chunk.truncated)
            bar.update(len(chunk.texts))
