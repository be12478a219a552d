"""Write plain sentences of what can be seen, from a grammar and word lists of our own.

    python training/captions.py --output captions.txt --count 100000

Many a pair of the STS tasks is of two captions, and openly licensed text has few of them: a student that reads only
passages, queries and book sentences is far behind its teacher there (docs/sizes.md). Each sentence says who does what,
often where; some deny it, turn it round, or say two things. Not all of it can be: a teacher embeds that too. The same
seed writes the same lines, no line twice. Seconds.
"""

import logging
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distilface.console import run_command
from distilface.settings import InputError, parse, setting
from distilface.storage import replace_text

logger = logging.getLogger("distilface.training.captions")

#: Sentences that the words surely give: of more, ever fewer new ones are drawn.
MOST = 1_000_000
#: What a subject begins with, and what "no" stands for in its place.
_FIRST = re.compile(r"^(a few|an?|the|two|three|four|five|six|several|some|many) ")
#: Groups of whom the verb is plural.
_MANY = ("a few", "several", "many", "some", "a couple", "a pair", "a bunch")


@dataclass
class CaptionSettings:
    """Options of ``captions``."""

    output: str = setting("", "the text file to write, a sentence a line")
    count: int = setting(100_000, "sentences")
    seed: int = setting(0, "of the drawing")


@dataclass(frozen=True)
class Subject:
    """Who or what a sentence is about.

    Attributes:
        words: as "two brown dogs".
        plural: whether its verb is.
        kind: ``person``, ``animal`` or ``thing``, by which it does something.
    """

    words: str
    plural: bool
    kind: str

    @property
    def be(self) -> str:
        """Its form of "be"."""
        return "are" if self.plural else "is"


class Captions:
    """Draws sentences.

    Args:
        words: the lists of ``captions.yaml``.
        seed: of the drawing.
    """

    def __init__(self, words: dict[str, Any], seed: int) -> None:
        self._words, self._random = words, random.Random(seed)
        kinds = ("person", "animal", "thing")
        self._does = {
            kind: [(verb, rest) for verb, all_of_it in words[f"{kind}_does"].items() for rest in all_of_it]
            for kind in kinds
        }

    def _one(self, name: str) -> str:
        return str(self._random.choice(self._words[name]))

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _maybe(self, name: str, share: float) -> str:
        return f"{self._one(name)} " if self._chance(share) else ""

    def _clothes(self) -> str:
        piece, color = self._one("clothes"), self._maybe("colors", 0.8)
        return f"{color}{piece}" if piece in self._words["pairs"] else with_article(f"{color}{piece}")

    def _looks(self) -> str:
        share = self._random.random()
        if share < 0.5:
            return ""
        if share < 0.75:
            return f" {'in' if self._chance(0.7) else 'wearing'} {self._clothes()}"
        if share < 0.82:
            return f" in {self._clothes()} and {self._clothes()}"
        return f" {self._one('looks')}"

    def _subject(self) -> Subject:
        share = self._random.random()
        if share < 0.52:
            name = self._one("person")
            return Subject(self._named(name, 0.12) + self._looks(), False, "person")
        if share < 0.64:
            looks = self._looks() if self._chance(0.4) else ""
            return Subject(f"{self._one('numbers')} {self._one('people')}{looks}", True, "person")
        if share < 0.7:
            group = self._one("groups").replace("{people}", self._one("people"))
            return Subject(group, group.startswith(_MANY), "person")
        if share < 0.9:
            looks, animal = self._maybe("animal_looks", 0.6), self._one("animal")
            return Subject(self._named(animal if animal.startswith(looks) else looks + animal, 0.15), False, "animal")
        if share < 0.94:
            animals = self._maybe("animal_looks", 0.4) + self._one("animals")
            return Subject(f"{self._one('numbers')} {animals}", True, "animal")
        return Subject(with_article(self._maybe("thing_looks", 0.6) + self._one("thing")), False, "thing")

    def _named(self, name: str, known: float) -> str:
        return f"the {name}" if self._chance(known) else with_article(name)

    def _action(self, subject: Subject, but: str = "") -> tuple[str, str]:
        """Return what a subject does, with another verb than one: the verb, and what follows it."""
        while True:
            verb, rest = self._random.choice(self._does[subject.kind])
            if verb != but and (subject.plural or "each other" not in rest):
                return verb, of_several(rest) if subject.plural else rest

    def sentence(self) -> str:
        """Return the next sentence."""
        subject = self._subject()
        verb, rest = self._action(subject)
        place = f" {self._one('places')}" if self._chance(0.42) else ""
        words = self._said(subject, verb, rest, "" if rest.endswith(place) else place)
        words = words.lower() if self._chance(0.15) else words[0].upper() + words[1:]
        return words + ("." if self._chance(0.75) else "")

    def _said(self, subject: Subject, verb: str, rest: str, place: str) -> str:
        share, who, be = self._random.random(), subject.words, subject.be
        if share < 0.5:
            return f"{who} {be} {verb} {rest}{place}"
        if share < 0.68:
            return f"{who} {verb} {rest}{place}"
        if share < 0.73:
            some = with_article(who.removeprefix("the ")) if who.startswith("the ") else who
            return f"there {be} {some} {verb} {rest}{place}"
        if share < 0.77 and not who.startswith("a couple"):
            return f"there {be} no {_FIRST.sub('', who)} {verb} {rest}{place}"
        if share < 0.8:
            return f"{who} {be} not {verb} {rest}{place}"
        if share < 0.85 and verb in self._words["passive"] and not set(rest.split()) & set(self._words["no_object"]):
            be = "are" if is_plural(rest) else "is"
            return f"{rest} {be} being {self._words['passive'][verb]} by {who}{place}"
        if share < 0.95:
            return self._two(subject, verb, rest, place, together=share < 0.9)
        if share < 0.98:
            return f"{who} {be} {verb} {rest} and {' '.join(self._action(subject, but=verb))}"
        return f"{who} {self._one('places')}"

    def _two(self, subject: Subject, verb: str, rest: str, place: str, together: bool) -> str:
        """Say it of two subjects: they do the same thing, or each its own."""
        other = self._subject()
        while other.words == subject.words:
            other = self._subject()
        if not together:
            return f"{subject.words} {subject.be} {verb} {rest} while {other.words} {other.be} " + " ".join(
                self._action(other)
            )
        if subject.kind == other.kind != "thing":
            return f"{subject.words} and {other.words} are {verb} {of_several(rest)}{place}"
        return f"{subject.words} {subject.be} {verb} {rest} next to {other.words}{place}"


