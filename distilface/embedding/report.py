"""What an encoding has made, as it is said at its end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Encoded:
    """The report of an encoding.

    Attributes:
        output: the file, or the folder.
        rows: in it.
        width: of an embedding.
        empty: rows without text, of zeros.
        truncated: rows that the model has not read to their end.
        limit: the most tokens that it reads; ``None`` where it reads every text to its end.
        megabytes: of 10^6 bytes, of the output.
        computed: rows that this run has computed; the others were there.
        seconds: that they took.
    """

    output: str
    rows: int
    width: int
    empty: int
    truncated: int
    limit: int | None
    megabytes: float
    computed: int
    seconds: float

    def __str__(self) -> str:
        rate = f", {self.computed / self.seconds:,.0f} rows a second" if self.computed else ""
        cut = "none cut" if self.limit is None else f"{self.truncated:,} cut at {self.limit} tokens"
        return (
            f"{self.output}: {self.rows:,} rows of {self.width} numbers, {self.megabytes:,.1f} MB{rate}; "
            f"{self.empty:,} empty (zeros), {cut}"
        )
