"""Every use of every family: it works, or one sentence says why not; and the page of all of them, docs/families.md.

    python tests/family_uses.py

runs them all and writes the page.
"""

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets import Dataset
from exported import PAIRS_SET
from families import FAMILIES, LENGTH, save_backbone
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tiny import on_one_thread, sentences, write_content, write_pairs
from transformers import AutoTokenizer

from distilface import api
from distilface.compression.student import load_student
from distilface.compression.vocabulary import make_assistant
from distilface.embedding.teacher_cache import embed
from distilface.exporters.exporting import export
from distilface.model.families import dropout_settings
from distilface.model.folder import save_folder
from distilface.runtimes.opening import open_file
from distilface.settings import InputError
from distilface.training.teacher import load_teacher

PAGE = Path(__file__).parents[1] / "docs" / "families.md"
WORKS = "works"
#: Of one token, of several, and longer than any of the encoders can place.
TEXTS = ["dog", "a dog runs in the park", " ".join(["the old dog"] * 40), *sentences(3)]
#: The families whose exports the fast tests make: padding on the left with the last token; BERTs are everywhere else.
EXPORTED_FAST = ("qwen3",)


@dataclass(frozen=True)
class Place:
    """The folders of one family.

    Attributes:
        name: of :data:`families.FAMILIES`.
        root: where they lie.
    """

    name: str
    root: Path

    @property
    def last(self) -> bool:
        """Whether its last token is its embedding."""
        return self.name in ("qwen3", "gemma3")

    @property
    def pooling(self) -> str:
        """What fits it."""
        return "lasttoken" if self.last else "mean"

    @cached_property
    def backbone(self) -> Path:
        """A random model, as transformers saves it."""
        return save_backbone(self.name, self.root / "backbone")

    @cached_property
    def published(self) -> Path:
        """The same, as sentence-transformers publishes it; only T5's names a length, for it has no most."""
        transformer = Transformer(str(self.backbone))
        model = SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode=self.pooling)], device="cpu")
        if self.name == "t5":
            model.max_seq_length = LENGTH
        model.save_pretrained(str(self.root / "published"), create_model_card=False)
        return self.root / "published"

    @cached_property
    def folder(self) -> Path:
        """A student of it that was never trained, as a model folder."""
        student = load_student(str(self.backbone), pooling=self.pooling, max_seq_length=LENGTH)
        return save_folder(student.cpu(), self.root / "folder").path

    @cached_property
    def text(self) -> Path:
        """Sentences to train on."""
        return write_content(self.root / "text.txt", "\n".join(sentences(24)))

    @cached_property
    def pairs(self) -> Path:
        """Scored pairs."""
        return write_pairs(self.root / "pairs.jsonl")

    @cached_property
    def expected(self) -> np.ndarray:
        """The embeddings of :data:`TEXTS` by transformers and numpy alone: each text by itself, never padded."""
        kind = "T5EncoderModel" if self.name == "t5" else FAMILIES[self.name].encoder
        encoder = getattr(transformers, kind).from_pretrained(self.backbone).eval()
        tokenizer, rows = AutoTokenizer.from_pretrained(self.backbone), []
        for text in TEXTS:
            ids = tokenizer(text, truncation=True, max_length=LENGTH, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                states = encoder(input_ids=ids).last_hidden_state[0].double().numpy()
            rows.append(states[-1] if self.last else states.mean(0))
        return np.array(rows)

    def check(self, embeddings: np.ndarray, bound: float = 1e-4) -> None:
        """Make sure that embeddings are those expected."""
        assert np.abs(embeddings - self.expected).max() < bound * np.abs(self.expected).max()

    def train(self, method: str, **settings: object) -> None:
        """Train two steps."""
        api.train(
            method,
            data=[str(self.text)],
            backbone=str(self.backbone),
            output_dir=self.root / method,
            steps=2,
            batch_size=4,
            eval_steps=2,
            dev=str(self.pairs),
            bf16="no",
            **settings,
        )


def teach(place: Place) -> None:
    """The cached pass."""
    teacher = load_teacher(str(place.published), device="cpu")
    cached = embed(teacher, Dataset.from_dict({"text": TEXTS}), place.root / "cache", bf16=False)
    place.check(np.asarray(cached["label"][:]))


def train_simcse(place: Place) -> None:
    """A student that is whole, trained by its dropout."""
    place.train("simcse", pooling=place.pooling, dropout=0.1)


def train_mlm(place: Place) -> None:
    """Masked-LM."""
    place.train("mlm", held_out=8)


def cut(place: Place) -> None:
    """One layer of two, into a DistilBERT."""
    assert np.isfinite(load_student(str(place.backbone), [1]).encode(TEXTS)).all()


def renew_vocabulary(place: Place) -> None:
    """A vocabulary trained on other text; a text of one word has its place among the positions still."""
    student = make_assistant(str(place.backbone), Dataset.from_dict({"text": sentences(200)}), 60)
    assert np.isfinite(student.encode(TEXTS)).all()


def encode_file(place: Place) -> None:
    """A file of text."""
    lines = write_content(place.root / "lines.txt", "\n".join(TEXTS))
    report = api.encode(place.folder, lines, place.root / "vectors.npy", overwrite=True)
    assert report.truncated == 1
    place.check(np.load(place.root / "vectors.npy"))


def export_files(place: Place) -> None:
    """ONNX in fp32, whose vectors are the folder's, and with weights in int8."""
    results = export(place.folder, PAIRS_SET, ["onnx", "int8"])
    assert [result.refused for result in results.values()] == [None, None]
    place.check(open_file(place.folder / "onnx/model.onnx", place.folder).encode(TEXTS, batch_size=3))


def write_card(place: Place) -> None:
    """The card, and the lines of plain transformers that it shows, run."""
    card = api.write_card(place.folder).read_text(encoding="utf-8")
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "import torch" in block]
    code = re.sub(r"^sentences = .*$", f"sentences = {TEXTS!r}", code, count=1, flags=re.MULTILINE)
    names: dict[str, object] = {}
    before = Path.cwd()
    os.chdir(place.folder.parent)
    try:
        exec(code, names)
    finally:
        os.chdir(before)
    place.check(np.asarray(names["embeddings"]))


