"""The rows of a suite's tasks, checked, in the form that mteb's classes read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict

from distilface.data.columns import checked_text, pick
from distilface.data.pairs import read_pairs
from distilface.data.rows import read_objects, read_rows
from distilface.evaluation.local_tasks import in_orders, search_data
from distilface.settings import InputError


def text_of(row: dict[str, Any], column: str, where: str) -> str:
    """Return the text in a column of a row.

    Raises:
        InputError: if it is not text, or empty.
    """
    return _filled(row[column], column, where)


def _filled(value: Any, column: str, where: str) -> str:
    text = checked_text(value, f"{where}, column {column!r}")
    if not text.strip():
        raise InputError(f"{where}: {column} is empty; fill it or leave the row out")
    return text


def check_some(rows: Any, file: Path, what: str) -> None:
    """Check that there are rows.

    Raises:
        InputError: if not.
    """
    if not len(rows):
        raise InputError(f"{file} holds no {what}")


def _numbered(labels: list[Any]) -> list[int]:
    """Number the labels: mteb's average precision of two classes takes numbers only."""
    numbers = {label: number for number, label in enumerate(sorted(set(labels), key=str))}
    return [numbers[label] for label in labels]


def _label(row: dict[str, Any], where: str) -> str | int:
    label = row["label"]
    if not isinstance(label, str | int) or isinstance(label, bool):
        raise InputError(f"{where}: the label {label!r:.60} is neither a text nor a whole number")
    return label


def classification(file: Path) -> DatasetDict:
    """Read rows of ``text``, ``label`` and ``split`` (``train`` or ``test``)."""
    rows: dict[str, list[str]] = {"text": [], "split": []}
    labels = []
    for where, row in read_rows(file, ["text", "label", "split"]):
        if row["split"] not in ("train", "test"):
            raise InputError(f"{where}: the split {row['split']!r:.60} is neither 'train' nor 'test'")
        rows["text"].append(text_of(row, "text", where))
        rows["split"].append(row["split"])
        labels.append(_label(row, where))
    numbers = _numbered(labels)
    splits = {}
    for split in ("train", "test"):
        at = [number for number, name in enumerate(rows["split"]) if name == split]
        check_some(at, file, f"row of the split {split!r}")
        splits[split] = Dataset.from_dict({"text": [rows["text"][i] for i in at], "label": [numbers[i] for i in at]})
    if len(set(splits["train"]["label"])) < 2:
        raise InputError(f"{file}: the training rows have one label; a classifier needs two or more")
    return DatasetDict(splits)


def clustering(file: Path) -> DatasetDict:
    """Read rows of ``text`` and ``label``."""
    texts, labels = [], []
    for where, row in read_rows(file, ["text", "label"]):
        texts.append(text_of(row, "text", where))
        labels.append(_label(row, where))
    if len(set(labels)) < 2:
        raise InputError(f"{file}: {len(set(labels))} labels; a clustering needs two or more")
    return in_orders(texts, _numbered(labels))


def pair_classification(file: Path) -> DatasetDict:
    """Read rows of ``sentence1``, ``sentence2`` and ``label`` (0 or 1)."""
    columns: dict[str, list[Any]] = {"sentence1": [], "sentence2": [], "labels": []}
    for where, row in read_rows(file, ["sentence1", "sentence2", "label"]):
        if row["label"] not in (0, 1):
            raise InputError(f"{where}: the label {row['label']!r:.60} is neither 0 nor 1")
        for column in ("sentence1", "sentence2"):
            columns[column].append(text_of(row, column, where))
        columns["labels"].append(int(row["label"]))
    if len(set(columns["labels"])) < 2:
        raise InputError(f"{file}: pairs of both labels, 0 and 1, are needed")
    return DatasetDict({"test": Dataset.from_dict(columns)})


def sts(file: Path) -> DatasetDict:
    """Read rows of ``sentence1``, ``sentence2`` and ``score``."""
    return DatasetDict({"test": Dataset.from_list(read_pairs(file, least=2))})


def _entries(file: Path, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, row in read_objects(file, ["kind", "id", "text"]):
        if row["kind"] not in ("doc", "query"):
            raise InputError(f"{where}: the kind {row['kind']!r:.60} is neither 'doc' nor 'query'")
        if row["kind"] == kind:
            yield where, row


def _keyed(file: Path, kind: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the documents or queries of a file by their ids, each with its place."""
    entries: dict[str, tuple[str, dict[str, Any]]] = {}
    for where, row in _entries(file, kind):
        if (key := str(row["id"])) in entries:
            raise InputError(f"{where}: a second {kind} with the id {key!r}; an id names one")
        entries[key] = where, {"id": key, "text": text_of(row, "text", where), "relevant": row.get("relevant")}
    check_some(entries, file, f"row of the kind {kind!r}")
    return entries


def _judged(row: dict[str, Any], documents: dict[str, Any], where: str) -> dict[str, int]:
    relevant = pick(row, ["relevant"], where)["relevant"]
    if not isinstance(relevant, dict) or not all(isinstance(gain, int) for gain in relevant.values()):
        raise InputError(f"{where}: relevant is not an object of document ids and whole numbers")
    if unknown := next((key for key in relevant if key not in documents), None):
        raise InputError(f"{where}: relevant names the document {unknown!r}, which the file has not")
    if not any(gain > 0 for gain in relevant.values()):
        raise InputError(f"{where}: the query has no relevant document; leave it out")
    return relevant


def retrieval(file: Path) -> dict[str, Any]:
    """Read rows of ``kind`` (``doc`` or ``query``), ``id`` and ``text``; queries have ``relevant`` (id to gain)."""
    documents, queries = _keyed(file, "doc"), _keyed(file, "query")
    relevant = {key: _judged(row, documents, where) for key, (where, row) in queries.items()}
    return search_data(_texts(documents), _texts(queries), relevant)


def _texts(entries: dict[str, tuple[str, dict[str, Any]]]) -> Dataset:
    return Dataset.from_list([{"id": key, "text": row["text"]} for key, (_, row) in entries.items()])


def reranking(file: Path) -> dict[str, Any]:
    """Read rows of ``query``, ``positive`` and ``negative``, lists of texts."""
    documents, queries = [], []
    relevant: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    for number, (where, row) in enumerate(read_rows(file, ["query", "positive", "negative"])):
        query = f"query{number}"
        queries.append({"id": query, "text": text_of(row, "query", where)})
        relevant[query], candidates[query] = {}, []
        for column, gain in (("positive", 1), ("negative", 0)):
            if not isinstance(row[column], list) or not row[column]:
                raise InputError(f"{where}: {column} is not a list of one text or more")
            for place, value in enumerate(row[column]):
                key = f"{query}-{column}{place}"
                documents.append({"id": key, "text": _filled(value, column, where)})
                relevant[query][key] = gain
                candidates[query].append(key)
    check_some(queries, file, "row")
    return search_data(Dataset.from_list(documents), Dataset.from_list(queries), relevant, candidates)


#: What reads the rows of each type of tasks.
READERS: dict[str, Callable[[Path], Any]] = {
    "classification": classification,
    "clustering": clustering,
    "retrieval": retrieval,
    "reranking": reranking,
    "pair_classification": pair_classification,
    "sts": sts,
}
