"""The ``distilface`` command: verbs on a model folder. Trainings and benchmarks are scripts."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from distilface import __version__
from distilface.cards.card import lacking, write_card
from distilface.console import run_command
from distilface.data.pairs import read_sts
from distilface.embedding.encoding import Encoded, encode
from distilface.embedding.settings import EncodeSettings
from distilface.exporters.exporting import export
from distilface.exporters.formats import FORMATS
from distilface.exporters.parity import Parity
from distilface.model.folder import Folder, load
from distilface.runtimes.files import read_exports
from distilface.settings import InputError, check_known, parse, setting

USAGE = f"""distilface {__version__}: verbs on a model folder

    distilface info FOLDER        what it is, sizes, scores, exports, and what it lacks
    distilface export FOLDER      onnx/ and openvino/ beside the weights, each file through the parity gate
    distilface card FOLDER        README.md of the model, from how it was trained, scored and exported
    distilface encode FOLDER INPUT OUTPUT
                                  the embedding of every row of a file of any size, as .parquet or .npy

distilface VERB --help tells a verb's settings. Trainings are scripts in training/, benchmarks in benchmarks/.
"""
ENCODE = """distilface encode FOLDER INPUT OUTPUT: the embedding of every row of a file, in order.

A row without text keeps its place and is zeros; of a text that is longer than the model reads, the first part counts.
Both are counted at the end. The input is read once for its mistakes before anything is computed. A run that was
stopped, at any moment, goes on when the same command is given again. The same file twice gives the same bytes.
"""


@dataclass
class InfoSettings:
    """What ``info`` can be told."""

    folder: str = setting("", "the model folder; also as the first word")


@dataclass
class ExportSettings:
    """What ``export`` can be told."""

    folder: str = setting("", "the model folder; also as the first word")
    formats: list[str] = setting([], f"of {', '.join(FORMATS)}; default: all whose packages are installed")
    dev: str = setting("sample", "scored pairs to measure on: a file, a Hub data set, or 'sample', 180 of our own")
    calibration: list[str] = setting(["python"], "text that sets the scales of static int8, as training reads it")


@dataclass
class CardSettings:
    """What ``card`` can be told."""

    folder: str = setting("", "the model folder; also as the first word")
    results: list[str] = setting([], "scores of it: files of run_mteb.py, run_seeds.py or run_crosslingual.py")
    repo_id: str | None = setting(None, "what the snippets call it, as org/name; default the folder's name")
    license: str | None = setting(None, "its licence; default that of the model whose weights it starts from")
    facts: str | None = setting(None, "a YAML file of more facts, as the licence of your text: model_card/facts.yaml")


def _shape(model: SentenceTransformer) -> str:
    encoder: Any = model[0]
    config, modules = encoder.model.config, [type(module).__name__ for module in model][1:]
    layers = config.num_hidden_layers * getattr(config, "inner_group_num", 1)
    return (
        f"{config.model_type}, {layers} layers of {config.hidden_size}, {len(model.tokenizer):,} tokens in the "
        f"vocabulary; {', '.join(modules)}; {model.get_embedding_dimension()} dimensions; "
        f"reads {model.max_seq_length} tokens"
    )


def _lines(folder: Folder) -> list[str]:
    model = load(folder.path)
    transformer: Any = model[0]
    table = transformer.model.get_input_embeddings().weight.numel()
    lines = [
        f"{folder.path}: {_shape(model)}",
        f"size: {folder.parameters:,} parameters ({table:,} in the embedding table), {folder.megabytes:.1f} MB",
    ]
    if run := folder.run:
        scores = (f"{name} {score:.2f}" for name, score in run.get("scores", {}).items() if score is not None)
        lines += [f"trained: {run.get('method')}, seed {run.get('seed')}, verdict {run.get('verdict')}"]
        lines += [f"scores: {', '.join(scores)}"]
    record = read_exports(folder)
    for file, found in record.get("files", {}).items():
        state = f"refused: {found['refused']}" if found["refused"] else f"Spearman {found['score_change']:+.2f}"
        table = found.get("table_megabytes")
        size = f"{found['megabytes']:.1f} MB" + (f" ({table:.1f} of it the embedding table)" if table else "")
        lines.append(f"{file} ({found['what']}): {size}, {state}")
    return lines + [f"lacks: {what}" for what in _lacks(folder, record)]


def _lacks(folder: Folder, record: dict[str, Any]) -> list[str]:
    lacks = [] if folder.run else ["run.json, which tells how it was trained"]
    if not record:
        others = [name for name in ("onnx", "openvino") if (folder.path / name).is_dir()]
        stale = f", for {others[0]}/ is of others" if others else ""
        lacks.append(f"exports of these weights{stale} (distilface export)")
    missing = lacking(folder)
    return lacks + ([f"{missing} (distilface card)"] if missing else [])


def info(words: list[str]) -> list[str]:
    """Say what a folder is; return the lines."""
    settings = parse(InfoSettings, words, "Say what a model folder is, and what it lacks.")
    folder = Folder(Path(settings.folder))
    folder.check()
    lines = _lines(folder)
    print("\n".join(lines))
    return lines


def export_folder(words: list[str]) -> dict[str, Parity]:
    """Export a folder; return what was found of each format."""
    settings = parse(ExportSettings, words, "Write onnx/ and openvino/ beside the weights, each only where it passes.")
    check_known(settings.formats, list(FORMATS), "format")
    pairs = read_sts(settings.dev)
    found = export(settings.folder, pairs, settings.formats or None, settings.calibration)
    passed = sum(parity.refused is None for parity in found.values())
    print(f"{passed} of {len(found)} formats written to {settings.folder}")
    return found


def write_folder_card(words: list[str]) -> Path:
    """Write a folder's card; return its file."""
    settings = parse(CardSettings, words, "Write README.md of a model folder: what is known of it, and what is not.")
    file = write_card(settings.folder, settings.repo_id, settings.results, settings.facts, settings.license)
    print(f"card: {file}")
    return file


