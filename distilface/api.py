"""The public functions of the package, each one call for one verb of the command.

Each imports what it needs where it is called: :func:`load` works where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from distilface.extras import check_toolkit, has_toolkit
from distilface.settings import InputError, check_known

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer

    from distilface.compression.sizes import Shape
    from distilface.embedding.report import Encoded
    from distilface.exporters.parity import Parity
    from distilface.light import LightEncoder


def train(
    method: str,
    *,
    data: Sequence[str] | Dataset = (),
    config: str | None = None,
    output_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Train a model folder by a method; the settings are those of ``distilface train METHOD --help``.

    >>> import distilface
    >>> distilface.train("distil", data=["A cat sat.", "A dog ran."])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown method 'distil': did you mean 'distill'?

    Args:
        method: its name, as ``distill`` or ``simcse``.
        data: files, folders, Hub data sets or ``python``; or the sentences themselves; or a data set with a column
            ``text``.
        config: a recipe, by the name of a shipped one or its file; a method may have a default one.
        output_dir: the folder to write; default the recipe's or the method's.
        settings: whatever else differs, as ``teacher=...`` or ``steps=100``.

    Returns:
        What stands in the folder's ``run.json``.

    Raises:
        InputError: on an unknown method or setting, or data or models that cannot be used.
        KeyboardInterrupt: after Ctrl-C, with the checkpoint saved; the same call with ``resume=True`` goes on.
    """
    check_toolkit("train")
    from distilface.data.texts import as_texts
    from distilface.methods import find_method
    from distilface.settings import parse

    chosen = find_method(method)
    check_known(list(settings), [field.name for field in fields(chosen.Settings)], f"setting of {method}:")
    places = {} if output_dir is None else {"output_dir": str(output_dir)}
    sources, texts = as_texts(data)
    values = {**settings, **places, **({"data": sources} if sources else {})}
    return chosen.train(parse(chosen.Settings, ["--config", config] if config else [], "", values), texts)


def shape(teacher: str | Path, megabytes: float, max_seq_length: int | None = None) -> list[Shape]:
    """Return the students of 4 bits that fill a budget, the best first; ``train(..., megabytes=N)`` makes that one.

    >>> import distilface
    >>> distilface.shape("models/none/there", megabytes=5)
    Traceback (most recent call last):
    distilface.settings.InputError: models/none/there is neither a folder nor a Hub id (owner/name)

    Args:
        teacher: a folder or a Hub id of a sentence encoder, a BERT or a DistilBERT inside.
        megabytes: what a user downloads to run the student, the 4-bit file and the tokenizer, 10^6 bytes.
        max_seq_length: the tokens that it reads; default the teacher's.

    Raises:
        InputError: if the teacher cannot be used or cut, or nothing fits.
    """
    check_toolkit("shape")
    from distilface.compression.sizes import shapes_for

    return shapes_for(str(teacher), megabytes, max_seq_length)


@overload
def load(model: None = None, *, variant: str | None = None) -> LightEncoder: ...
@overload
def load(
    model: str | Path | None = None, *, runtime: Literal["onnx", "auto"], variant: str | None = None
) -> LightEncoder: ...
@overload
def load(model: str | Path, *, variant: str) -> LightEncoder: ...
@overload
def load(model: str | Path, *, runtime: Literal["torch"] | None = None) -> SentenceTransformer: ...
def load(
    model: str | Path | None = None, *, runtime: str | None = None, variant: str | None = None
) -> SentenceTransformer | LightEncoder:
    """Load a model for use: the shipped one, a folder, or a model of the Hub.

    >>> import distilface
    >>> distilface.load("models/none/there")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none/there is neither a folder nor a Hub id (owner/name)

    Args:
        model: a folder or a Hub id; ``None`` is the model that the package ships, which onnxruntime runs.
        runtime: ``torch`` for the model in fp32 and in evaluation mode, ``onnx`` for its ONNX file on onnxruntime,
            ``auto`` for the ONNX file that is fastest on this processor (measured for a second, then remembered);
            ``None`` takes torch where the toolkit is installed, else onnxruntime.
        variant: of the ONNX file, ``q4``, ``int8`` or ``onnx``; default the first of them that is there.

    Raises:
        InputError: if it is not a model, its weights are broken or not finite, the Hub is not in reach, or the
            runtime is not installed or cannot run it.
    """
    check_known([] if runtime is None else [runtime], ["auto", "onnx", "torch"], "runtime")
    if runtime == "auto":
        if variant is not None:
            raise InputError(f"runtime='auto' chooses the file; leave out variant={variant!r}, or give runtime='onnx'")
        runtime, variant = "onnx", "auto"
    light = model is None or variant is not None or not has_toolkit()
    if (runtime or ("onnx" if light else "torch")) == "onnx":
        from distilface.light import LightEncoder

        return LightEncoder(model, variant)
    if model is None or variant is not None:
        what = "the shipped model" if model is None else f"variant={variant!r}"
        raise InputError(f"{what} is run by onnxruntime; leave out runtime='torch'")
    check_toolkit("load")
    from distilface.model.loading import load_model

    return load_model(model)


