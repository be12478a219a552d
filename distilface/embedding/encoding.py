"""A model folder over a file of text of any size: every row's embedding in one file, in bounded memory."""

import contextlib
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from distilface.data.text_file import Survey, TextFile
from distilface.embedding.ray_workers import on_ray
from distilface.embedding.settings import EncodeSettings, check, check_free, plan_of, variant_of
from distilface.embedding.store import Parts, embedding_table
from distilface.embedding.worker import Done, Variant, in_process
from distilface.model.folder import load
from distilface.settings import InputError


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
    check(settings, parts)
    source.check()
    variant = variant_of(settings)
    # Ray's workers load their own, where the device is; of this one they leave the width and the length to be told.
    model = load(settings.folder, settings.device if settings.engine == "local" else "cpu")
    survey = source.survey()
    plan = plan_of(settings, variant, survey)
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
            _compute(settings, variant, model, source, survey, parts, todo)
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


def _finished_before(parts: Parts, plan: dict[str, Any]) -> Encoded | None:
    """Do the last step of a run that was killed before it, and return what that run has done if it is this one."""
    before, summary = parts.plan, parts.summary
    if summary is None:
        return None
    parts.settle()
    return Encoded(**summary) if before == plan else None


def _begin(settings: EncodeSettings, parts: Parts, plan: dict[str, Any]) -> None:
    """Begin, or go on; refuse to replace an output, or the beginning of another encoding, unasked."""
    check_free(settings)
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
    settings: EncodeSettings,
    variant: Variant,
    model: SentenceTransformer,
    source: TextFile,
    survey: Survey,
    parts: Parts,
    todo: set[int],
) -> None:
    """Write the parts that are missing."""
    if not todo:
        return
    if settings.engine == "ray":
        engine = on_ray(variant, source, survey, todo, settings.workers)
    else:
        engine = in_process(variant, model, source.known_chunks(survey, todo))
    kept = survey.rows - sum(survey.sizes[number] for number in todo)
    bar = tqdm(total=survey.rows, initial=kept, desc="encode", unit=" rows", unit_scale=True)
    with bar, contextlib.closing(engine) as done:
        for chunk in done:
            _check_finite(chunk, settings.folder)
            texts = chunk.texts if settings.keep_text else None
            table = embedding_table(chunk.number * settings.chunk_rows, chunk.embeddings, texts)
            parts.write(chunk.number, table, chunk.truncated)
            bar.update(len(chunk.texts))


def _check_finite(chunk: Done, folder: str) -> None:
    """Refuse NaN before it is kept: computed anew, it would be the same."""
    bad = ~np.isfinite(chunk.embeddings).all(axis=1)
    if bad.any():
        text = chunk.texts[int(bad.argmax())]
        raise InputError(f"{folder} gives NaN or infinity for {text!r:.60}; use another model")
