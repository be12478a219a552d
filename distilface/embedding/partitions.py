"""A model folder over a folder of .parquet files, local or in a store: each part is read and written by one worker."""

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from tqdm import tqdm

from distilface.data.location import UNFINISHED, Location
from distilface.data.parquet_folder import READERS, ParquetFolder, Part
from distilface.embedding.part_writer import PartTask, PartWriter, Written, kept, name_of
from distilface.embedding.ray_workers import parts_on_ray
from distilface.embedding.report import Encoded
from distilface.embedding.settings import EncodeSettings, check_folders, difference, key_of, model_of, variant_of
from distilface.embedding.store import Store
from distilface.model.folder import open_folder
from distilface.model.static import length_limit
from distilface.settings import InputError

logger = logging.getLogger(__name__)
#: The file of the output that says of what encoding it is, and at the end what it holds.
KEY = "_distilface.json"
LOCK = "lock"


@dataclass(frozen=True)
class _Work:
    """The parts of an encoding, and what makes them."""

    settings: EncodeSettings
    task: PartTask
    parts: list[Part]
    model: SentenceTransformer

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(part.rows for part in self.parts)


def encode_folder(settings: EncodeSettings) -> Encoded:
    """Embed every row of a folder of .parquet files, in order, into a folder of them.

    A part is a file, or some row groups of a large one; ``part-00000.parquet`` and so on hold the rows in the order of
    the files' names. Each is written whole or not at all, and one that is there is not made again: so the same command
    goes on after a stop, and does nothing after the end. The same input, folder and settings give the same bytes, with
    any engine and any number of workers.

    Raises:
        InputError: on a mistake in the settings, the folder or the input (with its row), an output that holds something
            else or another encoding, or a store that does not answer.
        KeyboardInterrupt: on Ctrl-C, saying how to go on.
    """
    source = ParquetFolder(Location.of(settings.input), settings.text_column)
    output = Location.of(settings.output)
    check_folders(settings, source.location, output)
    parts = source.parts(settings.part_rows)
    folder = open_folder(settings.folder)
    variant, model = variant_of(settings, folder), model_of(settings, folder)
    files = sorted({(part.file, part.size, part.stamp) for part in parts})
    key = key_of(settings, folder, variant, _digest(files))
    key |= {"text_column": settings.text_column, "part_rows": settings.part_rows}
    width = model.get_embedding_dimension() or 0
    task = PartTask(variant, source, output, settings.chunk_rows, settings.keep_text, width, _digest(key))
    work = _Work(settings, task, parts, model)
    with _locked(work):
        _begin(work, key)
        return _run(work, key)


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@contextlib.contextmanager
def _locked(work: _Work) -> Iterator[None]:
    """Keep other processes from a local folder, and refuse a disk without room; a store has no locks and no size."""
    output = work.task.output
    if not output.is_local:
        yield
        return
    store = Store(output.path, "embedding", work.settings.folder)
    with store.locked():
        output.clear()
        missing = sum(part.rows for part in work.parts if not (output.path / name_of(part)).is_file())
        store.check_room(missing * (work.task.width * 4 + 8), "a folder elsewhere")
        yield


def _begin(work: _Work, key: dict[str, Any]) -> None:
    """Begin, or go on; without ``overwrite``, refuse a folder of another encoding, and always one of something else."""
    output = work.task.output
    note = output.read_json(KEY)
    names = [entry.name for entry in output.entries() if entry.name != LOCK and not entry.name.startswith(UNFINISHED)]
    if note is None and names:
        raise InputError(f"{output} is not empty ({names[0]}) and holds no encoding; name another folder")
    if note is not None and note["key"] == key:
        return
    if note is not None:
        other = difference(note["key"], key)
        if not work.settings.overwrite:
            raise InputError(
                f"{output} holds another encoding ({other}); go on with what it was begun with, begin anew with "
                "--overwrite, or name another output"
            )
        logger.warning("%s: another encoding is dropped (%s)", output, other)
        for name in (name for name in names if name.startswith("part-")):
            output.remove(name)
    output.write_json(KEY, {"key": key})


def _run(work: _Work, key: dict[str, Any]) -> Encoded:
    """Write the parts that are missing."""
    written = _kept(work)
    missing = [part for part in work.parts if part.number not in written]
    computed = sum(part.rows for part in missing)
    _announce(work, len(missing), computed)
    began = time.perf_counter()
    try:
        _write(work, missing, written)
    except KeyboardInterrupt:
        rows = sum(part.rows for part in written.values())
        raise KeyboardInterrupt(
            f"{rows:,} of {work.rows:,} rows are kept in {work.task.output}; run the same command again to go on"
        ) from None
    report = _report(work, list(written.values()), computed, time.perf_counter() - began)
    lasting = {name: value for name, value in asdict(report).items() if name not in ("output", "computed", "seconds")}
    work.task.output.write_json(KEY, {"key": key, "report": {"parts": len(work.parts), **lasting}})
    return report


def _kept(work: _Work) -> dict[int, Written]:
    """Return the parts that an earlier run has written, by their numbers."""
    sizes = {entry.name: entry.size for entry in work.task.output.entries()}
    named = [part for part in work.parts if name_of(part) in sizes]
    with ThreadPoolExecutor(READERS) as pool:
        there = list(pool.map(lambda part: kept(work.task, part, sizes[name_of(part)]), named))
    return {part.number: part for part in there if part is not None}


def _report(work: _Work, written: list[Written], computed: int, seconds: float) -> Encoded:
    return Encoded(
        output=str(work.task.output),
        rows=work.rows,
        width=work.task.width,
        empty=sum(part.empty for part in written),
        truncated=sum(part.truncated for part in written),
        limit=length_limit(work.model),
        megabytes=sum(part.bytes for part in written) / 1e6,
        computed=computed,
        seconds=seconds,
    )


def _announce(work: _Work, missing: int, rows: int) -> None:
    there = f", {work.rows - rows:,} are there" if rows < work.rows else ""
    logger.info(
        f"encode: {rows:,} of {work.rows:,} rows to compute{there}; {missing:,} of {len(work.parts):,} parts, "
        f"{work.task.variant.name}, {work.task.width} dimensions, in {work.task.output}"
    )


def _write(work: _Work, missing: list[Part], written: dict[int, Written]) -> None:
    """Write parts, and note each as it is done."""
    if not missing:
        return
    if work.settings.engine == "ray":
        parts = parts_on_ray(work.task, missing, work.settings.workers)
    else:
        parts = _in_process(work, missing)
    done = sum(part.rows for part in written.values())
    bar = tqdm(total=work.rows, initial=done, desc="encode", unit=" rows", unit_scale=True)
    with bar, contextlib.closing(parts):
        for part in parts:
            written[part.number] = part
            bar.update(part.rows)


def _in_process(work: _Work, parts: list[Part]) -> Generator[Written, None, None]:
    """Write parts one after the other; torch's number of threads is restored at the end."""
    threads = torch.get_num_threads()
    try:
        writer = PartWriter(work.task, work.model)
        for part in parts:
            yield writer.write(part)
    finally:
        torch.set_num_threads(threads)
