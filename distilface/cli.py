"""The ``distilface`` command: a verb for each function of the package."""

import itertools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from distilface import __version__, verbs
from distilface.console import run_command
from distilface.settings import InputError, check_known

USAGE = f"""distilface {__version__}: verbs on a model folder

    distilface train METHOD       a model folder from text: distilface train alone lists the methods
    distilface shape              the students that fill a budget of megabytes, part by part
    distilface evaluate MODEL     its scores on MTEB's tasks, on a suite of your own, in your own search
    distilface info FOLDER        what it is, sizes, scores, exports, and what it lacks
    distilface route STUDENT OUTPUT
                                  one folder that searches an index that exists: queries by the student, documents
                                  by its teacher
    distilface export FOLDER      onnx/ and openvino/ beside the weights, each file through the parity gate
    distilface card FOLDER        README.md of the model, from how it was trained, scored and exported
    distilface push FOLDER        weights and card to the Hub, in one commit
    distilface encode FOLDER INPUT OUTPUT
                                  the embedding of every row of a file of any size, as .parquet or .npy

distilface VERB --help lists a verb's settings. Benchmarks are scripts in benchmarks/.
"""


@dataclass(frozen=True)
class Verb:
    """A verb: what runs it, and the settings that it takes as its first words, in order."""

    run: Callable[[list[str]], Any]
    names: tuple[str, ...] = ("folder",)
    example: str = "models/mine"


VERBS = {
    "train": Verb(verbs.train, ()),
    "shape": Verb(verbs.shape, ()),
    "info": Verb(verbs.info),
    "route": Verb(verbs.route_folder, ("student", "output"), "models/mine models/search"),
    "export": Verb(verbs.export_folder),
    "card": Verb(verbs.write_folder_card),
    "evaluate": Verb(verbs.evaluate, ("model",), "models/mine --data-dir STS"),
    "push": Verb(verbs.push_folder, ("folder",), "models/mine --repo-id org/name"),
    "encode": Verb(verbs.encode_file, ("folder", "input", "output"), "models/mine lines.txt vectors.parquet"),
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
    """Run a verb; return its result.

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


def main(*first: str) -> None:
    """Run the command line, after the words that a script puts before it, and end as every script here does."""
    run_command(lambda: run([*first, *sys.argv[1:]]))


if __name__ == "__main__":
    main()
