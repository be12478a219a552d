"""A model folder over a file of text of any size: every row's embedding in one file, in bounded memory."""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from distilface.chunks import Survey, TextFile
from distilface.engines import VARIANTS, Job, Variant, in_process, int8_export, on_ray
from distilface.folder import Folder, load
from distilface.parts import OUTPUTS, Parts, embedding_table
from distilface.settings import InputError, check_known, setting

ENGINES = ("local", "ray")


@dataclass
class EncodeSettings:
    """What ``encode`` can be told."""

    folder: str = setting("", "the model folder; also as the first word")
    input: str = setting("", "a .txt (a row a line), .csv, .tsv, .jsonl (also .gz) or .parquet; also the second word")
    output: str = setting("", "the .parquet or .npy file to write; also as the third word")
    text_column: str = setting("text", "the column of the text, in files with columns")
    keep_text: bool = setting(False, "write the text beside each embedding, into a .parquet")
    variant: str = setting("fp32", "fp32, bf16, or int8 by the folder's export for this processor")
    batch_size: int = setting(32, "texts in one forward pass, of similar lengths")
    chunk_rows: int = setting(8192, "rows held in memory and written at a time; a kill loses at most these")
    threads: int | None = setting(None, "of one process; default torch's. Another number can change the last bits")
    device: str = setting("cpu", "what fp32 and bf16 run on: cpu, cuda, mps")
    engine: str = setting("local", "local: one process; ray: workers on Ray, the same bytes")
    workers: int | None = setting(None, "workers of --engine ray; default as many as it has CPUs for")
    overwrite: bool = setting(False, "replace the output, and drop the beginning of another encoding to it")


@dataclass(frozen=True)
class Encoded:
    """What was done.

    Attributes:
        output: the file.
        rows: in it.
        width: of an embedding.
        empty: rows without text, of zeros.
        truncated: rows of which the model has not read all.
        limit: the most tokens that it reads.
        megabytes: of 10^6 bytes, of the file.
        computed: rows that this run has computed; the others were there.
        seconds: that they took.
    """

    output: str
    rows: int
    width: int
    empty: int
    truncated: int
    limit: int | None
    megabytes: float
    computed: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.computed / self.seconds:,.0f} rows a second" if self.computed else ""
        return (
            f"{self.output}: {self.rows:,} rows of {self.width} numbers, {self.megabytes:,.1f} MB{rate}; "
            f"{self.empty:,} empty (zeros), {self.truncated:,} cut at {self.limit} tokens"
        )


def encode(settings: EncodeSettings) -> Encoded:
    """Embed every row of a file, in order, into one file; an interrupted pass goes on where it stopped.

    The input is read once for its mistakes. Then chunks of it are embedded, and each is kept whole in
    ``<output>.parts/``; at the end they become the output in one step, and are dropped. The same file, folder and
    settings give the same bytes, resumed or not: the batches are the same.

    A .parquet has the columns ``row`` (from 0), ``text`` if asked, and ``embedding``, a list of fixed size; a .npy is
    an array of shape (rows, width). Both are float32. A row without text keeps its place and is zeros; of a text that
    is longer than the model reads, the first part counts.

    Raises:
        InputError: on a mistake in the settings, the folder or the input (with its line), an output that is there,
            parts of another encoding, a disk without room, or a model that gives NaN.
        KeyboardInterrupt: on Ctrl-C, saying how to go on.
    """
    parts = Parts(Path(settings.output))
    source = TextFile(Path(settings.input), settings.text_column, settings.chunk_rows)
    _check(settings, parts)
    source.check()
    variant = _variant(settings)
    model = load(settings.folder)
    survey = source.survey()
    plan = _plan(settings, variant, survey)
    with parts.locked():
        if (found := _finished_before(parts, plan)) is not None:
            return found
        _begin(settings, parts, plan)
        width = model.get_embedding_dimension() or 0
        todo = set(range(len(survey.sizes))) - set(parts.done(len(survey.sizes)))
        rows = sum(survey.sizes[number] for number in todo)
        _announce(settings, variant, survey, rows, width)
        began = time.perf_counter()
        try:
            _compute(settings, variant, source, survey, parts, todo)
            seconds = time.perf_counter() - began
            truncated, size = parts.join(survey.sizes, width)
        except KeyboardInterrupt:
            kept = sum(survey.sizes[number] for number in parts.done(len(survey.sizes)))
            raise KeyboardInterrupt(
                f"{kept:,} of {survey.rows:,} rows are kept in {parts.folder}; run the same command again to go on"
            ) from None
        found = Encoded(
            output=settings.output,
            rows=survey.rows,
            width=width,
            empty=survey.empty,
            truncated=truncated,
            limit=model.max_seq_length,
            megabytes=size / 1e6,
            computed=rows,
            seconds=seconds,
        )
        parts.finish(asdict(found))
    return found


