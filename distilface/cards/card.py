"""The model card: a folder's README.md, made of its ``run.json``, its exports, its scores and facts about the world."""

import json
import logging
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
from distilface.cards.facts import cell, data_folder, license_sentence, number, pinned, read_facts
from distilface.cards.model import exports_section, shape_section
from distilface.cards.papers import paper_of
from distilface.cards.results import SCORED, eval_results, model_index, read_scores, score_table
from distilface.cards.snippets import leave_out, wrong_snippets
from distilface.cards.training import dev_scores, languages, license_of, limits, training_section
from distilface.data.samples import sts_sample
from distilface.exporters.parity import EDGES
from distilface.model.folder import Folder, open_folder
from distilface.run import Run
from distilface.settings import InputError
from distilface.storage import replace_text

logger = logging.getLogger(__name__)
TAGS = ["sentence-transformers", "sentence-similarity", "feature-extraction", "distilface"]
_WEIGHTS = re.compile(r"^Weights: sha256 `([0-9a-f]{64})`", re.MULTILINE)


def _widget(rows: Sequence[int]) -> dict[str, Any]:
    pairs = sts_sample()
    source, others = pairs[rows[0]]["sentence1"], [pairs[row]["sentence2"] for row in rows]
    return {"source_sentence": source, "sentences": others}


def _claim(shape: dict[str, Any], tables: list[dict[str, Any]], teacher: str) -> str:
    """Say in a sentence what the model is, and how it scores beside its teacher, which has a name."""
    means: dict[str, float] = next((table["means"] for table in tables if table["means"]), {})
    millions = f"{shape['parameters'] / 1e6:.1f}M" if shape["parameters"] >= 1e5 else f"{shape['parameters']:,}"
    length = "any length" if shape["static"] else f"up to {shape['length']} tokens"
    claim = f"A sentence encoder of {millions} parameters: text of {length} to a vector of {shape['dimension']} numbers"
    if not means:
        return f"{claim}."
    beside = f", where its {teacher} has {means['teacher']:.2f}" if "teacher" in means else ""
    return f"{claim}, with a mean of {means['this model']:.2f} on MTEB's seven English STS tasks{beside}."


def _metadata(content: dict[str, Any]) -> ModelCardData:
    """Return the metadata; what is not known is left out, and a licence is ``unknown``, as the Hub writes it."""
    run, training, exports = content["run"], content["training"], content["exports"]
    scores = model_index(content["dev_scores"], [table["scores"] for table in content["tables"]])
    in_js = not content["shape"]["static"] and (exports["fp32"] or exports["q8"] or exports["int8"])
    return ModelCardData(
        language=content["languages"] or None,
        license=content["licence"] or "unknown",
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=[
            *TAGS,
            *(["onnx"] if exports["there"] else []),
            *(["transformers.js"] if in_js else []),
            *([run.method] if run and run.method else []),
        ],
        base_model=[source.name for _, source in training["ancestors"] if source.hub] or None,
        datasets=[source.name for source in training["data"] if source.hub] or None,
        widget=[content["widget"]],
        eval_results=scores or None,
        model_name=content["name"] if scores else None,
    )


def card_content(
    folder: Folder, repo_id: str, results: Sequence[str | Path], facts: dict[str, Any], license: str | None
) -> tuple[ModelCardData, dict[str, Any]]:
    """Return the card's metadata, and the values of the template's names.

    Args and errors are those of :func:`make_card`.
    """
    run = folder.run or Run()
    paper, shape, exports = paper_of(run), shape_section(folder), exports_section(folder)
    tables = [score_table(read_scores(file, folder)) for file in results]
    licence, licence_from = license_of(license, run, facts)
    if licence and (sentence := license_sentence(licence, facts)):
        logger.warning(sentence)
    widget = _widget(facts["widget"])
    teacher = "first teacher" if len(run.teachers) > 1 else "teacher"
    content: dict[str, Any] = {
        "name": repo_id.rpartition("/")[2],
        "repo": json.dumps(repo_id),
        "hub": "/" in repo_id,
        "claim": _claim(shape, tables, teacher),
        "teacher": teacher,
        "shape": shape,
        "exports": exports,
        "tables": tables,
        "dev_scores": dev_scores(run, facts),
        "training": training_section(run, facts, paper),
        "run": folder.run,
        "languages": languages(run, facts),
        "licence": licence,
        "licence_from": licence_from,
        "limits": limits(run, facts, paper, shape["length"], exports["batch_matters"]),
        "citation": paper.bibtex.strip() if paper else "",
        "facts": facts,
        "fingerprint": folder.fingerprint,
        "version": distilface.__version__,
        "widget": widget,
        "sentences": json.dumps([widget["source_sentence"], *widget["sentences"][:2]]),
        "number": number,
        "cell": cell,
        "pinned": partial(pinned, facts),
    }
    return _metadata(content), content


