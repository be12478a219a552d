"""What is written into a model folder: the older names, nothing of the training, the same vectors."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from five import TEXTS, contents, make
from safetensors import safe_open
from sentence_transformers import SentenceTransformerTrainer
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import LSTM
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from torch import nn
from transformers import DistilBertModel

from distilface.model.folder import load, save_folder
from distilface.settings import InputError

CARD_TEXTS = ["The cat sat on the mat.", "A cat was sitting on a rug."]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_settings_file_is_the_golden_one(tmp_path):
    """golden_folder.json holds those of ``mean``, ``Dense`` and ``Normalize``, without the vocabulary's size."""
    torch.manual_seed(0)
    model = make("mean", Dense(32, 16), Normalize())
    model.max_seq_length = 16
    model.encode(TEXTS)
    save_folder(model, tmp_path / "m", run={"seed": 1}, max_seq_length=48)
    files = contents(tmp_path / "m")
    text = (Path(__file__).parent / "golden_folder.json").read_text(encoding="utf-8")
    for package in ("torch", "sentence-transformers", "transformers"):
        text = text.replace(f'"{package.upper()}"', json.dumps(version(package)))
    golden = json.loads(text)
    golden["config.json"]["vocab_size"] = len(model.tokenizer)
    others = {"README.md", "model.safetensors", "2_Dense/model.safetensors", "tokenizer.json"}
    assert set(files) == {*golden, *others}
    assert {name: json.loads(files[name]) for name in golden} == golden
    tokenizer = json.loads(files["tokenizer.json"])
    assert (tokenizer["truncation"], tokenizer["padding"]) == (None, None)


def test_the_settings_of_last4_are_the_golden_ones(tmp_path):
    """Without output_hidden_states sentence-transformers 6 pools the last layer, and is silent."""
    save_folder(make("last4"), tmp_path / "m")
    files = {name: json.loads(text) for name, text in contents(tmp_path / "m").items() if name.endswith(".json")}
    assert files["config.json"]["output_hidden_states"] is True
    golden = {"word_embedding_dimension": 32, "layer_start": 2, "num_hidden_layers": 5}
    assert files["1_WeightedLayerPooling/config.json"] == golden
    kinds = [module["type"].rpartition(".")[2] for module in files["modules.json"]]
    assert kinds == ["Transformer", "WeightedLayerPooling", "Pooling"]


MODES = ["mean", "cls", "last4", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "more", [[], [Normalize()], [Dense(32, 16, bias=False, activation_function=nn.GELU()), Normalize()]]
)
def test_the_vectors_stay_on_reload_and_in_plain_transformers(mode, more, tmp_path, monkeypatch):
    model = make(mode, *more)
    saved = save_folder(model, tmp_path / "my model")
    np.testing.assert_allclose(load(saved.path).encode(TEXTS), model.encode(TEXTS), atol=1e-6)
    monkeypatch.chdir(tmp_path)
    snippets = [part.split("```")[0] for part in saved.card.read_text().split("```python\n")[1:]]
    assert len(snippets) == 2
    for snippet in snippets:
        for texts in (CARD_TEXTS, TEXTS):
            code, names = snippet.replace(json.dumps(CARD_TEXTS), json.dumps(texts)), {}
            exec(code, names)
            np.testing.assert_allclose(np.asarray(names["embeddings"]), model.encode(texts), atol=1e-5)


def test_the_card_repeats_a_default_prompt(tmp_path, monkeypatch):
    model = make("mean")
    model.prompts, model.default_prompt_name = {"query": "a dog: "}, "query"
    code = save_folder(model, tmp_path / "m").card.read_text().split("```python\n")[2].split("```")[0]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    np.testing.assert_allclose(names["embeddings"], model.encode(CARD_TEXTS), atol=1e-5)


def test_weights_are_fp32_and_readable_by_all(tmp_path):
    """A file of safetensors is readable by its owner alone: a shared folder would not load for others."""
    saved = save_folder(make("last4", Dense(32, 16)).bfloat16(), tmp_path / "m")
    for file in saved.path.rglob("*.safetensors"):
        assert file.stat().st_mode == (saved.path / "modules.json").stat().st_mode
        with safe_open(file, "pt") as weights:
            assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"F32"}  # noqa: SIM118
    assert load(saved.path).dtype == torch.float32


def test_nothing_of_the_training_or_the_machine_is_in_a_file(tmp_path):
    """The trainer hands its sentences to the card that sentence-transformers writes, asked or not."""
    model = make("mean")
    model.max_seq_length = 9
    texts = ["the secret horse of the old king", "a hidden garden in the valley"]
    SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(tmp_path / "run", max_steps=1, report_to=[], use_cpu=True),
        train_dataset=Dataset.from_dict({"a": texts, "b": texts}),
        loss=MultipleNegativesRankingLoss(model),
    ).train()
    model[0].model.config.output_hidden_states = True
    model[0].model.set_attn_implementation("eager")
    saved = save_folder(model, tmp_path / "m", max_seq_length=64)
    files = contents(saved.path)
    assert {Path(name).suffix for name in files} == {".json", ".md", ".safetensors"}
    for name, content in files.items():
        places = (str(tmp_path), str(Path.cwd()), sys.prefix)
        for leak in ("secret horse", "hidden garden", "output_hidden", "eager", *places):
            assert leak.encode() not in content, name
    assert load(saved.path).max_seq_length == 64
    assert model.max_seq_length == 9
    model.max_seq_length = 64
    np.testing.assert_allclose(load(saved.path).encode(TEXTS), model.encode(TEXTS), atol=1e-6)


class Doubled(nn.Module):
    def forward(self, features):
        return features


class OwnEncoder(DistilBertModel):
    pass


def own_encoder():
    model = make("mean")
    model[0].model.__class__ = OwnEncoder
    return model


REFUSED = {
    "would need remote code": lambda: make("mean", Doubled()),
    "cannot be module 2": lambda: make("mean", LSTM(32, 8)),
    "Dense with use_residual": lambda: make("mean", Dense(32, 32, use_residual=True)),
    "module_input_name": lambda: make("mean", Normalize("token_embeddings")),
    "activation .* is not torch's": lambda: make("mean", Dense(32, 8, activation_function=Doubled())),
    "the order is cls, mean": lambda: make(("mean", "cls")),
    "OwnEncoder is not an encoder of transformers": own_encoder,
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_a_model_that_is_not_portable_is_refused(sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        save_folder(REFUSED[sentence](), tmp_path / "new" / "m")
    assert not (tmp_path / "new").exists()
