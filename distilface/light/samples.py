"""Tokens on which the numbers inside an encoder are looked at: those of a text, and others at random."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from distilface.light.files import TOKENIZER

#: Texts, and tokens of each, that are drawn at random.
DRAWN = (64, 24)
#: Tokens that are drawn to stand alone: what attention gives is then larger than where it is a mean of many.
ALONE = 600
#: A little of what is written: marks, numbers, names, addresses, code, other languages.
TEXT = """
Trams run every ten minutes, and the last one leaves at 23:40; "don't miss it," she said. How do I reset my password?
The U.S. population was 331,449,281 in 2020 (up 7.4% from 2010). See https://www.example.org/help?id=42&lang=en or
write to info@example.org. I can't believe it's over!!! #sunday @anna :) lol. Dr. Müller's patients - aged 18-65 -
took 5 mg/day for 12 weeks; p < 0.05. def add(a, b): return a + b # a comment. SELECT name FROM users WHERE age >= 30;
E = mc^2. A dog, a cat and two birds: all of them are asleep. No. Yes, of course... What? Add 200 g of flour, 3 eggs &
1/2 cup of milk, then stir. The court held that the defendant's appeal, filed on March 3, 1998, was out of time. Il
pleut à Paris. Das Wetter ist schön. ¿Dónde está la estación? The movie wasn't bad at all, although the ending - which
I won't spoil - felt rushed. $19.99 / €20. [1] (see Fig. 2b) "Quoted" 'text' a b c the the the of and to in is was for
on that with as it by at from
"""


def token_rows(file: Path, pieces: int) -> list[np.ndarray]:
    """Return rows of tokens, in arrays of as many tokens each.

    Args:
        file: an ONNX file; its tokenizer lies beside it, or in the folder above. Where none does, no special tokens
            stand around a text, and there is no written one.
        pieces: of the table of tokens.

    Returns:
        Shape (n, 24), first 64 rows at random, then what is written; and 600 rows of one token with the special tokens.
    """
    draw = np.random.default_rng(0)
    drawn, alone = draw.integers(0, pieces, DRAWN), draw.integers(0, pieces, (ALONE, 1))
    folders = file.absolute().parents[:2]  # not resolved: in the Hub's cache a file is a link to one elsewhere
    place = next((each for folder in folders if (each := folder / TOKENIZER).is_file()), None)
    if place is None:
        return [drawn, alone]
    tokenizer = Tokenizer.from_file(str(place))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    around = tokenizer.encode("").ids
    width = DRAWN[1] - len(around)
    text = tokenizer.encode(TEXT, add_special_tokens=False).ids
    starts = range(0, len(text) - width + 1, width)
    lines = [[*around[:-1], *text[start : start + width], *around[-1:]] for start in starts]
    single = [[*around[:-1], token, *around[-1:]] for token in alone[:, 0]]
    return [np.concatenate([drawn, np.array(lines)]), np.array(single)]
