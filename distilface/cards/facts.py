"""Facts about the world that a card states (``model_card/facts.yaml``), and how it names and spells things."""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from distilface.settings import InputError, check_known

UNKNOWN = "not known"
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
#: The Hub has pages of these names, so no owner has one of them.
_NO_OWNERS = ("models", "datasets", "spaces")


def shown(value: Any, form: str = ".2f") -> str:
    """Spell a number; what is none, or not finite, is not known.

    >>> shown(79.2366), shown(None), shown(float("nan"))
    ('79.24', 'not known', 'not known')
    """
    known = isinstance(value, int | float) and math.isfinite(value)
    return format(value, form) if known else UNKNOWN


def cell(text: Any) -> str:
    """Spell a text from outside in one cell of a table, as code: nothing in it is markup."""
    return "`" + " ".join(str(text).replace("`", "'").replace("|", "¦").split()) + "`"


def last_part(path: str) -> str:
    r"""Return the last part of a path of any system.

    >>> last_part("../data/text.txt.gz"), last_part("C:/data/"), last_part("0.05")
    ('text.txt.gz', 'data', '0.05')
    """
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def data_folder(package: Path = Path(__file__).parents[1]) -> Path:
    """Return where the template and the facts lie: in an installed package, or beside the package in a checkout."""
    inside = package / "model_card"
    return inside if inside.is_dir() else package.parent / "model_card"


def read_facts(own: str | Path | None = None) -> dict[str, Any]:
    """Read the facts, with a user's own over them: a section's entries are added or replaced one by one.

    Raises:
        InputError: if the user's file cannot be read, or has a section that there is not.
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
        raise InputError(f"{own} holds no facts: sections of entries are needed, as in model_card/facts.yaml") from None


def pinned(facts: dict[str, Any], *packages: str) -> str:
    """Spell packages with the versions that the facts give them, as pip takes them.

    >>> pinned({"versions": {"torch": "2.13.0"}}, "torch")
    'torch==2.13.0'
    """
    return " ".join(f"{package}=={facts['versions'][package]}" for package in packages)


@dataclass(frozen=True)
class Source:
    """A model or a text that a run names, as a card may name it: by its Hub id, or by the last part of its path.

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


def named(source: str, kind: str, facts: dict[str, Any], run: dict[str, Any]) -> Source:
    """Name a source of a run.

    An id and a relative path look alike. A text is on the Hub if the facts know it; a model also where its first part
    is neither a folder here nor the one that the run wrote into.

    >>> named("/home/me/text.txt", "data", {"data": {}}, {}).name
    'text.txt'

    Args:
        source: an id or a path.
        kind: ``models`` or ``data``.
        facts: from :func:`read_facts`.
        run: the ``run.json`` that names it.
    """
    local = last_part(source)
    known = facts[kind].get(source)
    owner, output = source.split("/")[0], run.get("settings", {}).get("output_dir", "").split("/")[0]
    looks = kind == "models" and bool(_HUB_ID.fullmatch(source)) and owner not in (*_NO_OWNERS, output)
    hub = bool("/" in source if known is not None else looks and not Path(owner).is_dir())
    if not hub:
        return Source(source if known is not None else local, False, known or facts[kind].get(local, {}))
    page = f"https://huggingface.co/{'datasets/' if kind == 'data' else ''}{source}"
    return Source(source, True, known or {}, page if known is not None else None)
