"""Trainings that take a second, for the tests of the trainers, of ``fit`` and of the scripts."""

import gc
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize
from tiny import WORDS, tiny_backbone, tiny_model, write_pairs

from distilface import cli
from distilface.methods import find_method
from distilface.training.checkpoints import WholeCheckpoints
from distilface.training.evaluators import DevEvaluator

#: Kinds of training that are a method under other options; every other kind is a method's own name.
VARIANTS = {
    "simcse with a head": "simcse",
    "codir with a queue": "codir",
    "embedding on the grid": "embedding",
    "embedding by tokens": "embedding",
    "embedding with relations": "embedding",
    "distillcse": "online",
    "distillcse, then online": "online",
}
STEPS, EVAL_STEPS, BATCH = 10, 3, 8
#: At which one process and two make the same batches: each holds an even number of texts.
TOKENS = 184
#: 28 sentences: an epoch is 4 steps of 8, the last of them half full.
SENTENCES = 28
#: The last checkpoint is the best, so that nothing hides in it; of two generations the second is the worse.
CURVE = {3: 50.0, 6: 20.0, 9: 30.0, 10: 90.0}
# For a process of its own: a later step scores higher, so that the last checkpoint is the best.
RISING = """
from distilface.training.evaluators import DevEvaluator
DevEvaluator.__call__ = lambda self, model, *a, steps=-1, **k: {"spearman": float(steps), "mean_cosine": 0.0}
"""


@dataclass(frozen=True)
class Materials:
    """What a training needs, on disk."""

    backbone: Path
    teacher: Path
    text: Path
    pairs: Path
    cache: Path
    parallel: Path

    def options(self, method: str) -> list[Any]:
        """Give what a method needs of what is here, by the names of its settings."""
        known = {
            "backbone": self.backbone,
            "teacher": self.teacher,
            "projection": "true",
            "dropout": "0.1",
            "cache_dir": self.cache,
            "dev": self.pairs,
            "held_out": "4",
        }
        names = {field.name for field in fields(find_method(method).Settings)}
        return [word for name, value in known.items() if name in names for word in (f"--{name}", value)]

    def words(self, kind: str, output: Path, *more: str) -> list[str]:
        """Give the command line of ten steps that write ``output``."""
        # a p at which Group-P has more than one of these few sentences in a group
        relations = ["--group_p", "0.5"]
        switches = ["--switch_every", EVAL_STEPS, "--max_switches", "2", "--teacher_from", "best_dev"]
        own: dict[str, list[Any]] = {
            "simcse": ["--pooling", "mean"],
            "simcse with a head": ["--pooling", "mean", "--mlp_head"],
            "codir": ["--negatives", "5"],
            "codir with a queue": ["--base", "simcse", "--queue", "20", "--objective", "infonce"],
            "embedding on the grid": ["--bits", "4", "--vocabulary", "85"],
            "embedding by tokens": ["--batch_tokens", TOKENS],
            "embedding with relations": [
                *("--relation_weight", "0.3", "--metric", "cosine", "--projection", "false", "--rotate", "true"),
                *("--relation_bank", "20"),
            ],
            "distillcse": [*relations, "--teachers", self.teacher],
            "online": [*relations, *switches],
            "distillcse, then online": [*relations, *switches, "--teachers", self.teacher],
            "multistage": ["--teacher", self.backbone, "--vocabulary", "150", "--keep_layers", "2"],
        }
        common = {
            "data": self.parallel if kind == "multistage" else self.text,
            "output_dir": output,
            "steps": STEPS,
            "batch_size": BATCH,
            "eval_steps": EVAL_STEPS,
            "learning_rate": 1e-3,
            "bf16": "no",
        }
        if kind == "embedding by tokens":
            del common["batch_size"]
        words = [
            *self.options(VARIANTS.get(kind, kind)),
            *(word for key, value in common.items() for word in (f"--{key}", value)),
            *own.get(kind, []),
        ]
        return [*map(str, words), *more]


def make_materials(folder: Path) -> Materials:
    """Make a backbone (32 dimensions), a teacher (48, normalised), sentences and scored pairs."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        modules = [*tiny_model(folder / "narrow", seed=1), Dense(32, 48), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder / "teacher"), create_model_card=False)
    draw = random.Random(0)
    sentences = [" ".join(draw.choices(WORDS.split(), k=draw.randint(3, 20))) for _ in range(SENTENCES)]
    (folder / "text.txt").write_text("\n".join(sentences) + "\n")
    parallel = folder / "toy.en-de.tsv"
    parallel.write_text("".join(f"{sentence}\t{sentence[::-1]}\n" for sentence in sentences))
    backbone, pairs = tiny_backbone(folder / "backbone"), write_pairs(folder / "pairs.jsonl")
    gc.freeze()  # every training ends in a full collection, a fifth of its time over all that is imported here
    return Materials(backbone, folder / "teacher", folder / "text.txt", pairs, folder / "cache", parallel)


def train(kind: str, words: list[str]) -> dict[str, Any]:
    """Run one kind of training in this process, by its command line."""
    run: dict[str, Any] = cli.run(["train", VARIANTS.get(kind, kind), *words])
    return run


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Read every tensor of a folder."""
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{f.relative_to(folder)}: {name}": tensor for f in files for name, tensor in load_file(f).items()}


def equal(first: Path, second: Path) -> bool:
    """Return whether two folders hold the same tensors, bit for bit."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert a
    return all(torch.equal(a[name], b[name]) for name in a)


def tree(folder: Path) -> dict[str, bytes | None]:
    """Read all that is below a folder; a folder itself is ``None``."""
    return {str(f.relative_to(folder)): f.read_bytes() if f.is_file() else None for f in folder.rglob("*")}


@contextmanager
def each_step(before: Any) -> Iterator[None]:
    """Call ``before(step, inputs)`` at the beginning of every training step; steps count from 1."""
    real = WholeCheckpoints.training_step

    def step(self: WholeCheckpoints, model: Any, inputs: Any, *arguments: Any) -> torch.Tensor:
        before(self.state.global_step + 1, inputs)
        return real(self, model, inputs, *arguments)

    with patch.object(WholeCheckpoints, "training_step", step):
        yield


@contextmanager
def stopped_at(step: int) -> Iterator[pytest.ExceptionInfo[KeyboardInterrupt]]:
    """Press Ctrl-C in the middle of a step, and expect the training to end by it."""
    press = each_step(lambda now, _: signal.raise_signal(signal.SIGINT) if now == step else None)
    with press, pytest.raises(KeyboardInterrupt) as stop:
        yield stop


@contextmanager
def scores(of_step: dict[int, float] = CURVE) -> Iterator[None]:
    """Have the development set score what is written here, and 0 at any other time."""

    def score(self: DevEvaluator, model: Any, *arguments: Any, steps: int = -1, **options: Any) -> dict[str, float]:
        return {"spearman": of_step.get(steps, 0.0), "mean_cosine": 0.0}

    with patch.object(DevEvaluator, "__call__", score):
        yield
