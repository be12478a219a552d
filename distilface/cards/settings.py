"""The settings of a card."""

from dataclasses import dataclass

from distilface.settings import setting


@dataclass
class CardSettings:
    """Options of ``card``."""

    folder: str = setting("", "the model folder; also as the first word")
    results: list[str] = setting([], "scores of it: files of run_mteb.py, run_seeds.py or run_crosslingual.py")
    repo_id: str | None = setting(None, "what the snippets call it, as org/name; default the folder's name")
    license: str | None = setting(None, "its licence; default that of the model whose weights it starts from")
    facts: str | None = setting(None, "a YAML file of more facts, as the licence of your text: model_card/facts.yaml")
