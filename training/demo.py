"""Two minutes with no Hub and no data of your own: search with the shipped model, then make a smaller one.

    make demo        (python training/demo.py --output-dir models/demo)

First the model that the package ships finds sentences. Then the main job in small: a student of a few megabytes is
shaped, distilled on Python's own documentation, scored beside its teacher and its untrained self, exported, and given a
card. How much it reads is measured first, so that all of it takes about ``--seconds``; with real text and an hour it
becomes the models of the README. The search is of our own: the first sentence of a docstring must find the rest of it.
"""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim

import distilface
from distilface.compression.budget import shape_lines, shapes_for
from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.data.samples import python_search, python_texts
from distilface.embedding.agreement import agreement
from distilface.environment import environment
from distilface.evaluation.encoders import open_encoders
from distilface.evaluation.search import score_search
from distilface.evaluation.search_files import Search
from distilface.evaluation.tables import console, number_table
from distilface.hub_ids import DEFAULT_TEACHER
from distilface.runtimes.base import Encoder
from distilface.settings import parse, setting
from distilface.storage import write_result
from distilface.training.teacher import load_teacher

logger = logging.getLogger("distilface.demo")

QUERIES = ("Somebody is preparing a meal.", "The weather will get worse.")
#: Documents of the search, and texts on which the agreement with the teacher is measured; none is trained on.
HELD_OUT = 200
#: Seconds of the budget that go into everything but the teacher's pass and the steps, on two slow cores.
REST = 85
#: A sentence read by the teacher and trained on once costs so many times what the teacher alone takes.
COST = 3.0
LEAST, MOST = 1000, 15000
BATCH = 32


@dataclass
class Settings:
    """Options of the demonstration."""

    output_dir: str = setting("models/demo", "where the folders, the table and the figure go")
    megabytes: float = setting(2.5, "what the student may take, 4-bit file and tokenizer")
    seconds: float = setting(120, "how long all of it should take, from the first vector on")
    teacher: str = setting(DEFAULT_TEACHER, "the teacher, which the student is cut from")


def search_shipped() -> None:
    """Search a hundred sentences with the model in the package, and print the nearest of two queries."""
    sentences = list(dict.fromkeys(read_sts("sample")["sentence1"]))[:100]
    began = time.perf_counter()
    model = distilface.load()
    similarity = model.similarity(model.encode(list(QUERIES)), model.encode(sentences))
    seconds = time.perf_counter() - began
    print(f"the shipped model, {model.megabytes} MB: {len(sentences)} sentences searched, {seconds:.1f} s with loading")
    for query, row in zip(QUERIES, similarity, strict=True):
        print(f"  {query}")
        for place in row.argsort()[::-1][:3]:
            print(f"    {row[place]:.2f}  {sentences[place]}")


def affordable(teacher: str, seconds: float, texts: list[str]) -> int:
    """Measure how fast this machine reads for a teacher; return the sentences that fit the seconds."""
    model, sample = load_teacher(teacher), texts[:96]
    model.encode(sample)
    began = time.perf_counter()
    model.encode(sample)
    each = (time.perf_counter() - began) / len(sample)
    count = min(max(int((seconds - REST) / (COST * each)), LEAST), MOST, len(texts))
    logger.info(f"the teacher reads {1 / each:,.0f} sentences a second here: {count:,} sentences fit {seconds:.0f} s")
    logger.info(
        f"about {count * each:.0f} s the teacher's pass, {count * each * (COST - 1):.0f} s the steps, {REST} s the rest"
    )
    return count


