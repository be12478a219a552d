"""What a model folder is, in lines: its shape, sizes, scores and exports, and what it lacks."""

from typing import Any

from sentence_transformers import SentenceTransformer

from distilface.cards.card import lacking
from distilface.light.encoder import known_way
from distilface.light.ways import ways_of
from distilface.model.dimensions import cut_to, whole_width
from distilface.model.folder import Folder
from distilface.model.static import is_static, token_table
from distilface.runtimes.files import read_exports
from distilface.runtimes.opening import known_fastest


def _dimensions(model: SentenceTransformer) -> str:
    """Say how many numbers a vector has."""
    of = f"the first {cut_to(model)} of {whole_width(model)}" if cut_to(model) else model.get_embedding_dimension()
    return f"{of} dimensions"


def _shape(model: SentenceTransformer) -> str:
    encoder: Any = model[0]
    modules = [type(module).__name__ for module in model][1:]
    if is_static(model):
        pieces, width = token_table(model).weight.shape
        return (
            f"static, a vector of {width} for each of {pieces:,} pieces; {', '.join(['their mean', *modules])}; "
            f"{_dimensions(model)}; reads a text to its end"
        )
    config = encoder.model.config
    inner = getattr(config, "inner_group_num", 1)
    layers = config.num_hidden_layers * inner
    different = getattr(config, "num_hidden_groups", config.num_hidden_layers) * inner
    shared = f" ({different} different ones)" if different < layers else ""
    return (
        f"{config.model_type}, {layers} layers{shared} of {config.hidden_size}, {len(model.tokenizer):,} tokens in the "
        f"vocabulary; {', '.join(modules)}; {_dimensions(model)}; reads {model.max_seq_length} tokens"
    )


def folder_lines(folder: Folder) -> list[str]:
    """Return the lines that ``distilface info`` prints."""
    table = token_table(folder.model).weight.numel()
    lines = [
        f"{folder.path}: {_shape(folder.model)}",
        f"size: {folder.parameters:,} parameters ({table:,} in the embedding table), {folder.megabytes:.1f} MB",
    ]
    if run := folder.run:
        scores = (f"{name} {score:.2f}" for name, score in run.scores.items() if score is not None)
        lines += [f"trained: {run.method}, seed {run.seed}, verdict {run.verdict}"]
        lines += [f"scores: {', '.join(scores)}"]
    exports = read_exports(folder).get("files", {})
    for file, row in exports.items():
        state = f"refused: {row['refused']}" if row["refused"] else f"Spearman {row['score_change']:+.2f}"
        table = row.get("table_megabytes")
        size = f"{row['megabytes']:.1f} MB" + (f" ({table:.1f} of it the embedding table)" if table else "")
        lines.append(f"{file} ({row['what']}): {size}, {state}")
    lines += _fastest(folder) if exports else []
    return lines + [f"lacks: {what}" for what in _lacks(folder, exports)]


def _fastest(folder: Folder) -> list[str]:
    """Say which way to run the exported files is the fastest here, and why; what was not measured is not."""
    load = f'distilface.load("{folder.path}", runtime="auto"'
    asked = {
        "--variant auto": known_fastest(folder),
        f"{load})": known_way(folder.path),
        f"{load}, one_by_one=True)": known_way(folder.path, one_by_one=True),
    }
    if not any(asked.values()) and len(ways_of(folder.path)) > 1:
        return [f"{' and '.join(list(asked)[:2])} have not measured yet which way is the fastest here"]
    return [f"{name}: {choice}" for name, choice in asked.items() if choice]


def _lacks(folder: Folder, exports: dict[str, Any]) -> list[str]:
    lacks = [] if folder.run_file.is_file() else ["run.json, which says how it was trained"]
    if not exports:
        others = [name for name in ("onnx", "openvino") if (folder.path / name).is_dir()]
        stale = f", for {others[0]}/ is of others" if others else ""
        lacks.append(f"exports of these weights{stale} (distilface export)")
    missing = lacking(folder)
    return lacks + ([f"{missing} (distilface card)"] if missing else [])