USES: dict[str, Callable[[Place], None]] = {
    "teacher": teach,
    "simcse": train_simcse,
    "mlm": train_mlm,
    "cut": cut,
    "vocabulary": renew_vocabulary,
    "encode": encode_file,
    "export": export_files,
    "card": write_card,
}


def outcome(place: Place, use: str) -> str:
    """Return that a use works, or the sentence of its refusal, without the names of the family and of its folder."""
    try:
        with on_one_thread():
            USES[use](place)
    except InputError as error:
        kind = transformers.AutoConfig.from_pretrained(place.backbone).model_type
        named = re.sub(rf"\b(a|an) {kind} encoder", "THIS encoder", str(error).replace(str(place.backbone), "FOLDER"))
        return named[0].upper() + named[1:]
    return WORKS


def dropouts(name: str) -> str:
    """Name the settings of a family that --dropout sets."""
    family = FAMILIES[name]
    config = getattr(transformers, family.encoder).config_class(**family.config)
    return ", ".join(f"`{setting}`" for setting in dropout_settings(config, 0.1))


def page(outcomes: dict[tuple[str, str], str]) -> str:
    """Put all outcomes into the page: its table, and the sentences that the table names by number."""
    sentences = list(dict.fromkeys(text for text in outcomes.values() if text != WORKS))
    rows = [f"| | {' | '.join(USES)} | dropouts that `--dropout` sets |", f"|---|{'---|' * (len(USES) + 1)}"]
    for name in FAMILIES:
        texts = [outcomes[name, use] for use in USES]
        cells = [text if text == WORKS else f"no ({sentences.index(text) + 1})" for text in texts]
        rows.append(f"| {name} | {' | '.join(cells)} | {dropouts(name)} |")
    notes = [f"{number}. {sentence}" for number, sentence in enumerate(sentences, 1)]
    text = PAGE.read_text(encoding="utf-8")
    for first, lines in ((r"\| \| ", rows), (r"1\. ", notes)):
        text = re.sub(rf"(?ms)^{first}.*?(?=\n\n)", "\n".join(lines).replace("\\", r"\\"), text, count=1)
    return text


def read_page() -> dict[tuple[str, str], str]:
    """Return the outcomes that the page states."""
    text = PAGE.read_text(encoding="utf-8")
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    lines = [[cell.strip() for cell in line.split("|")[1:-2]] for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = lines
    return {
        (row[0], use): cell if cell == WORKS else notes[cell.removeprefix("no (").removesuffix(")")]
        for row in rows
        for use, cell in zip(head[1:], row[1:], strict=True)
    }


def main() -> None:
    """Try every use of every family, and write the page."""
    outcomes = {}
    with tempfile.TemporaryDirectory() as root:
        for name in FAMILIES:
            place = Place(name, Path(root) / name)
            outcomes |= {(name, use): outcome(place, use) for use in USES}
            print(name, {use: outcomes[name, use] for use in USES})
    PAGE.write_text(page(outcomes), encoding="utf-8")


if __name__ == "__main__":
    main()
