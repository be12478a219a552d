"""Which files a light encoder reads, and where they are: in the wheel, in a folder, on the Hub."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from distilface.json_files import read_json
from distilface.settings import InputError, check_known

#: The ONNX files that give a sentence one vector in every batch, by the names of their formats, the smallest first.
VARIANTS = {"q4": "model_q4.onnx", "int8": "model_int8.onnx", "onnx": "model.onnx"}
#: Stands for the file that is fastest on this processor, of those that give a text one vector.
AUTO = "auto"
#: Where an ONNX file lies in its folder.
PLACES = ("onnx/", "")
TOKENIZER = "tokenizer.json"
#: What else is fetched from the Hub: some hundred kilobytes.
SETTINGS = (
    *(TOKENIZER, "tokenizer_config.json", "special_tokens_map.json", "config.json", "modules.json"),
    *("sentence_bert_config.json", "config_sentence_transformers.json", "*_Pooling/config.json"),
)
#: The model of the wheel.
SHIPPED = Path(__file__).parents[1] / "default_model"


def find_files(model: str | Path | None, variant: str | None = None, file: str | None = None) -> tuple[Path, Path]:
    """Return the folder of a model and the ONNX file to run; from the Hub, only the files that are read are fetched.

    Args:
        model: a folder or a Hub id; ``None`` is the model of the wheel.
        variant: a name of :data:`VARIANTS`; ``None`` takes the first that is there.
        file: another file, by its path in the folder.

    Raises:
        InputError: if there is no such folder, it cannot be downloaded, or no light encoder can run it.
    """
    if variant is not None:
        check_known([variant], list(VARIANTS), "variant")
    if variant is not None and file is not None:
        raise InputError(f"both variant={variant!r} and file={file!r} are given; give one")
    names = list(VARIANTS.values()) if variant is None else [VARIANTS[variant]]
    wanted = [[place + name for place in PLACES] for name in names] if file is None else [[file]]
    if model is None and not SHIPPED.is_dir():
        raise InputError("this installation ships no model; name one: distilface.load('folder or Hub id')")
    model = SHIPPED if model is None else model
    folder = _folder(model, wanted)
    if not (folder / TOKENIZER).is_file():
        raise InputError(f"{model} has no {TOKENIZER}, without which onnxruntime cannot run it; load it in torch")
    found = next((folder / path for paths in wanted for path in paths if (folder / path).is_file()), None)
    if found is None:
        asked = " or ".join(paths[0] for paths in wanted)
        raise InputError(f"{model} has no {asked}; make one with the toolkit: distilface export FOLDER --formats q4")
    return folder, found


def digest(file: Path) -> str:
    """Return the sha256 of a file's bytes, in hex; a process reads a file once, as long as it stays what it is."""
    there = file.stat()
    return _digest(file.resolve(), there.st_size, there.st_mtime_ns)


@lru_cache
def _digest(file: Path, size: int, changed: int) -> str:
    import hashlib  # its import takes a while

    return hashlib.sha256(file.read_bytes()).hexdigest()


def variants_in(folder: Path) -> dict[str, Path]:
    """Return the files of :data:`VARIANTS` that a folder has, by their names."""
    files = {name: [folder / f"{place}{file}" for place in PLACES] for name, file in VARIANTS.items()}
    return {name: found for name, each in files.items() if (found := next(filter(Path.is_file, each), None))}


def ends_in_unit_length(folder: Path) -> bool:
    """Return whether the last module of a folder brings its vectors to length 1."""
    modules = read_json(folder / "modules.json") if (folder / "modules.json").is_file() else []
    return bool(modules) and str(modules[-1].get("type")).endswith(".Normalize")


def _folder(model: str | Path, wanted: Sequence[Sequence[str]]) -> Path:
    """Return the folder of a model, of the Hub's cache if need be, with the first of its files that are wanted."""
    if Path(model).is_dir():
        return Path(model)
    from distilface.hub_ids import check_hub_id, from_hub  # its client takes a while to import

    check_hub_id(str(model))
    words = (str(model), "model", f"the model {model}", "connect, or give a folder")
    folder = from_hub(*words, allow_patterns=list(SETTINGS))
    for paths in wanted:
        if not any((folder / path).is_file() for path in paths):
            from_hub(*words, allow_patterns=list(paths), revision=folder.name)  # of the commit of the settings
        if any((folder / path).is_file() for path in paths):
            break
    return folder
