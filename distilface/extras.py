"""What an extra installs: whether it is installed, one sentence where it is not, and an import without side effects."""

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from types import ModuleType

from distilface.settings import InputError

_TELEMETRY = "openvino_telemetry"

#: What needs the toolkit, by the verb of the command.
VERBS = {
    "train": "training",
    "export": "exporting",
    "encode": "encoding a file",
    "evaluate": "evaluation",
    "card": "writing a card",
    "push": "publishing",
    "shape": "a shape for a budget",
    "route": "a folder of two encoders",
    "load": "a model in torch",
}


@dataclass(frozen=True)
class Extra:
    """Optional packages, and the extra that installs them.

    They are imported where they are used: some change ``sys.path`` or the logging at their import.

    Attributes:
        what: needs them, in the plural.
        packages: by the names of their imports.
        name: of the extra.
    """

    what: str
    packages: tuple[str, ...]
    name: str

    @property
    def missing(self) -> list[str]:
        """The packages that are not installed."""
        return [package for package in self.packages if find_spec(package) is None]

    def check(self) -> None:
        """Refuse to go on without the packages.

        Raises:
            InputError: naming those that are not installed.
        """
        if missing := self.missing:
            raise InputError(f"{self.what} need {', '.join(missing)}; pip install 'distilface[{self.name}]'")


TOOLKIT = Extra(
    "the verbs of the toolkit",
    (
        *("sentence_transformers", "transformers", "torch", "datasets", "accelerate", "mteb", "pyarrow", "jinja2"),
        *("matplotlib", "rich"),
    ),
    "train",
)


def has_toolkit() -> bool:
    """Return whether sentence-transformers is installed, which loads a model in torch."""
    return TOOLKIT.packages[0] not in TOOLKIT.missing


def check_toolkit(verb: str = "") -> None:
    """Refuse to go on where only the half that runs models is installed.

    Args:
        verb: of the command, which names what needs the toolkit; empty for the command itself.

    Raises:
        InputError: naming the first package that is not installed.
    """
    if missing := TOOLKIT.missing:
        what, package = VERBS.get(verb, f"distilface {verb}".rstrip()), missing[0].replace("_", "-")
        raise InputError(f"{what} needs {package}; pip install 'distilface[{TOOLKIT.name}]'")


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Keep an import from reporting itself over the network, and from changing the class of every later logger.

    OpenVINO and NNCF send their use to Google Analytics from the first import on, unasked; where the package of
    their telemetry cannot be imported, they send nothing. If the user's program has imported it, it is left alone.
    """
    logger = logging.getLoggerClass()
    imported = _TELEMETRY in sys.modules
    if not imported:
        sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logging.setLoggerClass(logger)
        if not imported:
            del sys.modules[_TELEMETRY]


def import_silent(name: str) -> ModuleType:
    """Import ``openvino`` or ``nncf`` without its telemetry."""
    with _silenced():
        return importlib.import_module(name)
