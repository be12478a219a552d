"""A folder of .parquet files, and what its embeddings are compared with."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sentence_transformers import SentenceTransformer
from tiny import sentences, tiny_model

from distilface import cli
from distilface.model.folder import save_folder

#: Row groups of 10: by the settings below the second file is cut into two parts. Some texts are empty or cut.
FILES = {
    "a.parquet": [*sentences(7), "", "the dog " * 70],
    "b.parquet": [*sentences(33, seed=1), " \t "],
    "sub/c.parquet": sentences(5, seed=2),
}
TEXTS = [text for texts in FILES.values() for text in texts]
PARTS = [f"part-{number:05d}.parquet" for number in range(4)]
SMALL = ("--part_rows", "20", "--chunk_rows", "8", "--batch_size", "4", "--threads", "1")


def write_files(folder: Path) -> Path:
    """Write :data:`FILES`, one file that holds no row, and two that other programs leave beside theirs."""
    for name, texts in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": range(len(texts)), "text": texts}), folder / name, row_group_size=10)
    empty = pa.table({"n": pa.array([], pa.int64()), "text": pa.array([], pa.string())})
    pq.write_table(empty, folder / "aa.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_metadata.parquet").write_bytes(b"not one of the files")
    return folder


def run(model: Path, source: object, output: object, *words: str) -> Any:
    return cli.run(["encode", str(model), str(source), str(output), *SMALL, *words])


def save_model(place: Path) -> Path:
    """Save a tiny model, and return its folder."""
    save_folder(tiny_model(place / "made"), place / "m")
    return place / "m"


def embed_files(model: Path, place: Path) -> tuple[Path, Path, Any]:
    """Write the files and embed them without Ray: the input, the output, and what is told of it."""
    write_files(place / "in")
    return place / "in", place / "out", run(model, place / "in", place / "out", "--keep-text")


def expected(model: Path) -> np.ndarray:
    """Embed every text alone, by plain upstream code; without text, zeros."""
    upstream = SentenceTransformer(str(model), device="cpu")
    return np.array([upstream.encode(text) if text.strip() else np.zeros(32, np.float32) for text in TEXTS])


def content(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a local folder."""
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