def _check(settings: EncodeSettings, parts: Parts) -> None:
    """Refuse settings that cannot be followed, before anything is read."""
    output = Path(settings.output)
    check_known([settings.variant], VARIANTS, "variant")
    check_known([settings.engine], ENGINES, "engine")
    if output.suffix not in OUTPUTS:
        raise InputError(f"{output}: {output.suffix or 'no'} suffix; embeddings are written to {' or '.join(OUTPUTS)}")
    if settings.keep_text and output.suffix == ".npy":
        raise InputError(f"{output} has no place for text; name a .parquet, or leave out --keep_text")
    for name in ("batch_size", "chunk_rows", "threads", "workers"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} is {value}; it must be 1 or more")
    if settings.variant == "int8" and settings.device != "cpu":
        raise InputError(f"int8 runs on the CPU, not on {settings.device}; leave --device out, or choose bf16")
    if settings.workers is not None and settings.engine != "ray":
        raise InputError(f"--workers {settings.workers} is for --engine ray; add that, or leave --workers out")
    if output.is_dir():
        raise InputError(f"{output} is a folder; name a file")
    if output.exists() and Path(settings.input).exists() and output.samefile(settings.input):
        raise InputError(f"{output} is the input as well; name another output")
    there = next(parent for parent in output.resolve().parents if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise InputError(f"{there} cannot be written to; name a file elsewhere")
    if parts.summary is None:
        _check_free(settings)


def _check_free(settings: EncodeSettings) -> None:
    if Path(settings.output).exists() and not settings.overwrite:
        raise InputError(f"{settings.output} exists; name another file, or add --overwrite")


def _variant(settings: EncodeSettings) -> Variant:
    folder = Folder(Path(settings.folder).resolve())
    Folder(Path(settings.folder)).check()
    return Variant(
        folder=str(folder.path),
        name=settings.variant,
        export=int8_export(folder) if settings.variant == "int8" else None,
        batch_size=settings.batch_size,
        threads=settings.threads or torch.get_num_threads(),
        device=settings.device,
    )


def _plan(settings: EncodeSettings, variant: Variant, survey: Survey) -> dict[str, Any]:
    """Return all that decides the bytes of the output."""
    export = hashlib.sha256(Path(variant.export).read_bytes()).hexdigest() if variant.export else None
    return {
        "folder": Folder(Path(variant.folder)).fingerprint,
        "input": survey.digest,
        "variant": variant.name,
        "export": export,
        "batch_size": variant.batch_size,
        "chunk_rows": settings.chunk_rows,
        "threads": variant.threads,
        "device": variant.device,
        "keep_text": settings.keep_text,
    }


def _finished_before(parts: Parts, plan: dict[str, Any]) -> Encoded | None:
    """Do the last step of a run that was killed before it, and return what that run has done if it is this one."""
    before, summary = parts.plan, parts.summary
    if summary is None:
        return None
    parts.settle()
    return Encoded(**summary) if before == plan else None


def _begin(settings: EncodeSettings, parts: Parts, plan: dict[str, Any]) -> None:
    """Begin, or go on; refuse to replace an output, or the beginning of another encoding, unasked."""
    _check_free(settings)
    before = parts.plan
    if before == plan:
        return
    if before is None:
        parts.begin(plan)
        return
    name = next(name for name in plan if before.get(name) != plan[name])
    known = {"folder": "the model was another", "input": "the text was another", "export": "the export was another"}
    what = known.get(name, f"--{name} was {before.get(name)} and is {plan[name]}")
    if not settings.overwrite:
        raise InputError(
            f"{parts.folder} holds the beginning of another encoding ({what}); go on with what it was begun with, "
            "begin anew with --overwrite, or name another output"
        )
    print(f"{parts.folder}: the beginning of another encoding is dropped ({what})", file=sys.stderr)
    parts.begin(plan)


def _announce(settings: EncodeSettings, variant: Variant, survey: Survey, rows: int, width: int) -> None:
    """Say what is to be done, and refuse a disk that has no room: parts and whole file stand side by side."""
    each = width * 4 + (8 if settings.output.endswith(".parquet") else 0)
    text = survey.bytes if settings.keep_text else 0
    size, there = survey.rows * each + text, survey.rows - rows
    kind = f"{variant.name} ({Path(variant.export).name})" if variant.export else variant.name
    print(
        f"encode: {rows:,} of {survey.rows:,} rows to compute{f', {there:,} are there' if there else ''}; {kind}, "
        f"{width} dimensions, about {size / 1e6:,.1f} MB in {settings.output}",
        file=sys.stderr,
    )
    needed = size + size * rows // survey.rows
    free = shutil.disk_usage(Path(settings.output).resolve().parent).free
    if needed > free:
        raise InputError(
            f"{needed / 1e6:,.1f} MB are needed for {settings.output} and its parts, and {free / 1e6:,.1f} MB are "
            "free there; free some space or name a file elsewhere"
        )


def _compute(
    settings: EncodeSettings, variant: Variant, source: TextFile, survey: Survey, parts: Parts, todo: set[int]
) -> None:
    """Write the parts that are missing."""
    texts: dict[int, list[str]] = {}  # of the chunks that are being computed: at most one for each worker

    def jobs() -> Iterator[Job]:
        for number, chunk in source.known_chunks(survey):
            if number in todo:
                texts[number] = chunk
                yield number, chunk

    if not todo:
        return
    ray = settings.engine == "ray"
    engine = on_ray(variant, jobs(), settings.workers) if ray else in_process(variant, jobs())
    kept = survey.rows - sum(survey.sizes[number] for number in todo)
    bar = tqdm(total=survey.rows, initial=kept, desc="encode", unit=" rows", unit_scale=True)
    with bar, contextlib.closing(engine) as done:
        for number, embeddings, truncated in done:
            chunk = texts.pop(number)
            _check_finite(embeddings, chunk, settings.folder)
            kept_text = chunk if settings.keep_text else None
            parts.write(number, embedding_table(number * settings.chunk_rows, embeddings, kept_text), truncated)
            bar.update(len(chunk))


def _check_finite(embeddings: np.ndarray, chunk: Sequence[str], folder: str) -> None:
    """Refuse NaN before it is kept: computed anew, it would be the same."""
    bad = ~np.isfinite(embeddings).all(axis=1)
    if bad.any():
        raise InputError(f"{folder} gives NaN or infinity for {chunk[int(bad.argmax())]!r:.60}; use another model")
