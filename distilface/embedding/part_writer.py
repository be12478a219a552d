"""One part of a folder of text: read, embedded and written by one worker, whole or not at all."""

import json
import logging
import socket
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer

from distilface.data.location import Location
from distilface.data.parquet_folder import ParquetFolder, Part
from distilface.data.text_file import is_empty
from distilface.embedding.output import columns_of
from distilface.embedding.store import check_finite, fixed_lists
from distilface.embedding.worker import Done, Variant, Worker
from distilface.settings import InputError

logger = logging.getLogger(__name__)
#: What a part says of itself, in its metadata.
NOTE = "distilface"


class Written(NamedTuple):
    """A part that is written.

    Attributes:
        number: of the part.
        rows: in it.
        empty: rows without text, of zeros.
        truncated: rows that the model has not read to their end.
        bytes: of its file.
    """

    number: int
    rows: int
    empty: int
    truncated: int
    bytes: int


@dataclass(frozen=True)
class PartTask:
    """All that a worker needs to know, wherever it runs.

    Attributes:
        variant: what computes.
        source: the folder of text.
        output: the folder of embeddings.
        chunk_rows: rows held in memory, and in a row group of the output.
        keep_text: write the text too.
        width: of an embedding.
        key: of all that decides the bytes; a part of another key is not one of these.
    """

    variant: Variant
    source: ParquetFolder
    output: Location
    chunk_rows: int
    keep_text: bool
    width: int
    key: str

    @property
    def schema(self) -> pa.Schema:
        """The columns of a part."""
        text = [pa.field("text", pa.large_string())] if self.keep_text else []
        return pa.schema([("row", pa.int64()), *text, ("embedding", pa.list_(pa.float32(), self.width))])


def name_of(part: Part) -> str:
    """Return the name of the file that a part becomes; in the order of the names, rows are in theirs."""
    return f"part-{part.number:05d}.parquet"


class PartWriter:
    """One model over parts.

    Args:
        task: what is to be done.
        model: the folder's, on the variant's device, where it is loaded already.
    """

    def __init__(self, task: PartTask, model: SentenceTransformer | None = None) -> None:
        self.task, self.worker = task, Worker(task.variant, model)

    def write(self, part: Part) -> Written:
        """Embed one part.

        Raises:
            InputError: on a mistake in the text, a model that gives NaN, or a folder that is not on this machine.
        """
        task, name = self.task, name_of(part)
        if task.output.is_local and not task.output.path.is_dir():
            problem = f"{task.output} is not on the machine {socket.gethostname()}"
            raise InputError(f"{problem}; name a folder that all machines of the cluster share, or a URL")
        rows = empty = truncated = 0
        with task.output.new_file(name) as file:
            with pq.ParquetWriter(file, task.schema, use_dictionary=False) as writer:
                for number, texts in enumerate(task.source.chunks(part, task.chunk_rows)):
                    done = self.worker.encode(number, texts)
                    writer.write_table(self._table(part.first + rows, done))
                    rows += len(texts)
                    empty += sum(map(is_empty, texts))
                    truncated += done.truncated
                note = {"key": task.key, "file": part.file, "first": part.first_of_file, "rows": rows}
                note |= {"empty": empty, "truncated": truncated}
                writer.add_key_value_metadata({NOTE: json.dumps(note)})
            size = file.tell()
        return Written(part.number, rows, empty, truncated, size)

    def _table(self, first: int, done: Done) -> pa.Table:
        problem = f"{self.task.variant.folder} gives NaN or infinity for"
        check_finite(done.texts, done.embeddings, problem, "use another model")
        columns = columns_of(first, done.texts, self.task.keep_text)
        return pa.table({**columns, "embedding": fixed_lists(done.embeddings)}, schema=self.task.schema)


def kept(task: PartTask, part: Part, size: int) -> Written | None:
    """Return a part that an earlier run has written, in so many bytes; ``None`` if it is damaged or of another key."""
    name = name_of(part)
    try:
        with task.output.opened(name) as opened, pq.ParquetFile(opened) as file:
            note = json.loads((file.metadata.metadata or {}).get(NOTE.encode(), b"{}"))
            rows = file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        logger.warning("%s/%s is damaged (%s), and is made again", task.output, name, type(error).__name__)
        return None
    if note.get("key") != task.key or rows != part.rows:
        logger.warning("%s/%s is not of this encoding, and is made again", task.output, name)
        return None
    return Written(part.number, rows, note["empty"], note["truncated"], size)
