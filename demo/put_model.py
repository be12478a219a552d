"""Put a model folder beside the built page, which then runs it instead of the Hub's, with no network.

    make page                   (npm ci && npm run build in demo/, then python demo/put_model.py)
    python demo/put_model.py --folder models/mine

It copies the files that the page reads, about 18 MB for a 3-layer student, and takes a second. Building the page
again removes them.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distilface.console import run_command
from distilface.model.folder import Folder
from distilface.runtimes.files import FILES, read_exports
from distilface.settings import InputError, parse, setting

INT8 = FILES["int8"].path
READ = ("config.json", "config_sentence_transformers.json", "tokenizer.json", "tokenizer_config.json", INT8)
#: Where the page looks for a model beside it, in the built page.
PLACE = "models/local"


@dataclass
class Settings:
    """Options of the script."""

    folder: str = setting("models/demo/distilled", "the model folder, with its int8 export")
    page: str = setting(str(Path(__file__).parent / "dist"), "the built page")


def put_model(folder: Path, page: Path) -> int:
    """Copy what the page reads of a model folder, and name it to the page; return the bytes copied.

    Raises:
        InputError: if the page is not built, or the folder is not a model or has no int8 export of its weights.
    """
    if not (page / "index.html").is_file():
        raise InputError(f"{page} is not a built page; build it first: cd demo && npm ci && npm run build")
    model = Folder(folder)
    model.check()
    export = f"distilface export {folder} --formats int8"
    if not (folder / INT8).is_file():
        raise InputError(f"{folder} has no {INT8}, which the page runs; make it: {export}")
    if INT8 not in read_exports(model).get("files", {}):
        raise InputError(f"{folder / INT8} is of other weights than the folder; make it again: {export}")
    place = page / PLACE
    shutil.rmtree(place, ignore_errors=True)
    for name in READ:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, place / name)
    source = {"name": folder.resolve().name, "folder": PLACE}
    (page / "model.json").write_text(json.dumps(source) + "\n", encoding="utf-8")
    return sum((place / name).stat().st_size for name in READ)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Put the model beside the page, and say how to serve it."""
    settings = parse(Settings, argv, __doc__ or "")
    size = put_model(Path(settings.folder), Path(settings.page))
    print(f"{settings.folder} ({size / 1e6:.1f} MB) is beside the page; see it at http://localhost:8000 with")
    print(f"python -m http.server --bind localhost --directory {settings.page}")
    return {"bytes": size, "page": settings.page}


if __name__ == "__main__":
    run_command(main)
