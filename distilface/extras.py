"""What an extra installs: whether it is installed, and one sentence where it is not."""

from dataclasses import dataclass
from importlib.util import find_spec

from distilface.settings import InputError

#: The packages of the extra ``train``, by the names of their imports; the first that is missing is named.
TOOLKIT = (
    *("sentence_transformers", "transformers", "torch", "datasets", "accelerate", "mteb", "pyarrow", "jinja2"),
    *("matplotlib", "rich"),
)
#: What needs the toolkit, by the verb of the command.
VERBS = {
    "train": "training",
    "export": "exporting",
    "encode": "encoding a file",
    "evaluate": "evaluation",
    "card": "writing a card",
    "push": "publishing",
    "load": "a model in torch",
}


@dataclass(frozen=True)
class Extra:
    """Optional packages, and the extra that installs them.

    They are imported where they are used: some change ``sys.path`` or the logging at their import.

    Attributes:
        what: needs them, in the plural unless ``verb`` says otherwise.
        packages: by the names of their imports.
        name: of the extra.
        verb: after ``what``.
    """

    what: str
    packages: tuple[str, ...]
    name: str
    verb: str = "need"

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
            packages = ", ".join(missing).replace("_", "-")  # as pip spells them
            raise InputError(f"{self.what} {self.verb} {packages}; pip install 'distilface[{self.name}]'")


def has_toolkit() -> bool:
    """Return whether sentence-transformers is installed, which loads a model in torch."""
    return find_spec(TOOLKIT[0]) is not None


def check_toolkit(verb: str = "") -> None:
    """Refuse to go on where only the half that runs models is installed.

    Args:
        verb: of the command, which names what needs the toolkit; empty for the command itself.

    Raises:
        InputError: naming the first package that is not installed.
    """
    what = VERBS.get(verb, f"distilface {verb}".rstrip())
    for package in TOOLKIT:
        Extra(what, (package,), "train", "needs").check()
