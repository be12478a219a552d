"""The snippets of a card, run: one that does not give the folder's vectors is left out, with the reason."""

import contextlib
import io
import re
from collections.abc import Sequence

import numpy as np

from distilface.exporters.parity import EDGES, SAME, cosines
from distilface.extras import import_silent
from distilface.model.folder import Folder
from distilface.runtimes.extras import ONNX, OPENVINO

_SNIPPET = re.compile(r"^### (\S+)\n(?:(?!#|```).*\n)*?```(?:python|js)\n((?:.*\n)*?)```\n", re.MULTILINE)
#: The runtimes that are in this environment wherever their extra is; the others have environments of their own.
_HERE = {"sentence-transformers": None, "transformers": None, "numpy": None, "onnxruntime": ONNX, "OpenVINO": OPENVINO}


def snippets(text: str) -> dict[str, str]:
    """Return the first block of code under each heading of the third level in a card."""
    return dict(_SNIPPET.findall(text))


def wrong_snippets(folder: Folder, text: str, texts: Sequence[str] = EDGES) -> dict[str, float]:
    """Run the snippets of a card of local paths that can run here, and return the least cosine of each wrong one.

    Args:
        folder: the model, whose vectors the snippets should give.
        text: a card whose snippets embed these texts by the folder's path.
        texts: the texts.

    Returns:
        By the heading of a snippet, the least cosine to the folder's vectors, where it is too far from 1.
    """
    expected = folder.model.encode(list(texts), show_progress_bar=False)
    wrong = {}
    for name, code in snippets(text).items():
        extra = _HERE.get(name)
        if name not in _HERE or (extra is not None and extra.missing):
            continue
        cosine = float(cosines(_run(name, code), expected).min())
        if not cosine >= SAME:
            wrong[name] = cosine
    return wrong


def _run(name: str, code: str) -> np.ndarray:
    """Return the embeddings of a snippet; one that fails has none, as a cosine that is not a number says."""
    if name == "OpenVINO":
        import_silent("openvino")  # a snippet that imports it first would report its use
    names: dict[str, object] = {}
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            exec(compile(code, f"the snippet for {name}", "exec"), names)
    except Exception:  # whatever a foreign library raises, a reader of the card would meet it
        return np.full((1, 1), np.nan)
    return np.asarray(names["embeddings"], np.float32)


def leave_out(text: str, wrong: dict[str, float]) -> str:
    """Return a card with a sentence in place of each snippet that is wrong."""

    def replaced(block: re.Match[str]) -> str:
        """Return a snippet as it is, or the sentence."""
        name = block[1]
        if name not in wrong:
            return block[0]
        came = f"comes to a cosine of {wrong[name]:.4f} only" if wrong[name] == wrong[name] else "fails"
        return (
            f"### {name}\n\nThere is no snippet for {name}: the usual one {came} on texts of one token, of other "
            f"scripts or over the length, so it would not give this model's vectors.\n"
        )

    return _SNIPPET.sub(replaced, text)