def make_student(settings: Settings, texts: list[str]) -> tuple[Path, Path]:
    """Distil a student of the megabytes asked for, export it and write its card; return it and its untrained self."""
    folder, untrained = (Path(settings.output_dir) / name for name in ("student", "untrained"))
    for line in shape_lines(shapes_for(settings.teacher, settings.megabytes, static_table=False)[:3]):
        logger.info(line)
    steps = -(-(len(texts) - HELD_OUT) // BATCH)
    distilface.train(
        "distill",
        data=texts,
        config="minilm",
        output_dir=folder,
        untrained_dir=str(untrained),
        teacher=[settings.teacher],
        megabytes=settings.megabytes,
        table_from="own",  # one training, which shows the steps; not a static student before it
        learning_rate=1e-3,
        batch_size=BATCH,
        eval_steps=steps,
        dev=None,
        held_out=HELD_OUT,
        overwrite=True,
    )
    logger.info("its files for other runtimes, through the parity gate, and its card")
    distilface.export(folder, formats=["onnx", "q4"])
    distilface.write_card(folder)
    return folder, untrained


def score(encoders: Mapping[str, Encoder], search: Search) -> dict[str, dict[str, float]]:
    """Score each encoder: Spearman on the scored pairs, agreement with the teacher, and the search; all times 100."""
    pairs, documents = read_sts("sample"), [row["text"] for row in search.documents.values()]
    found = score_search(encoders, search)["nDCG@10"]
    embeddings = {name: encoder.encode(documents) for name, encoder in encoders.items()}
    rows: dict[str, dict[str, float]] = {"STS": {}, "agreement": {}, "search": {}}
    for name, encoder in encoders.items():
        cosines = pairwise_cos_sim(*(encoder.encode(pairs[column][:]) for column in ("sentence1", "sentence2")))
        rows["STS"][name] = round(100 * float(spearmanr(cosines, pairs["score"][:]).statistic), 2)
        rows["agreement"][name] = round(agreement(embeddings["teacher"], embeddings[name]).recall, 2)
        rows["search"][name] = round(found[name], 2)
    return rows


MEASURES = {
    "STS": "STS: Spearman on 180 pairs of our own",
    "agreement": f"agreement: of the teacher's ten neighbours among {HELD_OUT} texts",
    "search": f"search: nDCG@10 of {HELD_OUT} docstrings by their first sentence",
}
COLUMNS = ("teacher", "untrained", "student")


def print_scores(rows: dict[str, dict[str, float]], megabytes: Mapping[str, float]) -> None:
    """Print a row a measure, then what became better and what did not."""
    table = number_table(*(f"{name}, {megabytes[name]:.1f} MB" for name in COLUMNS), first="times 100")
    for name, scores in rows.items():
        table.add_row(MEASURES[name], *(f"{scores[column]:.2f}" for column in COLUMNS))
    console().print(table)
    worse = [name for name, scores in rows.items() if scores["student"] <= scores["untrained"]]
    print(f"not better than untrained: {', '.join(worse)}" if worse else "better than untrained in every row")
    if worse:
        print("so few sentences of one kind of text do not always do it; more of your own will")


def draw_scores(rows: dict[str, dict[str, float]], megabytes: Mapping[str, float], file: Path) -> None:
    """Draw the table as bars."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, colour) in enumerate(zip(COLUMNS, ("#0072b2", "#bbb", "#d55e00"), strict=True)):
        heights = [scores[name] for scores in rows.values()]
        where = [group + 0.27 * (place - 1) for group in range(len(rows))]
        label = f"{name}, {megabytes[name]:.1f} MB"
        axes.bar_label(axes.bar(where, heights, 0.25, color=colour, label=label), fmt="%.1f", padding=2)
    axes.set_xticks(range(len(rows)), list(rows))
    axes.set_ylim(0, 118)
    axes.legend(ncols=3, loc="upper center", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Search with the shipped model, make a student, score it, print the table and where everything is; return it."""
    settings = parse(Settings, argv, __doc__ or "")
    began = time.monotonic()
    search_shipped()
    queries, answers = python_search(HELD_OUT)
    # The search's own words are not trained on.
    seen = " ".join([*queries, *answers])
    texts = [text for text in python_texts() if text not in seen]
    count = affordable(settings.teacher, settings.seconds - (time.monotonic() - began), texts)
    folder, untrained = make_student(settings, texts[:count])
    opened = open_encoders(folder, ["q4"], settings.teacher, [str(untrained)])
    encoders = {"teacher": opened["teacher"], "untrained": opened["untrained"], "student": opened["q4"]}
    ids = [str(number) for number in range(len(queries))]
    search = Search(
        {key: {"text": text} for key, text in zip(ids, answers, strict=True)},
        {key: {"text": text} for key, text in zip(ids, queries, strict=True)},
        {key: {key: 1} for key in ids},
    )
    rows = score(encoders, search)
    file = (folder / "tokenizer.json").stat().st_size / 1e6 + opened["q4"].megabytes
    megabytes = {"teacher": opened["teacher"].megabytes, "untrained": file, "student": file}
    output = Path(settings.output_dir)
    result = {"scores": rows, "megabytes": megabytes, "sentences": count, "seconds": round(time.monotonic() - began)}
    write_result(output / "demo.json", {**result, **environment()})
    draw_scores(rows, megabytes, output / "demo.png")
    print_scores(rows, megabytes)
    print(f"{result['seconds']} s; figure: {output / 'demo.png'}; table: {output / 'demo.json'}")
    print(f"load it: distilface.load({str(folder)!r}), or SentenceTransformer({str(folder)!r})")
    print(f"publish it: distilface push {folder} --repo-id YOU/NAME --dry-run")
    return result


if __name__ == "__main__":
    run_command(main)