def make_card(
    path: str | Path | Folder,
    repo_id: str | None = None,
    results: Sequence[str | Path] = (),
    facts: str | Path | None = None,
    license: str | None = None,
    *,
    run_snippets: bool = False,
) -> tuple[str, dict[str, str]]:
    """Make the card of a model folder; nothing is written.

    Args:
        path: a model folder; one without ``run.json`` gets a card that says what is not known.
        repo_id: what the snippets call it, ``owner/name`` on the Hub; ``None`` takes the folder's name.
        results: files of ``run_mteb.py``, ``run_seeds.py`` or ``run_crosslingual.py`` that score this folder.
        facts: a YAML file with facts of one's own (:func:`distilface.cards.facts.read_facts`).
        license: the model's; ``None`` takes that of the model whose weights it started from, if that is known.
        run_snippets: run the snippets that can run here, and leave out those that do not give the folder's vectors.

    Returns:
        The text of ``README.md``, and the files of ``.eval_results/`` by their names
        (:func:`distilface.cards.results.eval_results`).

    Raises:
        InputError: if the folder is not a whole model, the id cannot be one of the Hub, or a file cannot be used.
    """
    folder = open_folder(path)
    if repo_id is not None:
        try:
            validate_repo_id(repo_id)
        except HFValidationError:
            raise InputError(f"--repo-id {repo_id} is not an id of the Hub; give one as org/name") from None
    entries = read_facts(facts)
    metadata, content = card_content(folder, repo_id or folder.path.resolve().name, results, entries, license)
    text = _render(metadata, content)
    if run_snippets:
        wrong: dict[str, float] = {}
        for texts in (EDGES, EDGES[:1]):  # together, and one alone
            local = {"repo": json.dumps(str(folder.path.resolve())), "hub": False, "sentences": repr(list(texts))}
            wrong |= wrong_snippets(folder, _render(metadata, content | local), texts)
        text = leave_out(text, wrong)
    scores = [table["scores"] for table in content["tables"]]
    return text, eval_results(scores, entries)


def _render(metadata: ModelCardData, content: dict[str, Any]) -> str:
    template = (data_folder() / "template.md").read_text(encoding="utf-8")
    text = str(ModelCard.from_template(metadata, template_str=template, **content))
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def write_card(path: str | Path | Folder, *args: Any, **kwargs: Any) -> Path:
    """Write the card of :func:`make_card` as the folder's README.md, whole or not at all, and its ``.eval_results/``.

    Returns:
        The card's file.
    """
    folder = open_folder(path)
    text, files = make_card(folder, *args, run_snippets=True, **kwargs)
    place = folder.path / ".eval_results"
    for file in place.glob("*.yaml"):
        if file.name not in files and SCORED in file.read_text(encoding="utf-8"):
            file.unlink()
    for name, content in files.items():
        place.mkdir(exist_ok=True)
        replace_text(place / name, content)
    replace_text(folder.card, text)
    return folder.card


def of_other_weights(folder: Folder) -> bool:
    """Return whether a folder's card was made of other weights than it has now."""
    weights = _WEIGHTS.search(folder.card.read_text(encoding="utf-8")) if folder.card.is_file() else None
    return weights is not None and not folder.has_fingerprint(weights[1])


def lacking(folder: Folder) -> str | None:
    """Say which card a folder lacks: any but the one of its saving, or one of its weights; ``None`` if it has it."""
    try:
        metadata = metadata_load(folder.card) if folder.card.is_file() else None
    except (ValueError, yaml.YAMLError):
        return "a card whose metadata can be read"
    if "license" not in (metadata or {}):
        return "a card"
    return "a card of these weights" if of_other_weights(folder) else None
