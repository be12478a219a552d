"""Put a model folder beside the built page, which then runs it instead of the Hub's, with no network.

    make page                   (npm ci && npm run build in demo/, then python demo/put_model.py)
    python demo/put_model.py --folder models/mine --variant int8

It copies the files that the page reads, some 5 MB of the model in models/, and takes a second. Building the page again
removes them.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilface.console import run_command
from distilface.model.folder import Folder
from distilface.runtimes.files import FILES, read_exports
from distilface.settings import InputError, check_known, parse, setting

#: What transformers.js calls the exports that the page can run: a vector of theirs does not depend on its batch.
DTYPES = {"q4": "q4", "int8": "int8", "onnx": "fp32"}
#: What the page reads beside the export.
READ = ("config.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json")
#: Where the page looks for a model beside it, in the built page.
PLACE = "models/local"


@dataclass
class Settings:
    """Options of the script."""

    folder: str = setting("models/minilm-5mb", "the model folder, with its export")
    variant: str | None = setting(None, "the export to run: q4, int8 or onnx; default the first of them that is there")
    page: str = setting(str(Path(__file__).parent / "dist"), "the built page")


def put_model(folder: Path, page: Path, variant: str | None = None) -> int:
    """Copy what the page reads of a model folder, and name it to the page; return the bytes copied.

    Args:
        folder: the model folder.
        page: the built page.
        variant: of :data:`DTYPES`; ``None`` takes the first that the folder has.

    Raises:
        InputError: if the page is not built, or the folder is not a model or has no such export of its weights.
    """
    check_known([] if variant is None else [variant], list(DTYPES), "variant")
    if not (page / "index.html").is_file():
        raise InputError(f"{page} is not a built page; build it first: cd demo && npm ci && npm run build")
    model = Folder(folder)
    model.check()
    there = [name for name in DTYPES if (folder / FILES[name].path).is_file()]
    name = variant or next(iter(there), "q4")
    file, export = FILES[name].path, f"distilface export {folder} --formats onnx {name}"
    if name not in there:
        raise InputError(f"{folder} has no {file}, which the page runs; make it: {export}")
    if file not in read_exports(model).get("files", {}):
        raise InputError(f"{folder / file} is of other weights than the folder; make it again: {export}")
    place = page / PLACE
    shutil.rmtree(place, ignore_errors=True)
    for each in (*READ, file):
        (place / each).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / each, place / each)
    source = {"name": folder.resolve().name, "folder": PLACE, "dtype": DTYPES[name]}
    (page / "model.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
    return sum((place / each).stat().st_size for each in (*READ, file))


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Put the model beside the page, and say how to serve it."""
    settings = parse(Settings, argv, __doc__ or "")
    size = put_model(Path(settings.folder), Path(settings.page), settings.variant)
    print(f"{settings.folder} ({size / 1e6:.1f} MB) is beside the page; see it at http://localhost:8000 with")
    print(f"python -m http.server --bind localhost --directory {settings.page}")
    return {"bytes": size, "page": settings.page}


if __name__ == "__main__":
    run_command(main)
