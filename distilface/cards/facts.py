"""Facts about the world that a card states (``model_card/facts.yaml``), and how it writes names and numbers."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distilface.hub_ids import is_endpoint
from distilface.run import Source
from distilface.settings import InputError, check_known, did_you_mean

UNKNOWN = "not known"


def number(value: Any, form: str = ".2f") -> str:
    """Write a number; one that is not finite, or not a number, is not known.

    >>> number(79.2366), number(None), number(float("nan"))
    ('79.24', 'not known', 'not known')
    """
    finite = isinstance(value, int | float) and math.isfinite(value)
    return format(value, form) if finite else UNKNOWN


def cell(text: Any) -> str:
    """Write a text from outside as code in one cell of a table, so that nothing in it is markup."""
    return "`" + " ".join(str(text).replace("`", "'").replace("|", "¦").split()) + "`"


def last_part(path: str) -> str:
    r"""Return the last part of a path of any system.

    >>> last_part("../data/text.txt.gz"), last_part("C:/data/"), last_part("0.05")
    ('text.txt.gz', 'data', '0.05')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def data_folder(package: Path = Path(__file__).parents[1]) -> Path:
    """Return the folder of the template and the facts: in an installed package, or beside it in a checkout."""
    inside = package / "model_card"
    return inside if inside.is_dir() else package.parent / "model_card"


def read_facts(own: str | Path | None = None) -> dict[str, Any]:
    """Read the facts, and a user's own over them, entry by entry of a section.

    Raises:
        InputError: if the user's file cannot be read, or has an unknown section.
    """
    facts: dict[str, Any] = yaml.safe_load((data_folder() / "facts.yaml").read_text(encoding="utf-8"))
    if own is None:
        return facts
    try:
        more = yaml.safe_load(Path(own).read_text(encoding="utf-8"))
        if not isinstance(more, dict):
            raise TypeError
        check_known(list(more), list(facts), f"section in {own}:")
        return {name: {**entries, **more.get(name, {})} if name in more else entries for name, entries in facts.items()}
    except FileNotFoundError:
        raise InputError(f"{own} does not exist; name a YAML file of facts, as model_card/facts.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, TypeError):
        raise InputError(f"{own} does not hold facts: give sections of entries, as in model_card/facts.yaml") from None


def pinned(facts: dict[str, Any], *packages: str) -> str:
    """Write packages with their versions in the facts, as pip reads them.

    >>> pinned({"versions": {"torch": "2.13.0"}}, "torch")
    'torch==2.13.0'
    """
    return " ".join(f"{package}=={facts['versions'][package]}" for package in packages)


def license_sentence(license: str, facts: dict[str, Any]) -> str | None:
    """Return what is wrong with a licence that is not an identifier of the Hub, or ``None`` if it is one.

    >>> license_sentence("Apache 2.0", {"licenses": {"hub": ["apache-2.0", "mit"]}})
    "the licence 'Apache 2.0' is not one of the Hub's identifiers; did you mean 'apache-2.0'?"
    """
    known = facts["licenses"]["hub"]
    if license in known:
        return None
    hint = (
        did_you_mean(license.lower().replace(" ", "-"), known) or "give 'other', and its text in the folder's LICENSE"
    )
    return f"the licence {license!r} is not one of the Hub's identifiers; {hint}"


@dataclass(frozen=True)
class KnownSource:
    """A model or a text of a run, as a card names it: by its Hub id, the last part of its path, or its endpoint.

    Attributes:
        name: that name.
        hub: whether it is on the Hub.
        facts: what is known of it.
        page: its address, if the facts know it and it is on the Hub.
    """

    name: str
    hub: bool = False
    facts: dict[str, Any] = field(default_factory=dict)
    page: str | None = None

    @property
    def license(self) -> str | None:
        """Its licence, or ``None`` if that is not known."""
        return self.facts.get("license")


def look_up(source: Source, facts: dict[str, Any]) -> KnownSource:
    """Look a source of a run up in the facts.

    >>> look_up(Source("data", "/home/me/text.txt"), {"data": {}}).name
    'text.txt'
    """
    entries = facts["data" if source.kind == "dataset" else "models"]
    if is_endpoint(source.name):
        url, _, model = source.name.partition("#")
        return KnownSource(f"{model} at {url}", False, entries.get(source.name) or entries.get(model, {}))
    if not source.hub:
        local = last_part(source.name)
        return KnownSource(local, False, entries.get(source.name) or entries.get(local, {}))
    page = f"https://huggingface.co/{'datasets/' if source.kind == 'dataset' else ''}{source.name}"
    return KnownSource(source.name, True, entries.get(source.name, {}), page if source.name in entries else None)
