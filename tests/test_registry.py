"""What every method must do, whichever there are; equations are in test_oracles or in a method's own file."""

import json
import re
from dataclasses import fields
from typing import Any

import pytest
import torch
from runs import VARIANTS, weights
from safetensors.torch import load_file
from students import same, state
from torch import nn

from distilface.data.parallel import held_out_split, read_parallel, sentences
from distilface.data.texts import read_texts
from distilface.methods import find_method, methods
from distilface.methods.base import Paper, Task
from distilface.methods.multistage.stages import Assistant, ParallelTask
from distilface.model.folder import save_folder
from distilface.settings import InputError, parse
from distilface.training.settings import TrainSettings
from distilface.training.trainer import LOSS_STATE, EncoderTrainer

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")
NAMES = list(methods())
#: Every method, and the ways of one in which another loss or another teacher is at work.
KINDS = [*NAMES, "simcse with a head", "embedding with relations", "codir with a queue", "distillcse"]


class TinyCase:
    """A trainer by a method, the teachers that its loss reads, and one batch."""

    def __init__(self, kind: str, materials, folder) -> None:
        method: Any = find_method(VARIANTS.get(kind, kind))
        self.settings = settings = parse(method.Settings, materials.words(kind, folder / "model"), "")
        task: Any
        if kind == "multistage":
            pairs, held_out = held_out_split(read_parallel(settings.data), settings.held_out)
            task = Assistant(ParallelTask(settings, sentences(pairs), pairs, held_out))
        else:
            task = Task(settings, read_texts(settings.data))
        if kind.startswith(("codir", "distillcse")):  # a loss that runs its teacher sees to its dropout itself
            task.teacher.train()
        torch.manual_seed(0)
        self.trainer: Any = method.trainer(task)[0]
        self.student, self.loss = self.trainer.model, getattr(self.trainer, "loss", self.trainer.model)
        self.teachers = [task.teacher] if kind == "multistage" else [*task.teachers]
        if getattr(self.loss, "past", None) is not None:
            self.loss.switch()
            self.teachers += [self.loss.past, self.loss.best]
        self.batch = next(iter(self.trainer.get_train_dataloader()))

    def value(self, rows: int = 8, padding: int = 0) -> torch.Tensor:
        """Compute the loss of the first rows of the batch, with columns of padding."""
        inputs = {}
        for name, value in self.batch.items():
            rest = value[:rows] if isinstance(value, torch.Tensor) else value
            tokens = name.endswith(("input_ids", "attention_mask", "labels"))
            inputs[name] = nn.functional.pad(rest, (0, padding), value=-100 * (name == "labels")) if tokens else rest
        return self.trainer.compute_loss(self.student, inputs)


