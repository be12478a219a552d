"""Layers that run several times: an Albert computes what they do one after another, and its file holds each once."""

import onnx
import pytest
import torch
from exported import PAIRS_SET
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tiny import random_bert, save_bert, tiny_albert
from transformers import AutoModel, ElectraConfig, ElectraModel

from distilface.compression.layers import cut_layers
from distilface.compression.sharing import share_layers
from distilface.compression.student import load_backbone, save_encoder
from distilface.exporters import exporting
from distilface.settings import InputError

pytestmark = pytest.mark.usefixtures("one_thread", "own_cache")


def states(encoder) -> torch.Tensor:
    """Return the hidden states of two texts, the padding of the shorter left out."""
    draw = torch.Generator().manual_seed(5)
    ids, mask = torch.randint(5, 60, (2, 9), generator=draw), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    with torch.no_grad():
        return encoder.eval()(input_ids=ids, attention_mask=mask).last_hidden_state[mask == 1]


def test_each_layer_runs_as_often_as_was_asked(tmp_path):
    """Every number of the BERT is random, so a forgotten bias, norm, token type or position shows."""
    bert = random_bert(layers=4)
    shared, record = share_layers(cut_layers(bert, [0, 3]), 3)
    assert record == {"layers": 2, "runs": 3}
    expected = states(cut_layers(bert, [0, 0, 0, 3, 3, 3]))
    torch.testing.assert_close(states(shared), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(states(share_layers(bert, 2)[0]), states(cut_layers(bert, [0, 0, 1, 1, 2, 2, 3, 3])))
    shared.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path)
    assert again.config.model_type == "albert"
    torch.testing.assert_close(states(again), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("rank", "types", "eps"), [(16, 1, 1e-12), (16, 2, 1e-3), (32, 2, 1e-12)])
def test_an_electra_keeps_its_table(rank, types, eps):
    """Of low rank, as a student's, or one of the Hub's: two token types, another norm, no map where it is as wide."""
    common = {"vocab_size": 60, "embedding_size": rank, "hidden_size": 32, "num_attention_heads": 4}
    common |= {"intermediate_size": 40, "max_position_embeddings": 32, "type_vocab_size": types, "layer_norm_eps": eps}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        electra, twice = (ElectraModel(ElectraConfig(num_hidden_layers=layers, **common)) for layers in (2, 4))
        for weight in electra.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    own = electra.state_dict()
    doubled = {
        name.replace("layer.", f"layer.{place}.", 1): own[name.replace("layer.", f"layer.{place // 2}.", 1)]
        for name in (key.replace("layer.0.", "layer.", 1) for key in own if ".layer.0." in key)
        for place in range(4)
    }
    twice.load_state_dict({**{name: value for name, value in own.items() if ".layer." not in name}, **doubled})
    shared, _ = share_layers(electra, 2)
    assert shared.config.embedding_size == rank
    torch.testing.assert_close(states(shared), states(twice), atol=1e-5, rtol=0)


@pytest.mark.parametrize("runs", [1, 0, -2])
def test_fewer_than_two_runs_are_refused(runs):
    with pytest.raises(InputError, match=f"--layer_runs {runs} is out of range; it must be 2 or more"):
        share_layers(random_bert(), runs)


def test_another_family_is_refused(tmp_path):
    encoder, _ = load_backbone(str(tiny_albert(tmp_path)))
    with pytest.raises(InputError, match="cannot be cut into a DistilBERT"):
        share_layers(encoder, 2)


def test_the_file_of_4_bits_holds_a_shared_layer_once(tmp_path):
    bert, tokenizer = load_backbone(str(save_bert(tmp_path / "bert")))
    shared, _ = share_layers(bert, 2)
    save_encoder(shared, tokenizer, str(tmp_path / "albert"))
    transformer = Transformer(str(tmp_path / "albert"))
    model = SentenceTransformer(modules=[transformer, Pooling(64, pooling_mode="mean")], device="cpu")
    model.save_pretrained(str(tmp_path / "m"), create_model_card=False)
    assert exporting.export(tmp_path / "m", PAIRS_SET, ["q4"])["q4"].refused is None
    graph = onnx.load(tmp_path / "m" / "onnx" / "model_q4.onnx").graph
    maps = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(maps) == 1 + 4 * 6, "the map from the table, and six of each of four passes"
    assert len({node.input[1] for node in maps}) == 1 + 2 * 6
