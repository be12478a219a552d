"""The schema of ``run.json``, which says how a model was made, and its reader for files of every version."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from distilface.hub_ids import HUB_STSB, HUB_TEXTS, HUB_URL, HubText, cached_revision
from distilface.json_files import read_json
from distilface.settings import InputError

#: The version that is written. Older files, read as version 0, have neither ``version`` nor ``sources``.
VERSION = 1
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
#: The Hub has pages of these names, so no owner has one of them.
_NOT_OWNERS = ("models", "datasets", "spaces")
_TEXTS = ("data", "dev")


@dataclass(frozen=True)
class Source:
    """A model or a text that a training used.

    Attributes:
        role: ``backbone``, ``average``, ``teacher``, ``assistant``, ``data`` or ``dev``.
        name: a Hub id, a path, or the name of our own text (``python``, ``sample``).
        hub: whether it is on the Hub; otherwise it is local.
        revision: the Hub's commit that was read, if it is known.
    """

    role: str
    name: str
    hub: bool = False
    revision: str | None = None

    @property
    def kind(self) -> str:
        """The Hub's type of repository for it, ``model`` or ``dataset``."""
        return "dataset" if self.role in _TEXTS else "model"


@dataclass(frozen=True)
class Earlier:
    """A training before the one that a ``run.json`` is of. What is not known is ``None`` or empty.

    Attributes:
        model: the name of what it made.
        baseline_model: as :class:`Run` has it, as all but the last two.
        layers: of ``baseline_model``.
        compression: the steps.
        method: its name.
        teacher: one, or several.
        seed: of the training.
        steps: of the optimiser.
        train_seconds: that it took.
        rows: of its text.
        texts: its text.
    """

    model: str | None = None
    baseline_model: str | None = None
    layers: list[int] | None = None
    compression: list[dict[str, Any]] = field(default_factory=list)
    method: str | None = None
    teacher: str | list[str] | None = None
    seed: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    rows: int | None = None
    texts: list[Source] = field(default_factory=list)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Earlier":
        """Read an entry of the history in a ``run.json``."""
        names = {each.name for each in fields(cls)}
        values = {key: value for key, value in content.items() if key in names and value is not None}
        return cls(**values | {"texts": [Source(**text) for text in values.get("texts", [])]})


