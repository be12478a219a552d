"""A student that searches the index its teacher has made: both in one folder, where their spaces are one."""

from dataclasses import dataclass
from pathlib import Path

from sentence_transformers import SentenceTransformer

from distilface.hub_ids import is_at_hand, is_endpoint
from distilface.methods import methods
from distilface.model.folder import Folder, open_folder
from distilface.model.identity import fingerprint
from distilface.model.loading import load_model
from distilface.model.router import save_router
from distilface.settings import InputError, setting
from distilface.storage import check_output


@dataclass
class RouteSettings:
    """distilface route STUDENT OUTPUT: one folder that embeds queries by a student and documents by its teacher.

        distilface route models/mine models/search

    sentence-transformers loads it: encode_query, and encode_document for what the teacher's index does not have yet.
    """

    student: str = setting("", "a folder that was distilled into its teacher's space; also as the first word")
    output: str = setting("", "the folder to write; also as the second word")
    teacher: str | None = setting(None, "a folder or a Hub id; default what the student's run.json names")


def route(student: str | Path, output: str | Path, teacher: str | Path | None = None) -> Path:
    """Write a folder that embeds queries by a student and documents by its teacher.

    Args:
        student: a model folder, distilled into its teacher's own space, as its run.json says.
        output: the folder to write; it must be empty or not exist yet.
        teacher: a folder or a Hub id; default what the student's run.json names.

    Returns:
        The folder that was written.

    Raises:
        InputError: if the two have different spaces, one of them cannot be loaded, or ``output`` is taken.
    """
    folder = open_folder(student)
    check_output(output)
    learned = teacher_of(folder)
    name = learned if teacher is None else str(teacher)
    if is_endpoint(name):
        raise InputError(
            f"{name} is an endpoint, whose weights no folder can hold; give the teacher's folder or Hub id"
        )
    model = load_model(name)
    if name != learned:
        _check_same(model, name, learned, folder.path)
    _check_widths(folder.model, model, name)
    return save_router(folder.model, model, output, (folder.path.resolve().name, name))


def teacher_of(student: Folder) -> str:
    """Return the teacher whose space a student has, as its run.json names it.

    Raises:
        InputError: if run.json is not there, or says that the student has another space.
    """
    run = student.run
    if run is None:
        raise InputError(f"{student.path} has no run.json, so nothing says that it has its teacher's space")
    learned = run.index_teacher
    if learned is None:
        if len(run.teachers) != 1:
            raise InputError(
                f"{student.path} has learned from {len(run.teachers)} teachers, in a space of its own, so it cannot "
                "search an index of one of them; distil it with --teacher_space first"
            )
        raise InputError(
            f"{student.path} has learned its teacher's space on other axes, so it cannot search its teacher's index; "
            "distil it without --rotate"
        )
    method = methods().get(run.method or "")
    if method is None or not method.learns_space(run.settings):
        raise InputError(
            f"{student.path} was trained by {run.method}, not to have the embeddings of {learned.name} themselves; "
            "distil it by distill or leaf, without a projection"
        )
    return learned.name


def _check_same(teacher: SentenceTransformer, name: str, learned: str, student: Path) -> None:
    """Refuse a teacher that is not the one that the student learned from, under whatever name."""
    if not is_at_hand(learned) or fingerprint(load_model(learned)) != fingerprint(teacher):
        raise InputError(f"{student} has learned the space of {learned}, not that of {name}; leave the teacher out")


def _check_widths(student: SentenceTransformer, teacher: SentenceTransformer, name: str) -> None:
    """Refuse encoders of different widths."""
    width, wide = student.get_embedding_dimension(), teacher.get_embedding_dimension()
    if width != wide:
        raise InputError(f"the student's embeddings have {width} dimensions and those of {name} {wide}: two spaces")
