"""Text on Ray Data, embedded in any order: chunks that this machine reads, or parts that workers read and write."""

import dataclasses
from collections.abc import Collection, Generator, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from distilface.data.parquet_folder import Part
from distilface.data.text_file import Survey, TextFile
from distilface.embedding.part_writer import PartTask, PartWriter, Written
from distilface.embedding.ray_cluster import cluster_for, each_row, ray_data
from distilface.embedding.worker import Done, Variant, Worker
from distilface.settings import InputError


def on_ray(
    variant: Variant, source: TextFile, survey: Survey, numbers: Collection[int], workers: int | None = None
) -> Generator[Done, None, None]:
    """Embed chunks on Ray Data, in the order in which they get done.

    The cluster is that of :func:`~distilface.embedding.ray_cluster.cluster_for`. The input is read on this machine
    alone.

    Args:
        variant: what each worker computes.
        source: the file of text.
        survey: of that file.
        numbers: of the chunks.
        workers: how many; ``None`` takes as many as the cluster has CPUs for.

    Raises:
        InputError: as ``cluster_for``, or where the file was changed since the survey.
    """
    with cluster_for(variant, workers) as count:
        embedded = _embedded_chunks(variant, source, survey, numbers, count)
        for table in embedded.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            yield _done(table)


def parts_on_ray(task: PartTask, parts: Sequence[Part], workers: int | None = None) -> Generator[Written, None, None]:
    """Embed the parts of a folder on Ray Data, each read and written by one worker, in the order they get done.

    Local folders must lie at the same path on every machine; a store's credentials are those of each worker.

    Args:
        task: what is to be done.
        parts: that are missing.
        workers: how many; ``None`` takes as many as the cluster has CPUs for.

    Raises:
        InputError: as ``cluster_for``, and as :meth:`~distilface.embedding.part_writer.PartWriter.write`.
    """
    with cluster_for(task.variant, workers) as count:
        with ray_data() as data:
            rows = data.from_arrow([pa.Table.from_pylist([dataclasses.asdict(part)]) for part in parts])
            written = each_row(rows, _Writing, task, task.variant, min(count, len(parts)))
        for table in written.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            row = table.to_pylist()[0]
            if "mistake" in row:
                raise InputError(row["mistake"])
            yield Written(**row)


def _embedded_chunks(variant: Variant, source: TextFile, survey: Survey, numbers: Collection[int], count: int) -> Any:
    """Return a data set of Ray (``ray.data.Dataset``), computed as it is read, with a row for each chunk.

    A chunk is a block of the data set, so that Ray Data holds back the reading where the workers are behind; and one
    that was lost with its worker is computed anew by another.
    """
    import ray

    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    there = dataclasses.replace(source, path=source.path.absolute())  # an actor works in a folder of its own
    with ray_data() as data:
        chunks = data.from_arrow(pa.table({"start": [0]})).map_batches(
            _Reading,
            fn_constructor_args=(there, survey, numbers),
            compute=data.ActorPoolStrategy(size=1),
            batch_format="pyarrow",
            num_cpus=0,
            label_selector=here,
            max_restarts=0,
        )
        return each_row(chunks, _Embedding, variant, variant, count)


class _Reading:
    """Reads the chunks, each a table of one row.

    An actor, though it is called once: Ray cancels a task when the work ends early, and Ray 2.60 can crash on that
    (in one of five runs; its pull request 54798 is about such a crash).
    """

    def __init__(self, source: TextFile, survey: Survey, numbers: Collection[int]) -> None:
        self.source, self.survey, self.numbers = source, survey, numbers

    def __call__(self, _: pa.Table) -> Iterator[pa.Table]:
        for number, texts in self.source.surveyed_chunks(self.survey, self.numbers):
            yield pa.table({"number": [number], "texts": pa.array([texts], pa.large_list(pa.large_string()))})


class _Embedding:
    """Embeds the chunk of a table of one row."""

    def __init__(self, variant: Variant) -> None:
        self.worker = Worker(variant)

    def __call__(self, table: pa.Table) -> pa.Table:
        done = self.worker.encode(table["number"][0].as_py(), table["texts"][0].as_py())
        flat = pa.array([done.embeddings.reshape(-1)], pa.large_list(pa.float32()))
        return table.append_column("embeddings", flat).append_column("truncated", pa.array([done.truncated]))


class _Writing:
    """Embeds and writes the part of a table of one row; a mistake is handed over: Ray would add its own words."""

    def __init__(self, task: PartTask) -> None:
        self.writer = PartWriter(task)

    def __call__(self, table: pa.Table) -> pa.Table:
        try:
            row: dict[str, Any] = self.writer.write(Part(**table.to_pylist()[0]))._asdict()
        except InputError as error:
            row = {"mistake": str(error)}
        return pa.Table.from_pylist([row])


def _done(table: pa.Table) -> Done:
    row: dict[str, Any] = {name: table[name][0] for name in table.column_names}
    texts = row["texts"].as_py()
    embeddings = row["embeddings"].values.to_numpy().reshape(len(texts), -1)
    return Done(row["number"].as_py(), texts, np.asarray(embeddings, np.float32), row["truncated"].as_py())
