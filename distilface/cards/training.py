"""The training of a model in the words of its card: what it starts and learns from, its settings, its limits."""

import re
from collections.abc import Iterator
from typing import Any

from distilface.cards.facts import UNKNOWN, KnownSource, last_part, look_up, number
from distilface.methods.base import Paper
from distilface.run import Earlier, Run
from distilface.training.settings import PLACES

_LANGUAGE = re.compile(r"\.en-([a-z]{2,3})(?:[-_][A-Za-z]+)?\.")
#: Settings that another part of the card names, or that are paths.
_ELSEWHERE = {*PLACES, "data", "dev", "backbone", "teacher", "teachers", "assistant"}


def machine_text(machine: dict[str, Any]) -> str:
    """Say on which machine something was measured."""
    cpu, gpu = machine.get("cpu") or "an unknown processor", machine.get("gpu") or "no GPU"
    return f"{cpu}, cores: {number(machine.get('cores'), 'd')}, threads: {number(machine.get('threads'), 'd')}, {gpu}"


def ancestors(run: Run, facts: dict[str, Any]) -> list[tuple[str, KnownSource]]:
    """List the models that a run started and learned from, each with its role; one in both roles comes once."""
    start = "Its weights start from" + (" the mean of those of" if run.averaged else "")
    roles = {run.backbone.name: (run.backbone, start)} if run.backbone else {}
    roles |= {source.name: (source, "The mean is also of those of") for source in run.averaged}
    for teacher in run.teachers:
        both = run.backbone and teacher.name == run.backbone.name
        roles[teacher.name] = (teacher, f"{start} its teacher," if both else "Its teacher is")
    return [(role, look_up(source, facts)) for source, role in roles.values()]


def languages(run: Run, facts: dict[str, Any]) -> list[str]:
    """List the languages: those in the names of parallel text, or else those of the models that a run started from."""
    others = {match[1] for text in run.texts if (match := _LANGUAGE.search(text.name))}
    if others:
        return ["en", *sorted(others)]
    theirs = [list(source.facts.get("languages", [])) for _, source in ancestors(run, facts)]
    return next(filter(None, theirs), [])


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield settings and their values in words, without unset ones and paths."""
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


def _settings(run: Run) -> list[tuple[str, str]]:
    """List a run's settings, and those of its loss that are not among them; a path becomes its last part."""
    settings = dict(_flat(run.settings))
    loss = {f"loss: {name}": value for name, value in _flat(run.loss_settings) if name not in settings}
    return [*settings.items(), *loss.items()]


def limits(run: Run, facts: dict[str, Any], paper: Paper | None, length: int | None, batch_matters: bool) -> list[str]:
    """List what a user must know of a model's limits and biases.

    Args:
        run: how the model was made.
        facts: from :func:`distilface.cards.facts.read_facts`.
        paper: of its method.
        length: the tokens of a text that the model reads; ``None`` of a static model, which reads it to its end.
        batch_matters: whether the folder has a file that gives a text another vector in another batch.
    """
    texts, read = facts["limits"], run.settings.get("train_max_length")
    result = list(texts["always"])
    result += [texts["english"]] if languages(run, facts) == ["en"] else []
    if length is None:
        result += [texts["static"]]
    else:
        result += [texts["read" if read and read < length else "cut"].format(read=read, length=length)]
    result += paper.limits if paper else ()
    for _, source in ancestors(run, facts):
        if learned_from := source.facts.get("learned_from"):
            result.append(texts["ancestor"].format(name=source.name, learned_from=learned_from))
    return result + ([texts["batch"]] if batch_matters else [])


