"""What the commands of the docs read, in small: text, scored pairs, suites, models, and a Hub that serves them."""

import json
import re
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from hub import Hub
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from suites import write_rows, write_search, write_suite
from tiny import PAIRS, sentences, write_pairs
from transformers import AutoTokenizer, BertConfig, BertModel, DistilBertConfig, DistilBertModel
from warm import Done, Warm

from distilface.data.pairs import read_sts
from distilface.evaluation.scores import STS_TASKS
from distilface.hub_ids import DEFAULT_BACKBONE, DEFAULT_TEACHER, HUB_STSB, HUB_TEXTS, PACKAGED

ROOT = Path(__file__).parents[1]
#: Words of the docs in whose place a reader puts an own one.
STAND_INS = {
    "METHOD": "distill",
    "RECIPE": "minilm-l3",
    **dict.fromkeys(("ID", "ID_A", "ID_OR_FOLDER"), DEFAULT_TEACHER),
    "ID_B": "org/other",
}
#: What recipes ask for that a few sentences do not have, or that would take minutes.
SMALLER: dict[str, Any] = {
    "steps": "4",
    "stage_steps": ["4"] * 4,
    "switch_every": "2",
    "max_switches": "1",
    "held_out": "4",
    "vocabulary": "150",
    "feed_forward": "64",
    "embedding_size": "8",
    "negatives": "5",
    "eval_steps": "2",
}
BEFORE = f"""
import json
from distilface.settings import parsing, recipes
from distilface.training import evaluators
evaluators.COLLAPSED = 1.0  # the embeddings of random encoders are all but the same, before and after
read, smaller = recipes.read_recipe, json.loads({json.dumps(json.dumps(SMALLER))})

def small(path):
    recipe = read(path)
    found = recipe | {{name: value for name, value in smaller.items() if name in recipe}}
    if "table_from" in recipe:  # its vocabulary is pruned, not trained: as many pieces are single characters
        found["vocabulary"] = "2500"
    return found

recipes.read_recipe = parsing.read_recipe = small
"""
MODEL = re.compile(r"models/[\w-]+")
WRITTEN = re.compile(r"(?:--output-dir |output_dir=[\"']|distilface route \S+ )(models/[\w-]+)")


def small_encoders(folder: Path, seed: int) -> tuple[Path, Path]:
    """Save a random BERT of six narrow layers as a sentence encoder, and a DistilBERT; MiniLM's own tokenizer."""
    package, inside = PACKAGED[DEFAULT_TEACHER][1:]
    module = __import__(package)
    tokenizer = AutoTokenizer.from_pretrained(Path(str(module.__file__)).parent / inside)
    torch.manual_seed(seed)
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 256}
    bert = BertConfig(hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=128, **sizes)
    BertModel(bert).save_pretrained(folder / "bert")
    DistilBertModel(DistilBertConfig(dim=64, n_layers=6, n_heads=4, hidden_dim=128, **sizes)).save_pretrained(
        folder / "distilbert"
    )
    for name in ("bert", "distilbert"):
        tokenizer.save_pretrained(folder / name)
    transformer = Transformer(str(folder / "bert"), max_seq_length=128)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "teacher"), create_model_card=False)
    return folder / "teacher", folder / "distilbert"


def write_texts(folder: Path) -> None:
    """Write the files that the docs name."""
    text = "\n".join(sentences(600, 1)) + "\n"
    (folder / "TEXT.txt").write_text(text)
    (folder / "lines.txt").write_text(text)
    sample = read_sts("sample")
    write_rows(folder / "DEV.jsonl", sample.to_list())
    for language in ("de", "fr"):
        pairs = [f"{one}\t{' '.join(one.split()[::-1])} {language}\n" for one in sentences(150, len(language))]
        (folder / f"NAME.en-{language}.tsv").write_text("".join(pairs))
    write_suite(folder / "SUITE")
    _, documents, _ = write_search(folder)
    write_rows(folder / "d.jsonl", _unzipped(documents))
    for task in STS_TASKS:
        write_pairs(folder / "STS" / f"{task}.jsonl", PAIRS)


