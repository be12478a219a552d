"""A tiny suite with a task of each type, and a tiny search, as a user's folder would hold them."""

import json
from pathlib import Path
from typing import Any

from tiny import PAIRS, sentences, write_content

TEXTS = [f"{text} {number % 10}" for number, text in enumerate(dict.fromkeys(sentences(150, 3)))]
DOCUMENTS, QUERIES = TEXTS[:40], TEXTS[40:52]
#: Of query i the documents i and 3i + 1 are relevant, the second one twice as much.
RELEVANT = [{f"d{i}": 1, f"d{3 * i + 1}": 2} for i in range(len(QUERIES))]
CLASSES = [(text, "wet" if number % 3 else "dry") for number, text in enumerate(TEXTS[52:100])]


def rows_of_suite() -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each task."""
    documents = [{"kind": "doc", "id": f"d{i}", "text": text} for i, text in enumerate(DOCUMENTS)]
    queries = [
        {"kind": "query", "id": f"q{i}", "text": text, "relevant": RELEVANT[i]} for i, text in enumerate(QUERIES)
    ]
    splits = ("train", "test")
    return {
        "Search": [*documents, *queries],
        "Rank": [
            {"query": text, "positive": DOCUMENTS[3 * i : 3 * i + 1], "negative": DOCUMENTS[3 * i + 1 : 3 * i + 3]}
            for i, text in enumerate(QUERIES)
        ],
        "Pairs": [{"sentence1": a, "sentence2": b, "label": int(score > 2.5)} for a, b, score in PAIRS],
        "Classes": [{"text": t, "label": label, "split": splits[i % 2]} for i, (t, label) in enumerate(CLASSES)],
        "Clusters": [{"text": text, "label": i % 4} for i, text in enumerate(TEXTS[100:130])],
        "Scored": [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS],
    }


TYPES = {
    "Search": "retrieval",
    "Rank": "reranking",
    "Pairs": "pair_classification",
    "Classes": "classification",
    "Clusters": "clustering",
    "Scored": "sts",
}


def write_rows(file: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows as JSON lines, gzip if the name says so."""
    return write_content(file, "".join(json.dumps(row) + "\n" for row in rows))


def write_suite(folder: Path) -> Path:
    """Write the suite; the reranking was seen in training, and every second file is compressed."""
    entries: list[dict[str, Any]] = [{"name": name, "type": kind} for name, kind in TYPES.items()]
    entries[1]["seen"] = 0.3
    entries[3]["samples_per_label"] = 1000
    write_content(folder / "tasks.json", json.dumps(entries))
    for number, (name, rows) in enumerate(rows_of_suite().items()):
        write_rows(folder / f"{name}.jsonl{'.gz' * (number % 2)}", rows)
    return folder


def write_search(folder: Path) -> list[Path]:
    """Write the retrieval of the suite in BEIR's layout: queries, documents, judgements."""
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(QUERIES)]
    documents = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(DOCUMENTS)]
    judged = [f"q{i}\t{key}\t{gain}\n" for i, relevant in enumerate(RELEVANT) for key, gain in relevant.items()]
    return [
        write_rows(folder / "q.jsonl", queries),
        write_rows(folder / "d.jsonl.gz", documents),
        write_content(folder / "r.tsv", "query-id\tcorpus-id\tscore\n" + "".join(judged)),
    ]
