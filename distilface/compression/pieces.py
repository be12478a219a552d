"""The pieces of a vocabulary: what each falls back to, which are kept, and a ``tokenizer.json`` of those alone."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from distilface.settings import InputError


def _singles(pieces: Iterable[str], mark: str) -> dict[str, set[str]]:
    """Return what each piece falls back to: its characters as pieces of their own, after the first with the mark."""
    fallback = {}
    for piece in pieces:
        bare, first = piece.removeprefix(mark), mark if mark and piece.startswith(mark) else ""
        fallback[piece] = {first + bare[:1], *(mark + character for character in bare[1:])}
    return fallback


def _needed(model: dict[str, Any]) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Return the ids of a tokenizer's pieces, and the shorter pieces that each is made of.

    A piece that falls back to a piece that does not exist cannot be dropped: what it stands for would be unknown.
    """
    kind = model["type"]
    if kind == "Unigram":
        ids = {piece: number for number, (piece, _) in enumerate(model["vocab"])}
        return ids, _singles(ids, "")
    ids = dict(model["vocab"])
    if kind == "WordPiece":
        return ids, _singles(ids, model["continuing_subword_prefix"])
    mark = model.get("continuing_subword_prefix") or ""
    made: dict[str, set[str]] = {}
    for one, other in _merges(model):
        made.setdefault(one + other.removeprefix(mark), {one, other})
    return ids, {piece: made.get(piece, {piece}) for piece in ids}


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(one, other) for one, other in pairs]


def _with_all_it_needs(piece: str, needs: dict[str, set[str]]) -> set[str]:
    """Return a piece and, in turn, all that it is made of."""
    found, new = set(), [piece]
    while new:
        each = new.pop()
        if each not in found:
            found.add(each)
            new += needs.get(each, set())
    return found


def kept_pieces(model: dict[str, Any], always: set[int], counts: np.ndarray, size: int) -> np.ndarray:
    """Return the ids of the pieces to keep, in their order.

    Args:
        model: of the tokenizer, as its JSON has it.
        always: ids of special and added tokens.
        counts: of each piece in the text.
        size: how many to keep.
    """
    ids, needs = _needed(model)
    kept = always | {
        ids[piece] for piece in ids if needs[piece] <= {piece} or not all(need in ids for need in needs[piece])
    }
    kept |= {ids[p] for piece in ids if ids[piece] in kept for p in _with_all_it_needs(piece, needs) if p in ids}
    if size < len(kept):
        raise InputError(
            f"--vocabulary {size} is too small: {len(kept):,} pieces are single characters or special, without which "
            f"text would become unknown; keep {len(kept)} or more"
        )
    pieces = {number: piece for piece, number in ids.items()}
    for number in np.argsort(-counts, kind="stable").tolist():
        if number in kept or number not in pieces:
            continue
        chain = {ids[piece] for piece in _with_all_it_needs(pieces[number], needs)}
        if len(kept | chain) <= size:
            kept |= chain
        if len(kept) == size:
            break
    return np.asarray(sorted(kept))


def _renumber(node: Any, new: dict[int, int]) -> Any:
    """Return a post-processor's JSON with the new ids of its special tokens."""
    if isinstance(node, list):
        return [_renumber(each, new) for each in node]
    if not isinstance(node, dict):
        return node
    ends = {name: [node[name][0], new[node[name][1]]] for name in ("sep", "cls") if isinstance(node.get(name), list)}
    ids = {"ids": [new[number] for number in node["ids"]]} if "ids" in node else {}
    return {key: _renumber(value, new) for key, value in node.items()} | ends | ids


def prune_json(content: dict[str, Any], new: dict[int, int]) -> dict[str, Any]:
    """Return a ``tokenizer.json`` with the kept pieces alone, under their new ids."""
    model = dict(content["model"])
    if model["type"] == "Unigram":
        model["vocab"] = [row for number, row in enumerate(model["vocab"]) if number in new]
        model["unk_id"] = None if model.get("unk_id") is None else new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[number] for piece, number in model["vocab"].items() if number in new}
    if model["type"] == "BPE":
        mark = model.get("continuing_subword_prefix") or ""
        model["merges"] = [
            [one, other]
            for one, other in _merges(model)
            if {one, other, one + other.removeprefix(mark)} <= set(model["vocab"])
        ]
    added = [{**token, "id": new[token["id"]]} for token in content["added_tokens"]]
    padding = content.get("padding") and {**content["padding"], "pad_id": new[content["padding"]["pad_id"]]}
    processor = _renumber(content.get("post_processor"), new)
    return {**content, "model": model, "added_tokens": added, "padding": padding, "post_processor": processor}