def encode_file(words: list[str]) -> Encoded:
    """Embed a file of text; return what was done."""
    settings = parse(EncodeSettings, words, ENCODE)
    found = encode(settings)
    print(found)
    return found


@dataclass(frozen=True)
class Verb:
    """A verb: what runs it, and the settings that it takes as its first words, in order."""

    run: Callable[[list[str]], Any]
    names: tuple[str, ...] = ("folder",)
    example: str = "models/mine"


VERBS = {
    "info": Verb(info),
    "export": Verb(export_folder),
    "card": Verb(write_folder_card),
    "encode": Verb(encode_file, ("folder", "input", "output"), "models/mine lines.txt vectors.parquet"),
}


def _named(verb: str, words: list[str]) -> list[str]:
    """Return the words of a verb with the name of its setting before each of the first ones."""
    known = VERBS[verb]
    first = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    named = [word for name, value in zip(known.names, first, strict=False) for word in (f"--{name}", value)]
    named += words[min(len(first), len(known.names)) :]
    options = {word.split("=")[0] for word in named}
    missing = [name for name in known.names if f"--{name}" not in options]
    if missing and not {"-h", "--help"} & options:
        raise InputError(f"no {missing[0]} given; as distilface {verb} {known.example}")
    return named


def run(argv: list[str] | None = None) -> Any:
    """Run a verb on a folder; return what it found.

    Raises:
        InputError: on an unknown verb, or none of a folder.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE, end="")
        return None
    verb, *rest = words
    check_known([verb], list(VERBS), "verb")
    return VERBS[verb].run(_named(verb, rest))


def main() -> None:
    """Run the command line, and end as every script here does."""
    run_command(run)


if __name__ == "__main__":
    main()