def with_article(name: str) -> str:
    """Return a name with "a" or "an" before it."""
    return f"{'an' if name[0] in 'aeiou' and not name.startswith('uni') else 'a'} {name}"


def of_several(rest: str) -> str:
    """Return what follows a verb as it is said of several."""
    return re.sub(r"\bits\b", "their", rest).replace("itself", "themselves")


def is_plural(name: str) -> bool:
    """Return whether an object, as "red shoes" or "butter and sugar", has a plural verb."""
    head = name.split(" of ")[0]
    if " and " in head or head.endswith(("teeth", "children")):
        return True
    return head.endswith("s") and not head.endswith("ss") and not head.startswith(("a ", "an "))


def captions(count: int, seed: int = 0) -> list[str]:
    """Return so many sentences, different in more than case and the last period; the same seed gives the same ones."""
    words = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    drawn: dict[str, str] = {}
    draw = Captions(words, seed)
    while len(drawn) < count:
        sentence = draw.sentence()
        drawn.setdefault(sentence.lower().removesuffix("."), sentence)
    return list(drawn.values())


def main(argv: list[str] | None = None) -> int:
    """Write the sentences, return how many.

    Raises:
        InputError: without a file to write, if it is there already, or if the count is out of range.
    """
    settings = parse(CaptionSettings, argv, __doc__ or "")
    if not settings.output:
        raise InputError("--output is empty; name the text file to write")
    if not 1 <= settings.count <= MOST:
        raise InputError(f"--count {settings.count} is out of range; it must be 1 to {MOST}")
    file = Path(settings.output)
    if file.exists():
        raise InputError(f"{file} exists; name another file, or remove it")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} does not exist; make it first")
    replace_text(file, "\n".join(captions(settings.count, settings.seed)) + "\n")
    logger.info(f"{settings.count:,} sentences in {file}")
    return settings.count


if __name__ == "__main__":
    run_command(main)