def dev_scores(run: Run, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """List the scores that chose the checkpoint, each with the teacher's and the one before the training."""
    source = look_up(run.dev, facts).name if run.dev else UNKNOWN
    return [
        {
            "name": name,
            "score": score,
            "teacher": run.scores.get(f"teacher_{name}"),
            "untrained": run.scores.get(f"baseline_{name}"),
            "what": facts["measures"].get(name, {}).get("what", f"what distilface calls {name}"),
            "metric": facts["measures"].get(name, {}).get("metric", name),
            "source": source,
            "rows": run.dev_rows,
        }
        for name, score in run.scores.items()
        if not name.startswith(("baseline_", "teacher_")) and number(score) != UNKNOWN
    ]


#: Steps of earlier trainings that a model has still: what it is rounded to and how it is cut is that of the last.
_LASTING = ("vocabulary", "static", "table", "width", "low rank", "hidden state", "shared layers")


def _is_new(run: Run) -> bool:
    """Return whether a training made a static student: of what its teacher is it has nothing but the vocabulary."""
    return any(step["step"] == "static" for step in run.compression)


def shape_steps(run: Run) -> list[dict[str, Any]]:
    """List the steps that gave a model its shape: those of the trainings before its own that last, and its own."""
    before = [] if _is_new(run) else [step for each in run.history for step in each.compression]
    steps = [step for step in before if step.get("step") in _LASTING] + run.compression
    return [step for step in steps if step.get("step") != "vocabulary" or step["pieces"] < step["of"]]


def layer_cuts(run: Run) -> list[tuple[str, list[int]]]:
    """List the models of which layers were taken, each with the layers, counted from 0."""
    trainings: list[Run | Earlier] = [] if _is_new(run) else [*run.history, run]
    return [(last_part(each.baseline_model or UNKNOWN), each.layers) for each in trainings if each.layers]


def all_texts(run: Run, facts: dict[str, Any]) -> list[KnownSource]:
    """List the texts of a run and of the trainings before it, each once."""
    texts = [look_up(text, facts) for text in [*run.texts, *(text for each in run.history for text in each.texts)]]
    return list({text.name: text for text in reversed(texts)}.values())[::-1]


def by_facts(texts: list[KnownSource]) -> list[list[KnownSource]]:
    """Group the texts of which something is known by that."""
    groups: dict[str, list[KnownSource]] = {}
    for text in texts:
        if text.facts:
            groups.setdefault(repr(text.facts), []).append(text)
    return list(groups.values())


def earlier_trainings(run: Run) -> list[dict[str, str]]:
    """List the trainings before a model's own: what each made, and from what; its steps, texts and seconds."""
    return [
        {
            "model": last_part(each.model or UNKNOWN),
            "start": last_part(each.baseline_model or UNKNOWN),
            "steps": number(each.steps, ",d"),
            "rows": number(each.rows, ",d"),
            "seconds": number(each.train_seconds, ",.0f"),
        }
        for each in run.history
    ]


def training_section(run: Run, facts: dict[str, Any], paper: Paper | None) -> dict[str, Any]:
    """Return what the card's section on the training says."""
    hours = run.train_seconds / 3600 if run.train_seconds is not None else None
    seconds = [each.train_seconds for each in run.history]
    known = [each for each in seconds if each is not None and number(each) != UNKNOWN]
    texts = all_texts(run, facts)
    return {
        "paper": paper or Paper(run.method or UNKNOWN, "", {}, ""),
        "ancestors": ancestors(run, facts),
        "shape": shape_steps(run),
        "cuts": layer_cuts(run),
        "before": earlier_trainings(run),
        "hours_before": sum(known) / 3600,
        "hours_known": len(known) == len(seconds),
        "index_teacher": look_up(run.index_teacher, facts) if run.index_teacher else None,
        "data": texts,
        "told": by_facts(texts),
        "rows": run.text_rows,
        "settings": _settings(run),
        "time": UNKNOWN if number(hours) == UNKNOWN else f"{run.train_seconds:,.0f} seconds ({hours:.2f} hours)",
        "machine": machine_text(run.machine),
        "versions": {name: version for name, version in run.versions.items() if version},
    }


def license_of(own: str | None, run: Run, facts: dict[str, Any]) -> tuple[str | None, str]:
    """Return the licence, and where it is from: the publisher's own, or that of the model the weights start from."""
    if own is not None:
        return own, "as its publisher has chosen"
    source = look_up(run.backbone, facts) if run.backbone else None
    if source is None or source.license is None:
        return None, ""
    return source.license, f"that of {source.name}, whose weights it starts from"