def route(student: str | Path, output: str | Path, teacher: str | Path | None = None) -> Path:
    """Write one folder that embeds queries by a student and documents by its teacher: it searches an index that exists.

    >>> import distilface
    >>> distilface.route("models/none", "models/search")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none does not exist; give a model folder

    Args:
        student: a model folder, distilled into its teacher's own space, as its run.json says.
        output: the folder to write, which ``SentenceTransformer`` loads for ``encode_query`` and ``encode_document``.
        teacher: a folder or a Hub id; default what the student's run.json names.

    Returns:
        The folder that was written.

    Raises:
        InputError: if the two have different spaces, one of them cannot be loaded, or ``output`` is taken.
    """
    check_toolkit("route")
    from distilface import routing

    return routing.route(student, output, teacher)


def export(
    folder: str | Path,
    *,
    formats: Sequence[str] | None = None,
    dev: str = "sample",
    calibration: Sequence[str] = ("python",),
) -> dict[str, Parity]:
    """Write the ONNX and OpenVINO files of a model folder, each only where it passes the parity gate.

    >>> import distilface
    >>> distilface.export("models/mine", formats=["onxx"])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown format 'onxx': did you mean 'onnx'?

    Args:
        folder: a model folder.
        formats: which files; default all whose packages are installed.
        dev: scored pairs to measure on: a file, a Hub data set, or ``sample``.
        calibration: text that sets the scales of static int8.

    Returns:
        The measurements of each format, with the reason where it was refused.

    Raises:
        InputError: on an unknown format, a folder that is not a whole model, missing packages, or unreadable pairs.
    """
    check_toolkit("export")
    from distilface.data.pairs import read_sts
    from distilface.exporters import exporting
    from distilface.exporters.formats import FORMATS

    check_known(formats or [], list(FORMATS), "format")
    return exporting.export(folder, read_sts(dev), formats, calibration)


def encode(folder: str | Path, input: str | Path, output: str | Path, **settings: Any) -> Encoded:
    """Embed every row of a file into a .parquet or .npy; an interrupted call goes on where it stopped.

    >>> import distilface
    >>> distilface.encode("models/mine", "lines.txt", "vectors.csv")
    Traceback (most recent call last):
    distilface.settings.InputError: vectors.csv: .csv suffix; embeddings are written to .parquet or .npy

    Args:
        folder: a model folder.
        input: a .txt (a row a line), .csv, .tsv, .jsonl (each also .gz) or .parquet file, or a folder of .parquet
            files: local, or a URL as ``s3://bucket/folder``.
        output: the file to write; of a folder the folder, also as a URL.
        settings: those of ``distilface encode --help``, as ``variant="int8"``.

    Returns:
        The report: rows, width, empty and truncated rows, megabytes, seconds.

    Raises:
        InputError: on a mistake in the settings, the folder or the input (with its line).
        KeyboardInterrupt: after Ctrl-C, with what is done kept.
    """
    check_toolkit("encode")
    from distilface.embedding import encoding
    from distilface.embedding.settings import EncodeSettings

    start = EncodeSettings(folder=str(folder), input=str(input), output=str(output))
    check_known(list(settings), list(vars(start)), "setting of encode:")
    return encoding.encode(replace(start, **settings))


