"""A training's ``run.json`` in the words of a card: what it began with and learned from, how, and what is its due."""

import re
from collections.abc import Iterator
from typing import Any

from sentence_transformers import SentenceTransformer

from distilface.cards.facts import UNKNOWN, Source, last_part, named, shown
from distilface.methods import codir, embedding, simcse
from distilface.methods.multistage import losses as multistage
from distilface.methods.online import loss as online
from distilface.training.settings import PLACES

#: The losses of each method, whose papers are cited; CoDIR's own stands beside that of its setting ``base``.
LOSSES: dict[str, list[type]] = {
    "simcse": [simcse.SimCSELoss],
    "embedding": [embedding.EmbeddingLoss],
    "codir": [codir.CoDIRLoss],
    "online": [online.DistillCSELoss],
    "multistage": [multistage.MatchLoss],
}
_LANGUAGE = re.compile(r"\.en-([a-z]{2,3})(?:[-_][A-Za-z]+)?\.")
#: Settings that a card tells elsewhere, or that say where things lie.
_ELSEWHERE = {*PLACES, "data", "dev", "backbone", "teacher", "teachers", "assistant"}


def machine(record: dict[str, Any]) -> str:
    """Say what a run or an export was measured on."""
    found = record.get("machine", {})
    cpu, gpu = found.get("cpu") or "a processor not known to us", found.get("gpu") or "no GPU"
    return f"{cpu}, cores: {shown(found.get('cores'), 'd')}, threads: {shown(found.get('threads'), 'd')}, {gpu}"


def ancestors(run: dict[str, Any], facts: dict[str, Any]) -> list[tuple[str, Source]]:
    """Name the models that a run began with and learned from, each with its role; one in both roles stands once."""
    teacher = run.get("teacher") or []
    teachers = [teacher] if isinstance(teacher, str) else teacher
    start = run.get("baseline_model")
    roles = {start: "Its weights start from"} if start else {}
    for name in teachers:
        roles[name] = "Its weights start from its teacher," if name == start else "Its teacher is"
    return [(role, named(name, "models", facts, run)) for name, role in roles.items()]


def languages(run: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    """Tell the languages, of the names of parallel text, else of the models that a run began with; else none."""
    others = [found[1] for source in texts(run) if (found := _LANGUAGE.search(source))]
    if others:
        return ["en", *sorted(set(others))]
    theirs = [list(source.facts.get("languages", [])) for _, source in ancestors(run, facts)]
    return next(filter(None, theirs), [])


def texts(run: dict[str, Any]) -> list[str]:
    """Return the sources of a run's training text, as it was told them."""
    return [part["source"] for part in run.get("data", []) if "source" in part]


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Give what was set as words; what was left unset, and folders, are left out."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from ((f"{name}: {inner}", word) for inner, word in _flat(value))
        elif value is None or value == [] or name in _ELSEWHERE:
            continue
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        else:
            items = value if isinstance(value, list) else [value]
            yield name, ", ".join(last_part(str(item)) for item in items)


def settings_of(run: dict[str, Any]) -> list[tuple[str, str]]:
    """List a run's settings, and those of its loss that are not among them, as words; paths by their last part."""
    settings = dict(_flat(run.get("settings", {})))
    loss = {f"loss: {name}": value for name, value in _flat(run.get("loss_settings", {})) if name not in settings}
    return [*settings.items(), *loss.items()]


def citation(run: dict[str, Any]) -> str:
    """Return the papers of a run's method as BibTeX, from its losses; empty where the method is not known."""
    losses = list(LOSSES.get(run.get("method", ""), []))
    if run.get("method") == "codir":
        losses += LOSSES.get(run.get("settings", {}).get("base", ""), [])
    return "\n".join(object.__new__(loss).citation.strip() for loss in losses)


def limits(model: SentenceTransformer, run: dict[str, Any], facts: dict[str, Any], batch_matters: bool) -> list[str]:
    """List what a user must know of a model's limits and biases.

    Args:
        model: the model.
        run: its ``run.json``, or empty.
        facts: from :func:`distilface.cards.facts.read_facts`.
        batch_matters: whether a file is beside it that gives a text another vector in another batch.
    """
    known, length, read = facts["limits"], model.max_seq_length, run.get("settings", {}).get("train_max_length")
    told = list(known["always"])
    told += [known["english"]] if languages(run, facts) == ["en"] else []
    told += [known["read" if read and read < length else "cut"].format(read=read, length=length)]
    told += facts["methods"].get(run.get("method"), {}).get("limits", [])
    for _, source in ancestors(run, facts):
        if what := source.facts.get("learned_from"):
            told.append(known["ancestor"].format(name=source.name, learned_from=what))
    return told + ([known["batch"]] if batch_matters else [])


def measured(run: dict[str, Any], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """List the scores that chose the checkpoint, each with those of the teacher and of the beginning."""
    scores = run.get("scores", {})
    dev: dict[str, Any] = next((part for part in run.get("data", []) if "dev" in part), {})
    source = named(str(dev.get("dev", UNKNOWN)), "data", facts, run)
    return [
        {
            "name": name,
            "score": score,
            "teacher": scores.get(f"teacher_{name}"),
            "untrained": scores.get(f"baseline_{name}"),
            "what": facts["measures"].get(name, {}).get("what", f"what distilface calls {name}"),
            "metric": facts["measures"].get(name, {}).get("metric", name),
            "source": source.name,
            "rows": dev.get("rows"),
        }
        for name, score in scores.items()
        if not name.startswith(("baseline_", "teacher_")) and shown(score) != UNKNOWN
    ]


def trained(run: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """Tell a training."""
    sources = [named(text, "data", facts, run) for text in texts(run)]
    rows: dict[str, Any] = next((part for part in run.get("data", []) if {"rows", "sha256"} == set(part)), {})
    method = facts["methods"].get(run.get("method"), {"name": run.get("method") or UNKNOWN})
    seconds = run.get("train_seconds")
    hours = seconds / 3600 if isinstance(seconds, int | float) else None
    return {
        "method": method,
        "ancestors": ancestors(run, facts),
        "data": sources,
        "rows": rows,
        "settings": settings_of(run),
        "time": UNKNOWN if shown(hours) == UNKNOWN else f"{seconds:,.0f} seconds ({hours:.2f} hours)",
        "machine": machine(run),
        "versions": {name: version for name, version in run.get("versions", {}).items() if version},
    }


def license_of(wanted: str | None, run: dict[str, Any], facts: dict[str, Any]) -> tuple[str | None, str]:
    """Return the licence and where it is from: given, or that of the model whose weights a run began with."""
    if wanted is not None:
        return wanted, "as its publisher has chosen"
    start = run.get("baseline_model")
    source = named(start, "models", facts, run) if start else None
    if source is None or source.license is None:
        return None, ""
    return source.license, f"that of {source.name}, whose weights it starts from"
