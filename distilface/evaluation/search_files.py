"""Your own search, in BEIR's layout: queries, documents, and which documents are relevant to which query."""

import logging
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from distilface.data.rows import read_objects, read_rows
from distilface.evaluation.local_tasks import search_data
from distilface.evaluation.suite_rows import check_some, text_of
from distilface.settings import InputError

logger = logging.getLogger(__name__)

COLUMNS = ("query-id", "corpus-id", "score")


@dataclass(frozen=True)
class Search:
    """A search and its judgements.

    Attributes:
        documents: the text of each by its id.
        queries: likewise; each has a relevant document.
        relevant: the gain of each judged document, by the query.
    """

    documents: dict[str, dict[str, str]]
    queries: dict[str, dict[str, str]]
    relevant: dict[str, dict[str, int]]

    @property
    def data(self) -> dict[str, Any]:
        """What mteb's class reads."""
        return search_data(_rows(self.documents), _rows(self.queries), self.relevant)

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of queries, documents and judgements."""
        judgements = sum(map(len, self.relevant.values()))
        return {"queries": len(self.queries), "documents": len(self.documents), "judgements": judgements}


def _rows(entries: dict[str, dict[str, str]]) -> Dataset:
    return Dataset.from_list([{"id": key, **row} for key, row in entries.items()])


def read_search(queries: str | Path, documents: str | Path, relevant: str | Path) -> Search:
    """Read a search in BEIR's layout.

    Judgements of a query or a document that the files have not, queries without a relevant document, and judgements
    that stand twice are left out, each with a warning that counts them.

    Args:
        queries: a .jsonl (or .gz) of ``_id`` and ``text``.
        documents: likewise, with a ``title`` where there is one.
        relevant: a .tsv (or .gz) with the header ``query-id``, ``corpus-id``, ``score`` (a whole number, 0 for what is
            not relevant).

    Raises:
        InputError: on a mistake in a row (with its line), an id that stands twice, or ids that do not match at all.
    """
    all_queries, all_documents = _texts(Path(queries)), _texts(Path(documents))
    judged = _judgements(Path(relevant), all_queries, all_documents)
    kept = {key: judged[key] for key in all_queries if any(gain > 0 for gain in judged.get(key, {}).values())}
    if not kept:
        raise InputError(f"{relevant} names no relevant document (a score from 1) of any query of {queries}")
    if without := len(all_queries) - len(kept):
        logger.warning(f"{without} of {len(all_queries)} queries have no relevant document and are left out")
    return Search(all_documents, {key: all_queries[key] for key in kept}, kept)


def _texts(file: Path) -> dict[str, dict[str, str]]:
    texts: dict[str, dict[str, str]] = {}
    for where, row in read_objects(file, ["_id", "text"]):
        if (key := str(row["_id"])) in texts:
            raise InputError(f"{where}: a second row with the _id {key!r}; an _id names one")
        title = text_of(row, "title", where) if row.get("title") else ""
        # A title alone is a document too, as BEIR has some.
        texts[key] = {
            "title": title,
            "text": row["text"] if title and row["text"] == "" else text_of(row, "text", where),
        }
    check_some(texts, file, "row")
    return texts


def _judgements(file: Path, queries: Container[str], documents: Container[str]) -> dict[str, dict[str, int]]:
    """Read the judgements of known queries and documents."""
    relevant: dict[str, dict[str, int]] = {}
    count = repeated = 0
    unknown: list[str] = []
    for where, row in read_rows(file, COLUMNS):
        query, document, score = (str(row[column]) for column in COLUMNS)
        count += 1
        if query not in queries or document not in documents:
            unknown.append(f"the query {query!r}" if query not in queries else f"the document {document!r}")
            continue
        repeated += document in relevant.setdefault(query, {})
        relevant[query][document] = _gain(score, where)
    if count == 0 or count == len(unknown):
        example = f", as {unknown[0]}" if unknown else ""
        raise InputError(f"{file}: none of {count} judgements names a query and a document of the files{example}")
    if unknown:
        problem = f"name what the files have not, as {unknown[0]}, and are left out"
        logger.warning(f"{len(unknown)} of {count} judgements {problem}")
    if repeated:
        logger.warning(f"{repeated} of {count} judgements stand twice; the last of each counts")
    return relevant


def _gain(score: str, where: str) -> int:
    try:
        return int(score)
    except ValueError:
        raise InputError(f"{where}: the score {score!r:.60} is not a whole number") from None
