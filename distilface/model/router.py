"""The folder of two encoders in one space, sentence-transformers' ``Router``: one for queries, one for documents."""

import json
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router

from distilface.json_files import read_json
from distilface.model.older_versions import older_name, portable_configs, rewrite_modules, store_in_fp32
from distilface.model.prompts import role_prompt
from distilface.model.saved_card import METADATA
from distilface.settings import InputError
from distilface.storage import whole_folder, write_json

#: The settings of a Router: a folder that has them holds two encoders.
CONFIG = "router_config.json"


def check_no_router(folder: Path) -> None:
    """Refuse a folder of two encoders where one encoder is needed.

    Raises:
        InputError: if ``folder`` is one.
    """
    if (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} holds two encoders, one for queries and one for documents, to be searched with; "
            "give the folder of one of them here"
        )


def save_router(
    queries: SentenceTransformer, documents: SentenceTransformer, path: str | Path, names: tuple[str, str]
) -> Path:
    """Write two encoders of one space as one folder, with the names that older versions of sentence-transformers read.

    ``encode_query`` gives what ``queries.encode_query`` does, ``encode_document`` what ``documents.encode_document``
    does; a plain ``encode`` takes the encoder of the documents, as sentence-transformers' own default is.

    Args:
        queries: the encoder of the queries; its modules are shared, not copied.
        documents: that of the documents.
        path: the folder to write; it must be empty or not exist yet.
        names: what the card calls the two.

    Raises:
        InputError: if ``path`` is taken, or a model has a part that cannot be written portably.
    """
    encoders = {"query": queries, "document": documents}
    configs = {route: portable_configs(encoder) for route, encoder in encoders.items()}
    modules: list[Any] = [list(encoder) for encoder in encoders.values()]
    router = Router.for_query_document(*modules)
    model = SentenceTransformer(
        modules=[router],
        device="cpu",
        similarity_fn_name=documents.similarity_fn_name,
        truncate_dim=documents.truncate_dim or queries.truncate_dim,
        prompts={
            "query": role_prompt(queries, "query"),
            "document": role_prompt(documents, "document", "passage", "corpus"),
        },
    )
    with whole_folder(path) as folder:
        model.save_pretrained(str(folder), create_model_card=False)
        settings = read_json(folder / CONFIG)
        for route, encoder in encoders.items():
            places = settings["structure"][route]
            rewrite_modules([folder / place for place in places], encoder, configs[route])
            settings["types"] |= dict(zip(places, map(older_name, encoder), strict=True))
        settings["parameters"].pop("route_mappings")  # empty here, and an argument that sentence-transformers 5.1 lacks
        write_json(folder / CONFIG, settings)
        write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": older_name(router)}])
        store_in_fp32(folder)
        (folder / "README.md").write_text(_card(model, encoders, Path(path).resolve().name, names), encoding="utf-8")
    return Path(path)


def _card(
    model: SentenceTransformer, encoders: dict[str, SentenceTransformer], name: str, names: tuple[str, str]
) -> str:
    """Return a minimal model card: which encoder reads what, and how to search."""
    sizes = [sum(weight.numel() for weight in encoder.parameters()) for encoder in encoders.values()]
    return f"""{METADATA}
# {name}

Two sentence encoders in one space of {model.get_embedding_dimension()} dimensions. Queries are embedded by {names[0]}
({sizes[0]:,} parameters), documents by {names[1]} ({sizes[1]:,} parameters): an index of the latter's embeddings stays
as it is.

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer({json.dumps(name)})
queries = model.encode_query(["Who sat on the mat?"])
documents = model.encode_document(["The cat sat on the mat.", "It rained all day."])
print(model.similarity(queries, documents))
```
"""
