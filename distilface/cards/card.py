"""The model card: a folder's README.md, made of its ``run.json``, its exports, its scores and facts about the world."""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard, ModelCardData, metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

import distilface
from distilface.cards.facts import cell, data_folder, pinned, read_facts, shown
from distilface.cards.model import exports_of, shape_of
from distilface.cards.results import SCORED, eval_results, index, read_scores, table
from distilface.cards.training import citation, languages, license_of, limits, measured, trained
from distilface.data.samples import sts_sample
from distilface.model.folder import Folder, load
from distilface.model.identity import weights_id
from distilface.settings import InputError
from distilface.storage import replace_text

TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "distilface"]
_WEIGHTS = re.compile(r"^Weights: sha256 `([0-9a-f]{64})`", re.MULTILINE)


def _widget(rows: Sequence[int]) -> dict[str, Any]:
    pairs = sts_sample()
    source, others = pairs[rows[0]]["sentence1"], [pairs[row]["sentence2"] for row in rows]
    return {"source_sentence": source, "sentences": others}


def _claim(shape: dict[str, Any], tables: list[dict[str, Any]]) -> str:
    means: dict[str, float] = next((table["means"] for table in tables if table["means"]), {})
    millions = f"{shape['parameters'] / 1e6:.1f}M" if shape["parameters"] >= 1e5 else f"{shape['parameters']:,}"
    claim = (
        f"A sentence encoder of {millions} parameters: text of up to {shape['length']} tokens to a vector of "
        f"{shape['dimension']} numbers"
    )
    if not means:
        return f"{claim}."
    teacher = f", where its teacher has {means['teacher']:.2f}" if "teacher" in means else ""
    return f"{claim}, with a mean of {means['this model']:.2f} on MTEB's seven English STS tasks{teacher}."


def _metadata(name: str, run: dict[str, Any], content: dict[str, Any], licence: str | None) -> ModelCardData:
    """Give the metadata; what is not known is left out, and a licence is ``unknown``, as the Hub spells it."""
    known = content["trained"]
    scores = index(content["measured"], [each["scores"] for each in content["tables"]])
    exports = content["exports"]
    return ModelCardData(
        language=content["languages"] or None,
        license=licence or "unknown",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[
            *TAGS,
            *(["onnx"] if exports["there"] else []),
            *(["transformers.js"] if exports["fp32"] or exports["q8"] or exports["int8"] else []),
            *([run["method"]] if run.get("method") else []),
        ],
        base_model=[source.name for _, source in known["ancestors"] if source.hub] or None,
        datasets=[source.name for source in known["data"] if source.hub] or None,
        widget=[content["widget"]],
        eval_results=scores or None,
        model_name=name if scores else None,
    )


def card_content(
    folder: Folder, repo_id: str, results: Sequence[str | Path], facts: dict[str, Any], license: str | None
) -> tuple[ModelCardData, dict[str, Any]]:
    """Gather what the template tells: its metadata, and its names.

    Args and errors are those of :func:`make_card`.
    """
    model, run = load(folder.path), folder.run or {}
    shape, exports, weights = shape_of(folder, model), exports_of(folder), weights_id(model)
    tables = [table(read_scores(file, folder.run, weights)) for file in results]
    licence, chosen = license_of(license, run, facts)
    widget = _widget(facts["widget"])
    content: dict[str, Any] = {
        "name": repo_id.rpartition("/")[2],
        "repo": json.dumps(repo_id),
        "hub": "/" in repo_id,
        "claim": _claim(shape, tables),
        "shape": shape,
        "exports": exports,
        "tables": tables,
        "measured": measured(run, facts),
        "trained": trained(run, facts),
        "run": run,
        "languages": languages(run, facts),
        "licence": licence,
        "licence_from": chosen,
        "limits": limits(model, run, facts, exports["batch_matters"]),
        "citation": citation(run),
        "facts": facts,
        "fingerprint": folder.fingerprint,
        "version": distilface.__version__,
        "widget": widget,
        "sentences": json.dumps([widget["source_sentence"], *widget["sentences"][:2]]),
        "shown": shown,
        "cell": cell,
        "pinned": partial(pinned, facts),
    }
    return _metadata(content["name"], run, content, licence), content


def make_card(
    path: str | Path,
    repo_id: str | None = None,
    results: Sequence[str | Path] = (),
    facts: str | Path | None = None,
    license: str | None = None,
) -> tuple[str, dict[str, str]]:
    """Make the card of a model folder; nothing is written.

    Args:
        path: a model folder; one without ``run.json`` gets a card that says what is not known.
        repo_id: what the snippets call it, ``owner/name`` on the Hub; ``None`` takes the folder's name.
        results: files of ``run_mteb.py``, ``run_seeds.py`` or ``run_crosslingual.py`` that score this folder.
        facts: a YAML file with facts of one's own (:func:`distilface.cards.facts.read_facts`).
        license: the model's; ``None`` takes that of the model whose weights it started from, if that is known.

    Returns:
        The text of ``README.md``, and the files of ``.eval_results/`` by their names
        (:func:`distilface.cards.results.eval_results`).

    Raises:
        InputError: if the folder is no whole model, the id could not be one of the Hub, or a file cannot be used.
    """
    folder = Folder(Path(path))
    folder.check()
    if repo_id is not None:
        try:
            validate_repo_id(repo_id)
        except HFValidationError:
            raise InputError(f"--repo-id {repo_id} is no id of the Hub; give one as org/name") from None
    known = read_facts(facts)
    name = repo_id or folder.path.resolve().name
    metadata, content = card_content(folder, name, results, known, license)
    template = (data_folder() / "template.md").read_text(encoding="utf-8")
    text = str(ModelCard.from_template(metadata, template_str=template, **content))
    scored = [each["scores"] for each in content["tables"]]
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n", eval_results(scored, known)


def write_card(path: str | Path, *args: Any, **kwargs: Any) -> Path:
    """Write the card of :func:`make_card` as the folder's README.md, whole or not at all, and its ``.eval_results/``.

    Returns:
        The card's file.
    """
    text, files = make_card(path, *args, **kwargs)
    folder, place = Folder(Path(path)), Path(path) / ".eval_results"
    for file in place.glob("*.yaml"):
        if file.name not in files and SCORED in file.read_text(encoding="utf-8"):
            file.unlink()
    for name, content in files.items():
        place.mkdir(exist_ok=True)
        replace_text(place / name, content)
    replace_text(folder.card, text)
    return folder.card


def of_other_weights(folder: Folder) -> bool:
    """Tell whether a folder's card was made of other weights than it has now."""
    told = _WEIGHTS.search(folder.card.read_text(encoding="utf-8")) if folder.card.is_file() else None
    return told is not None and told[1] != folder.fingerprint


def lacking(folder: Folder) -> str | None:
    """Say what a folder's card lacks: there is none but the one of its saving, or it was made of other weights."""
    try:
        metadata = metadata_load(folder.card) if folder.card.is_file() else None
    except (ValueError, yaml.YAMLError):
        return "a card whose metadata can be read"
    if "license" not in (metadata or {}):
        return "a card"
    return "a card of these weights" if of_other_weights(folder) else None