def evaluate(
    model: str | Path | SentenceTransformer,
    *,
    tasks: Sequence[str] | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    batch_size: int = 32,
) -> dict[str, float]:
    """Score a model on MTEB's tasks, by mteb itself, in fp32.

    >>> import distilface
    >>> distilface.evaluate("models/mine", tasks=["STS112"])
    Traceback (most recent call last):
    distilface.settings.InputError: unknown task 'STS112': did you mean 'STS12'?

    Args:
        model: a folder, a Hub id, or a model in memory.
        tasks: names of MTEB tasks and benchmarks; default the seven English STS tasks.
        data_dir: a folder of local data; default the Hub's.
        cache_dir: where mteb keeps its results; default nowhere.
        batch_size: sentences in a batch.

    Returns:
        mteb's main score of each task, times 100.

    Raises:
        InputError: on an unknown task, a model that cannot be used, or data that cannot be downloaded.
    """
    check_toolkit("evaluate")
    from distilface.evaluation import scores

    return scores.evaluate(model, tasks or scores.STS_TASKS, data_dir, cache_dir, batch_size)


def compare(
    model: str | Path | SentenceTransformer,
    *,
    suite: str | Path | None = None,
    search: Sequence[str | Path] = (),
    variants: Sequence[str] = (),
    teacher: str | None = None,
    batch_size: int = 32,
    beside: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a model beside its teacher and its exported files, by mteb: on a suite of tasks, or in your own search.

    >>> import distilface
    >>> distilface.compare("models/mine", suite="suites/none")
    Traceback (most recent call last):
    distilface.settings.InputError: suites/none is not a suite: it has no tasks.json

    Args:
        model: a folder, a Hub id, or a model in memory.
        suite: a folder of ``tasks.json`` and a file for each task.
        search: instead of a suite, three files in BEIR's layout: queries, documents, judgements.
        variants: names of exported files of the folder, as ``q4``.
        teacher: a folder or a Hub id; ``"none"`` for none; default what the folder's run.json names.
        batch_size: texts in a batch.
        beside: folders or Hub ids of other models, as the untrained student that ``train(untrained_dir=...)`` wrote.

    Returns:
        The report: ``tasks`` and ``means`` of a suite, ``scores`` of a search, each by the names of the encoders.

    Raises:
        InputError: on a mistake in the files, a model that cannot be used, or one that has collapsed.
    """
    check_toolkit("evaluate")
    from distilface.evaluation import reports

    return reports.compare(model, suite, search, variants, teacher, batch_size, beside)


def write_card(
    folder: str | Path,
    *,
    repo_id: str | None = None,
    results: Sequence[str | Path] = (),
    facts: str | Path | None = None,
    license: str | None = None,
) -> Path:
    """Write the model card of a folder, README.md: what is known of the model, and what is not.

    >>> import distilface
    >>> distilface.write_card("models/none")
    Traceback (most recent call last):
    distilface.settings.InputError: models/none does not exist; give a model folder

    Args:
        folder: a model folder.
        repo_id: what the snippets call it, ``owner/name``; default the folder's name.
        results: files of scores that the benchmarks have written.
        facts: a YAML file of more facts, as the licence of your text.
        license: the model's; default that of the model whose weights it starts from.

    Returns:
        The card's file.

    Raises:
        InputError: if the folder is not a whole model, or a file cannot be used.
    """
    check_toolkit("card")
    from distilface.cards import card

    return card.write_card(folder, repo_id, results, facts, license)


def push(folder: str | Path, repo_id: str, **settings: Any) -> dict[str, Any]:
    """Publish a model folder on the Hugging Face Hub, weights and card in one commit.

    >>> import distilface
    >>> distilface.push("models/mine", "distilface")
    Traceback (most recent call last):
    distilface.settings.InputError: --repo-id 'distilface' names no owner; give owner/name

    Args:
        folder: a model folder.
        repo_id: where to, ``owner/name``.
        settings: those of ``distilface push --help``, as ``private=True`` or ``tag=["v1"]``.

    Returns:
        ``repo_id``, ``files``, ``score``, ``deleted`` and, if it was published, ``commit`` and ``url``.

    Raises:
        InputError: on whatever must not or cannot be published, saying what is on the Hub then.
    """
    check_toolkit("push")
    from distilface.hub import publishing
    from distilface.hub.settings import PushSettings

    start = PushSettings(folder=str(folder), repo_id=repo_id)
    check_known(list(settings), list(vars(start)), "setting of push:")
    return publishing.push(replace(start, **settings))
