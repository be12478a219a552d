"""How long the texts and how wide the embeddings of a student are beside its teachers', and what cannot be."""

from collections.abc import Sequence

from sentence_transformers import SentenceTransformer

from distilface.settings import InputError


def shorter_length(student: SentenceTransformer, teacher: SentenceTransformer) -> int:
    """Return the tokens that a student reads where none are asked for: its teacher's, if it has positions for them."""
    return min(filter(None, (student.max_seq_length, teacher.max_seq_length)))


def check_widths(student: SentenceTransformer, teacher: SentenceTransformer, projection: bool) -> None:
    """Refuse, before the teacher's pass, widths that differ with no projection between them.

    Raises:
        InputError: naming both widths and the remedy.
    """
    width, teacher_width = student.get_embedding_dimension(), teacher.get_embedding_dimension()
    if width != teacher_width and not projection:
        raise InputError(
            f"the teacher's embeddings have {teacher_width} dimensions and the student's {width}; add --projection true"
        )


def joined_width(teachers: Sequence[SentenceTransformer]) -> int:
    """Return the width of the teachers' embeddings side by side."""
    return sum(teacher.get_embedding_dimension() or 0 for teacher in teachers)


def check_joined(student: SentenceTransformer, teachers: Sequence[SentenceTransformer], projection: bool) -> None:
    """Refuse, before the teachers' pass, a student that is wider than its teachers side by side.

    Raises:
        InputError: naming both widths and the remedy.
    """
    width, wide = student.get_embedding_dimension() or 0, joined_width(teachers)
    if width > wide and not projection:
        raise InputError(
            f"the teachers' embeddings have {wide} dimensions together and the student's {width}; "
            "add --projection true, or another teacher"
        )