def _unzipped(file: Path) -> list[dict[str, Any]]:
    from gzip import decompress

    rows = [json.loads(line) for line in decompress(file.read_bytes()).splitlines()]
    file.unlink()
    return rows


class Desk:
    """The checkout as a reader sees it, with small stand-ins, and an interpreter that runs its scripts.

    A context manager. Each command runs in a folder of its own, :meth:`place`.

    Args:
        folder: for all of it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._numbers = folder, count()
        self.files, self.student = folder / "files", folder / "student"
        self.files.mkdir()
        write_texts(self.files)
        teacher, self.masked = small_encoders(folder / "one", 1)
        other, _ = small_encoders(folder / "two", 2)
        self.hub = Hub()
        self.hub.add_model(DEFAULT_TEACHER, teacher)
        self.hub.add_model("org/other", other)
        self.hub.add_model(DEFAULT_BACKBONE, self.masked)
        (folder / "wiki").mkdir()
        (name, file) = next(iter(HUB_TEXTS.items()))
        shutil.copy(self.files / "TEXT.txt", folder / "wiki" / file)
        self.hub.add_dataset(name, folder / "wiki")
        for split in ("validation", "test"):
            write_pairs(folder / "stsb" / f"{split}.jsonl.gz", PAIRS)
        self.hub.add_dataset(HUB_STSB, folder / "stsb")
        self._warm = Warm(self.hub.env(folder / "cache"), folder, ["mteb", "onnxruntime"])

    def __enter__(self) -> "Desk":
        self.hub.__enter__()
        self._warm.__enter__()
        self._make_student()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._warm.__exit__(kind, error, trace)
        self.hub.__exit__()

    def _make_student(self) -> None:
        """Train a student, export it, write its card and its scores, as a reader who has followed the docs."""
        place = self.place("")
        steps = (
            ("train", "distill", "--config", "minilm-l3", "--data", "TEXT.txt", "--dev", "sample"),
            ("export", "models/minilm-l3"),
            ("card", "models/minilm-l3", "--repo-id", "org/distilface"),
        )
        for words in steps:
            done = self.run(place, ROOT / "distilface" / "__main__.py", list(words))
            assert done.code == 0, f"{words}: {done.stderr}"
        scores = ["--model", "models/minilm-l3", "--data-dir", "STS", "--output", "result.json"]
        done = self.run(place, place / "benchmarks" / "run_mteb.py", scores)
        assert done.code == 0, done.stderr
        shutil.copy(place / "result.json", self.files)
        shutil.move(place / "models" / "minilm-l3", self.student)
        self.hub.add_model("org/distilface", self.student)

    def place(self, code: str) -> Path:
        """Make a folder for a command or a snippet, with the files of the docs and the models that it reads."""
        place = self.folder / f"place-{next(self._numbers)}"
        for name in ("training", "model_card", "benchmarks"):
            (place / name).mkdir(parents=True)
            for file in (ROOT / name).iterdir():
                if file.name != "results":
                    (place / name / file.name).symlink_to(file)
        (place / "benchmarks" / "results").mkdir()
        for file in self.files.iterdir():
            (shutil.copytree if file.is_dir() else shutil.copy)(file, place / file.name)
        for name in sorted({*MODEL.findall(code)} - {*WRITTEN.findall(code)}):
            shutil.copytree(self.student, place / name)
        if "minilm-mlm" not in code:  # the backbone that recipes name
            shutil.copytree(self.masked, place / "models" / "minilm-mlm")
        return place

    def run(self, place: Path, script: Path, words: Sequence[str]) -> Done:
        """Run a script with its words in a folder."""
        return self._warm(str(script), *words, cwd=place, before=BEFORE)
