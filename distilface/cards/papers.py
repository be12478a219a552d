"""The papers of the methods, as a card cites them."""

from dataclasses import dataclass, replace

from distilface.methods import codir, embedding, simcse
from distilface.methods.multistage import losses as multistage
from distilface.methods.online import loss as online
from distilface.run import Run


@dataclass(frozen=True)
class Paper:
    """What a model card says of a method.

    Attributes:
        name: the method, as it is called in a sentence.
        summary: what it does, in one line.
        links: each paper's short name and its address.
        bibtex: the papers, as BibTeX entries.
        limits: what a user must know of every model that was made so.
    """

    name: str
    summary: str
    links: dict[str, str]
    bibtex: str
    limits: tuple[str, ...] = ()


_IMITATES = "It imitates its teacher, and can be expected to share the teacher's errors and biases."
_SIMCSE = "https://arxiv.org/abs/2104.08821"
#: By the name of the method in ``run.json``.
PAPERS = {
    "simcse": Paper(
        name="unsupervised SimCSE",
        summary="two dropout views of a sentence find each other among the sentences of a batch; no labels, no teacher",
        links={"simcse": _SIMCSE, "distilface": "https://arxiv.org/abs/2401.12472"},
        bibtex=simcse.CITATION,
        limits=(
            "It has seen no label and no teacher, so a model that was trained on labelled pairs is likely to be "
            "better.",
        ),
    ),
    "embedding": Paper(
        name="distillation of a teacher's embeddings",
        summary="the embedding of every sentence meets the teacher's",
        links={"embeddistill": "https://arxiv.org/abs/2301.12005"},
        bibtex=object.__new__(embedding.EmbeddingLoss).citation,
        limits=(_IMITATES,),
    ),
    "codir": Paper(
        name="contrastive distillation on intermediate representations (CoDIR)",
        summary="from its layers the student tells which of many texts its teacher's layers have read",
        links={"codir": "https://arxiv.org/abs/2009.14167"},
        bibtex=codir.loss.CITATION,
        limits=(_IMITATES,),
    ),
    "online": Paper(
        name="SimCSE beside teachers, or beside the student's own past (DistillCSE, distillation on the fly)",
        summary="to SimCSE comes that the relations within a batch meet those that a teacher sees",
        links={"distillcse": "https://arxiv.org/abs/2310.13499", "simcse": _SIMCSE},
        bibtex=online.CITATION + simcse.CITATION,
        limits=("It has seen no label; what its teachers learned from, if it had any, is told above.",),
    ),
    "multistage": Paper(
        name="multi-stage distillation across languages",
        summary=(
            "an English teacher makes a multilingual assistant, and that a student with a narrow vocabulary and shared "
            "layers; this is the record of the last stage"
        ),
        links={"multistage": "https://arxiv.org/abs/2209.05869"},
        bibtex=multistage.CITATION,
        limits=(
            "Its languages are not equally good; a language with little or technical training text is the weakest.",
        ),
    ),
}


def paper_of(run: Run) -> Paper | None:
    """Return the paper of a run's method, if that is known; a method that stands beside a ``base`` cites both."""
    paper, base = PAPERS.get(run.method or ""), PAPERS.get(run.settings.get("base", ""))
    if paper and base:
        return replace(paper, bibtex=f"{paper.bibtex.strip()}\n{base.bibtex.strip()}")
    return paper
