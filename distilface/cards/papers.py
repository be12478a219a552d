"""The papers of a run's method, for the card."""

from dataclasses import replace

from distilface.methods import methods
from distilface.methods.base import Paper
from distilface.run import Run


def paper_of(run: Run) -> Paper | None:
    """Return what a run's method brings for the card, with all that the run cites; ``None`` for an unknown method."""
    method = methods().get(run.method or "")
    if method is None:
        return None
    return replace(method.paper, bibtex="\n".join(paper.bibtex.strip() for paper in method.cites(run.settings)))
