"""What each verb of the command does: it reads the settings of its words, calls the package and prints the result."""

import inspect
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilface import processes
from distilface.cards.card import write_card
from distilface.cards.info import folder_lines
from distilface.cards.settings import CardSettings
from distilface.compression.budget import LEGEND, shape_lines, shapes_for
from distilface.compression.mixed import check_most_lost
from distilface.compression.settings import ShapeSettings
from distilface.compression.sizes import Shape
from distilface.data.pairs import read_sts
from distilface.embedding.encoding import encode
from distilface.embedding.report import Encoded
from distilface.embedding.settings import EncodeSettings
from distilface.environment import stamp
from distilface.evaluation.settings import EvaluateSettings, check_settings
from distilface.exporters.exporting import export
from distilface.exporters.formats import FORMATS
from distilface.exporters.parity import Parity
from distilface.exporters.settings import ExportSettings
from distilface.exporters.source import source_of
from distilface.hub.publishing import push
from distilface.hub.settings import PushSettings
from distilface.methods import find_method, methods
from distilface.model.folder import open_folder
from distilface.routing import RouteSettings, route
from distilface.run import Run
from distilface.settings import InputError, check_known, parse, setting, warn_unused
from distilface.storage import write_result
from distilface.training.verdict import verdict_lines


@dataclass
class InfoSettings:
    """Options of ``info``."""

    folder: str = setting("", "the model folder; also as the first word")


def info(words: list[str]) -> list[str]:
    """Print what a folder is, and what it lacks; return the lines."""
    settings = parse(InfoSettings, words, "Print what a model folder is, and what it lacks.")
    lines = folder_lines(open_folder(settings.folder))
    print("\n".join(lines))
    return lines


def export_folder(words: list[str]) -> dict[str, Parity]:
    """Export a folder; return the measurements of each format."""
    settings = parse(ExportSettings, words, "Write onnx/ and openvino/ beside the weights, each only where it passes.")
    check_known(settings.formats, list(FORMATS), "format")
    warn_unused(settings)
    check_most_lost(settings.most_lost)
    pairs = read_sts(settings.dev)
    with source_of(settings.folder, settings.output_dir) as folder:
        results = export(folder, pairs, settings.formats or None, settings.calibration, settings.most_lost)
    passed = sum(parity.refused is None for parity in results.values())
    print(f"{passed} of {len(results)} formats written to {settings.output_dir or settings.folder}")
    return results


def write_folder_card(words: list[str]) -> Path:
    """Write a folder's card; return its file."""
    settings = parse(CardSettings, words, "Write README.md of a model folder: what is known of it, and what is not.")
    file = write_card(settings.folder, settings.repo_id, settings.results, settings.facts, settings.license)
    print(f"card: {file}")
    return file


def encode_file(words: list[str]) -> Encoded:
    """Embed a file of text; return what was done."""
    settings = parse(EncodeSettings, words, inspect.getdoc(EncodeSettings) or "")
    report = encode(settings)
    print(report)
    return report


def shape(words: list[str]) -> list[Shape]:
    """Print the shapes that fill a budget; return them."""
    settings = parse(ShapeSettings, words, inspect.getdoc(ShapeSettings) or "")
    found = shapes_for(settings.teacher, settings.megabytes, settings.max_seq_length)
    print("\n".join([*shape_lines(found), *LEGEND]))
    return found


def route_folder(words: list[str]) -> Path:
    """Write the folder of a student and its teacher; return it."""
    settings = parse(RouteSettings, words, inspect.getdoc(RouteSettings) or "")
    folder = route(settings.student, settings.output, settings.teacher)
    print(f"{folder}: encode_query is the student's, encode_document its teacher's")
    return folder


def _methods() -> str:
    """Return a line for each method, with the first sentence of what it does."""
    lines = [f"    {method.name:12}{method.paper.summary}" for method in methods().values()]
    return "\n".join(["distilface train METHOD [--config RECIPE] [--help]", "", *lines])


def _resume_command() -> str:
    """Return the command that goes on with this training."""
    command = sys.argv if "--resume" in sys.argv else [*sys.argv, "--resume"]
    if (together := processes.count()) > 1:
        return f"torchrun --nproc_per_node {together} -m distilface {shlex.join(command[1:])}"
    return f"{'python ' if command[0].endswith('.py') else ''}{shlex.join(command)}"


def train(words: list[str]) -> dict[str, Any]:
    """Train by a method; return what stands in the folder's ``run.json``."""
    if not words or words[0] in ("-h", "--help"):
        print(_methods())
        return {}
    method = find_method(words[0])
    settings: Any = parse(method.Settings, words[1:], inspect.getdoc(method) or "")
    try:
        run = method.train(settings)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"{stop}; go on with: {_resume_command()}" if stop.args else "") from None
    if processes.is_first():
        print("\n".join(verdict_lines(Run.from_dict(run), Path(settings.output_dir))), flush=True)
    return run


def ask(question: str) -> bool:
    """Ask at the terminal; any answer but yes is a no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def push_folder(words: list[str]) -> dict[str, Any]:
    """Publish a folder; return what was done."""
    settings = parse(PushSettings, words, inspect.getdoc(PushSettings) or "")
    if not (settings.yes or settings.dry_run or sys.stdin.isatty()):
        raise InputError("there is no terminal to ask at; add --yes to publish, or --dry-run to look")
    report = push(settings, (lambda question: True) if settings.yes else ask)
    if "url" in report:
        print(f"{'pull request' if settings.create_pr else 'published'}: {report['url']}")
    return report


def evaluate(words: list[str]) -> dict[str, Any]:
    """Score a model on MTEB's tasks, a suite or a search; return the scores."""
    settings = parse(EvaluateSettings, words, inspect.getdoc(EvaluateSettings) or "")
    check_settings(settings)
    warn_unused(settings)
    if settings.suite or settings.queries:
        return _compare(settings)
    from distilface.evaluation import scores  # with mteb, which takes seconds to import

    tasks = settings.tasks or scores.STS_TASKS
    model = scores.as_encoder(settings.model)
    result = scores.evaluate(model, tasks, settings.data_dir, settings.cache_dir, settings.batch_size)
    for task, score in result.items():
        print(f"{task:20} {score:6.2f}")
    means = scores.all_means(result, tasks)
    for name, mean in means.items():
        if mean is not None:
            print(f"{name:20} {mean:6.2f}")
    if settings.output:
        report = {"name": settings.model, "scores": result, **means, "fingerprint": model.fingerprint}
        write_result(settings.output, {**report, **stamp()})
        print(f"result: {settings.output}")
    return result


def _compare(settings: EvaluateSettings) -> dict[str, Any]:
    """Score a model beside its teacher and its exported files; return the report."""
    from distilface.evaluation import reports, tables  # with mteb

    search = [str(file) for file in (settings.queries, settings.documents, settings.relevant) if file]
    teacher = settings.teacher or None
    report = reports.compare(
        settings.model, settings.suite, search, settings.variants, teacher, settings.batch_size, settings.beside
    )
    tables.print_report(report)
    if settings.output:
        write_result(settings.output, report)
        print(f"result: {settings.output}")
    return report