@pytest.fixture(scope="module")
def make(materials, tmp_path_factory):
    """Give what a kind of training is made of; each is made once, and has made a step."""
    known: dict[str, TinyCase] = {}

    def case(kind: str) -> TinyCase:
        if kind not in known:
            known[kind] = TinyCase(kind, materials, tmp_path_factory.mktemp("method"))
        return known[kind]

    return case


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_moves_the_student_and_no_teacher(kind, make):
    """Silent if broken: an untrained weight, a dropout in the teacher, or a forgotten layer costs a little score."""
    case = make(kind)
    own = {id(p) for p in (*case.student.parameters(), *case.loss.parameters()) if p.requires_grad}
    optimizer = case.trainer.create_optimizer()
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == own
    before = [state(model) for model in (case.student, *case.teachers)]
    case.loss.train()
    assert case.student.training
    assert not any(module.training for teacher in case.teachers for module in teacher.modules())
    case.loss.zero_grad()
    case.value().backward()
    without = {n for n, p in case.loss.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())}
    # a bias that is added to every key of a softmax alike changes nothing
    assert {name for name in without if "k_lin.bias" not in name} == set()
    assert all(p.grad is None and not p.requires_grad for teacher in case.teachers for p in teacher.parameters())
    optimizer.step()
    assert [same(state(m), old) for m, old in zip((case.student, *case.teachers), before, strict=True)] == [
        False,
        *[True] * len(case.teachers),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, make):
    """Silent if broken: what a sentence teaches would depend on its neighbours' length."""
    case = make(kind)
    case.loss.train()
    case.value()  # CoDIR's banks and scale are those of the first batch
    case.loss.eval()
    with torch.no_grad():
        torch.testing.assert_close(case.value(padding=5), case.value(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one(kind, make):
    """The last one of an epoch may be: nothing to tell apart, and no NaN."""
    case = make(kind)
    case.loss.train()
    case.loss.zero_grad()
    value = case.value(rows=1)
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(p.grad).all() for p in case.loss.parameters() if p.grad is not None)
    if kind in ("simcse", "simcse with a head", "online", "distillcse"):
        assert value.item() == pytest.approx(0, abs=1e-6), "nothing to tell apart"


#: What checkpoints keep beside the student, by the first word of its name; ``None``: whatever it is.
KEPT = {
    "simcse": set(),
    "simcse with a head": {"head"},
    "embedding": {"projection"},
    "embedding with relations": {"bank", "seen"},
    "leaf": set(),
    "codir": {"base", "codir"},
    "codir with a queue": {"codir"},
    "online": {"past", "best", "best_score", "generation", "step"},
    "distillcse": {"best_score", "generation", "step"},
    "multistage": set(),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mlm"])
def test_a_checkpoint_keeps_the_loss_and_a_folder_does_not(kind, make, tmp_path):
    """Silent if broken: a resumed run would train a fresh projection; a published one is dead weight."""
    case = make(kind)
    assert isinstance(case.trainer, EncoderTrainer)
    case.trainer._save(str(tmp_path / "checkpoint"))
    file = tmp_path / "checkpoint" / LOSS_STATE
    kept = load_file(file) if file.exists() else {}
    own = {name for name in case.loss.state_dict() if not name.startswith(("model.", "base.model."))}
    assert set(kept) == own
    assert {name.split(".")[0] for name in kept} == KEPT.get(kind, {name.split(".")[0] for name in own})
    save_folder(case.student, tmp_path / "folder")
    published = sum(tensor.numel() for tensor in weights(tmp_path / "folder").values())
    assert published == sum(tensor.numel() for tensor in case.student.state_dict().values())
    assert not list((tmp_path / "folder").rglob(f"*{LOSS_STATE}"))
    assert '"output_hidden_states": true' not in (tmp_path / "folder" / "config.json").read_text()


#: Of a kind: what run.json says of its loss, and what its citation holds.
CONFIGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "simcse": ({"scale": 20, "directions": ["query_to_doc"], "mlp_head": False}, ["2401.12472", "SimCSE"]),
    "simcse with a head": ({"mlp_head": True}, ["SimCSE"]),
    "embedding": ({"distance_metric": "mse", "projection_dim": 48}, ["2301.12005"]),
    "embedding with relations": (
        {"relation_weight": 0.3, "relation_temperature": 0.05, "relation_bank": 20, "distance_metric": "cosine"},
        ["2301.12005", "DistillCSE"],
    ),
    "codir": (
        {"base": "EmbeddingLoss", "weight": 1.0, "distance_metric": "cosine", "projection_dim": 48},
        ["sun2020codir", "tian2020crd", "kim2023embeddistill"],
    ),
    "codir with a queue": ({"base": "SimCSELoss"}, ["sun2020codir", "SimCSE"]),
    "distillcse": (
        {
            "scale": 20.0,
            "mlp_head": False,
            "weight": 1.0,
            "student_temperature": 0.02,
            "teacher_temperature": 0.01,
            "group_p": 0.5,
            "teacher_max_length": 32,
            "teachers": 1,
            "keep": None,
        },
        ["DistillCSE", "SimCSE"],
    ),
    "online": ({"teachers": 0, "keep": "best_dev"}, ["DistillCSE", "SimCSE"]),
    "multistage": ({"weight": 1.0}, ["Multi-stage Distillation"]),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mlm"])
def test_a_loss_tells_its_settings_and_papers(kind, make):
    """The card and run.json are written from these."""
    loss, (settings, papers) = make(kind).loss, CONFIGS.get(kind, ({}, []))
    config = json.loads(json.dumps(loss.get_config_dict()))
    assert {name: config.get(name) for name in settings} == settings
    assert all(paper in loss.citation for paper in papers)
    assert loss.citation


@pytest.mark.parametrize("name", NAMES)
def test_a_method_brings_its_paper(name):
    """A card cites what the method says: an empty paper would be a card that cites nothing."""
    method = find_method(name)
    for paper in method.cites({}):
        assert isinstance(paper, Paper)
        assert paper.name
        assert paper.summary
        assert paper.limits
        assert all(link.startswith("https://") for link in paper.links.values())
        assert paper.links
        assert len(re.findall(r"^@\w+\{\w+,$", paper.bibtex, re.MULTILINE)) >= 1
        assert paper.bibtex.count("{") == paper.bibtex.count("}")
    assert issubclass(method.Settings, TrainSettings)
    assert all(field.metadata["help"] for field in fields(method.Settings))


def test_names_and_aliases_are_one_methods_own():
    names = [name for method in methods().values() for name in (method.name, *method.aliases)]
    assert len(names) == len(set(names))
    aliases = [find_method(alias).name for alias in ("distill", "unsup", "distillcse")]
    assert aliases == ["embedding", "simcse", "online"]
    with pytest.raises(InputError, match=r"^unknown method 'distil': did you mean 'distill'"):
        find_method("distil")


def test_a_run_cites_what_stands_beside_its_loss():
    cited = [paper.name for paper in find_method("codir").cites({"base": "simcse"})]
    assert cited == [find_method("codir").paper.name, find_method("simcse").paper.name]
    distill = find_method("distill")
    assert distill.cites({"relation_weight": 0.0}) == [distill.paper]
    assert [*distill.cites({"relation_weight": 0.3})[1].links] == ["distillcse"]
