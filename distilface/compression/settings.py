"""The settings of the shapes for a budget."""

from dataclasses import dataclass

from distilface.hub_ids import DEFAULT_TEACHER
from distilface.settings import setting


@dataclass
class ShapeSettings:
    """distilface shape --teacher ID --megabytes N: the students of 4 bits that fill a budget, part by part.

        distilface shape --teacher sentence-transformers/all-MiniLM-L6-v2 --megabytes 5

    The first is what distilface train distill --megabytes N makes.
    """

    teacher: str = setting(DEFAULT_TEACHER, "a Hub id or folder of a sentence encoder, a BERT or a DistilBERT inside")
    megabytes: float = setting(10.0, "what a user downloads to run it: the 4-bit file and the tokenizer, 10^6 bytes")
    max_seq_length: int | None = setting(None, "tokens that the published model reads; default: the teacher's")