@dataclass(frozen=True)
class Run:
    """How a model was made. What is not known is ``None`` or empty.

    Attributes:
        version: of the schema.
        method: its name.
        baseline_model: the Hub id or folder whose weights the student starts from.
        layers: the layers of it that the student keeps, counted from 0.
        compression: the steps after the layers that made the student smaller, each with its ``step``.
        history: the trainings that made ``baseline_model``, the first one first
            (:func:`distilface.training.history.history_of`).
        teacher: the Hub id or folder of the teacher, or of several.
        loss_settings: settings of the loss.
        settings: settings of the training.
        data: a ``source`` for each training text, then ``rows`` and ``sha256`` of all, then ``dev`` with its own.
        sources: each model and text that was used, and where it is from.
        origin: fingerprints of what another training made and this one starts from.
        scores: ``baseline_<name>`` is before the training, ``teacher_<name>`` the teacher's.
        curve: a step and its score, each.
        loss: a step and its loss, each.
        agreement: with the teacher: the number of ``texts`` that were not trained on, and ``cosine``, ``spearman`` and
            ``recall`` (:class:`distilface.embedding.agreement.Agreement`) ``before`` the training and ``after`` it.
        verdict: ``WIN``, ``MARGINAL``, ``REGRESSION`` or ``MIXED``.
        gain: how much better the score is than before the training, whichever way it counts.
        more: what only one method says, by its key in the file.
    """

    version: int = 0
    method: str | None = None
    baseline_model: str | None = None
    layers: list[int] | None = None
    compression: list[dict[str, Any]] = field(default_factory=list)
    history: list[Earlier] = field(default_factory=list)
    teacher: str | list[str] | None = None
    loss_settings: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    data: list[dict[str, Any]] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    origin: dict[str, Any] | None = None
    seed: int | None = None
    steps: int | None = None
    best_step: int | None = None
    parameters: int | None = None
    train_seconds: float | None = None
    bf16: bool | None = None
    curve: list[list[float]] = field(default_factory=list)
    loss: list[list[float]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    agreement: dict[str, Any] = field(default_factory=dict)
    verdict: str | None = None
    gain: float | None = None
    more: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Run":
        """Read the content of a ``run.json`` of any version."""
        names = {each.name for each in fields(cls)} - {"more"}
        values = {key: value for key, value in content.items() if key in names and value is not None}
        values["sources"] = [Source(**source) for source in values.get("sources", [])]
        values["history"] = [Earlier.from_dict(entry) for entry in values.get("history", [])]
        return cls(**values, more={key: value for key, value in content.items() if key not in names})

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``run.json``."""
        content = asdict(self)
        more = content.pop("more")
        return {**content, **more}

    @property
    def backbone(self) -> Source | None:
        """What the weights start from."""
        return next(iter(self._of("backbone")), None)

    @property
    def averaged(self) -> list[Source]:
        """Whose weights the backbone's were averaged with, at the start."""
        return self._of("average")

    @property
    def teachers(self) -> list[Source]:
        """What the student learns from."""
        return self._of("teacher")

    @property
    def space(self) -> dict[str, Any] | None:
        """The space that it learned, where that is not its only teacher's own."""
        return self.more.get("space")

    @property
    def index_teacher(self) -> Source | None:
        """The teacher whose space it learned: its only one, on its own axes, or the first, with the others turned."""
        own = len(self.teachers) == 1 if self.space is None else bool(self.space.get("of_the_first"))
        return self.teachers[0] if own else None

    @property
    def dimensions(self) -> dict[str, Any] | None:
        """The name of a ``score``, and the ``scores`` of the first so many numbers of a vector, the last of all."""
        return self.more.get("dimensions")

    @property
    def texts(self) -> list[Source]:
        """The training text."""
        return self._of("data")

    @property
    def dev(self) -> Source | None:
        """The scored pairs that chose the checkpoint."""
        return next(iter(self._of("dev")), None)

    @property
    def dev_rows(self) -> int | None:
        """The number of those pairs."""
        return next((entry.get("rows") for entry in self.data if "dev" in entry), None)

    @property
    def text_rows(self) -> dict[str, Any]:
        """``rows`` and ``sha256`` of all training text."""
        return next((entry for entry in self.data if set(entry) == {"rows", "sha256"}), {})

    def _of(self, role: str) -> list[Source]:
        sources = (
            self.sources if self.version else [replace(each, hub=_may_be_hub(each, self)) for each in _names(self)]
        )
        return [source for source in sources if source.role == role]


def _names(run: Run) -> Iterator[Source]:
    """Yield each model and text that a run names, as if it were local."""
    if run.baseline_model:
        yield Source("backbone", run.baseline_model)
    for name in run.settings.get("average_with") or []:
        yield Source("average", name)
    for name in [run.teacher] if isinstance(run.teacher, str) else run.teacher or []:
        yield Source("teacher", name)
    if assistant := run.settings.get("assistant"):
        yield Source("assistant", assistant)
    for entry in run.data:
        for key, role in (("source", "data"), ("dev", "dev")):
            if key in entry:
                yield Source(role, str(entry[key]))


def _may_be_hub(source: Source, run: Run) -> bool:
    """Guess whether a source of an older ``run.json`` is on the Hub, for an id and a relative path look alike.

    A text is if the library knows it. A model is unless the first part of its name is a folder here, or the folder that
    the training wrote into.
    """
    if source.kind == "dataset":
        return source.name in (*HUB_TEXTS, HUB_STSB)
    owner, output = (name.split("/")[0] for name in (source.name, str(run.settings.get("output_dir", ""))))
    local = owner in (*_NOT_OWNERS, output) or Path(owner).is_dir()
    return bool(_HUB_ID.fullmatch(source.name)) and not local


def _was_hub(source: Source) -> bool:
    """Return whether a source that was just read came from the Hub: what is a file or a folder here did not."""
    if Path(source.name).exists():
        return False
    return source.name in HUB_TEXTS if source.role == "data" else bool(_HUB_ID.fullmatch(source.name))


def _located(source: Source) -> Source:
    """Add where a source that was just read is from."""
    if source.name.startswith(HUB_URL):
        text = HubText.of(source.name)
        return replace(source, name=text.id, hub=True, revision=text.commit())
    hub = _was_hub(source)
    return replace(source, hub=hub, revision=cached_revision(source.name, source.kind) if hub else None)


def with_sources(run: Run) -> Run:
    """Add where each model and text is from to the run of a training that has just ended here.

    The Hub is not asked again: its cache knows the revision, or the process that has read from it.
    """
    return replace(run, version=VERSION, sources=[_located(source) for source in _names(run)])


def read_run(file: Path) -> Run:
    """Read a ``run.json``.

    Raises:
        InputError: if it is not JSON, or not of this schema.
    """
    content = read_json(file)
    try:
        return Run.from_dict(content)
    except (AttributeError, TypeError):
        raise InputError(
            f"{file} is damaged: it does not say how a model was made; write or download it again"
        ) from None
